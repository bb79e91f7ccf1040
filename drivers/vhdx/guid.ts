/**
 * GUIDs as they are stored: a 32-bit and two 16-bit numbers, little-endian, and eight bytes.
 *
 * @module
 */

/** Bytes of a GUID. */
export const GUID_SIZE = 16;

/** The one that stands for none. */
export const NO_GUID: Uint8Array = new Uint8Array(GUID_SIZE);

/** A new one. */
export function newGuid(): Uint8Array {
  const guid = crypto.getRandomValues(new Uint8Array(GUID_SIZE));
  // Version 4, drawn by lot; the version is in the last of the little-endian numbers.
  guid[7] = guid[7]! & 0x0f | 0x40;
  guid[8] = guid[8]! & 0x3f | 0x80;
  return guid;
}

/** The GUID of a text such as `2DC27766-F623-4200-9D64-115E9BFD4A08`, with braces or without. */
export function parseGuid(text: string): Uint8Array | undefined {
  const pattern = /^\{?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\}?$/i;
  const groups = pattern.exec(text.trim());
  if (groups === null) return undefined;
  const [, first = "", second = "", third = "", ...rest] = groups;
  const digits = [first, second, third].map((part) => part.match(/../g)!.reverse().join(""));
  return Uint8Array.from(
    (digits.join("") + rest.join("")).match(/../g)!,
    (byte) => parseInt(byte, 16),
  );
}

/** The text of a GUID in lower case, without braces. */
export function formatGuid(guid: Uint8Array): string {
  const hex = (from: number, to: number, step: 1 | -1) => {
    const bytes = [...guid.subarray(from, to)];
    if (step < 0) bytes.reverse();
    return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  };
  return [hex(0, 4, -1), hex(4, 6, -1), hex(6, 8, -1), hex(8, 10, 1), hex(10, 16, 1)].join("-");
}

/** One that the format's specification names. */
function known(text: string): Uint8Array {
  return parseGuid(text)!;
}

/** The regions of an image. */
export const Region = {
  /** The block allocation table. */
  table: known("2DC27766-F623-4200-9D64-115E9BFD4A08"),
  /** What is known of the disk. */
  metadata: known("8B7CA206-4790-4B9A-B8FE-575F050F886E"),
} as const;

/** What is known of the disk. */
export const Item = {
  fileParameters: known("CAA16737-FA36-4D43-B3B6-33F0AA44E76B"),
  virtualSize: known("2FA54224-CD1B-4876-B211-5DBED83BF4B8"),
  page83: known("BECA12AB-B2E6-4523-93EF-C309E000C746"),
  logicalSector: known("8141BF1D-A96F-4709-BA47-F233A8FAAB5F"),
  physicalSector: known("CDA348C7-445D-4471-9CC9-E9885251C556"),
  parentLocator: known("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"),
} as const;

/** The kind of parent locator that leads to an image of this format. */
export const VHDX_PARENT: Uint8Array = known("B04AEFB7-D19E-4A81-B789-25B8E9445913");
