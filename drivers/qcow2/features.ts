import { Extension } from "./_layout.ts";

/** Bytes of a record in the feature name table. */
const RECORD = 48;

/** Words in the table: which of the three feature words a record is about. */
const Word = { incompatible: 0, compatible: 1, autoclear: 2 } as const;

/** The rows of the feature name table that this driver writes, in order (section 1). */
const FEATURES: readonly (readonly [word: number, bit: number, name: string])[] = [
  [Word.incompatible, 0, "dirty bit"],
  [Word.incompatible, 1, "corrupt bit"],
  [Word.incompatible, 2, "external data file"],
  [Word.incompatible, 3, "compression type"],
  [Word.incompatible, 4, "extended L2 entries"],
  [Word.compatible, 0, "lazy refcounts"],
  [Word.autoclear, 0, "bitmaps"],
  [Word.autoclear, 1, "raw external data"],
];

/** The feature name table as this driver writes it, 384 bytes. */
export function featureNameTable(): Uint8Array {
  const encoder = new TextEncoder();
  const table = new Uint8Array(FEATURES.length * RECORD);
  for (const [row, [word, bit, name]] of FEATURES.entries()) {
    table[row * RECORD] = word;
    table[row * RECORD + 1] = bit;
    table.set(encoder.encode(name), row * RECORD + 2);
  }
  return table;
}

/**
 * Names unknown incompatible bits, from the image's own feature name table as
 * far as it has them. `extensions` are the bytes of the extension area, not
 * yet checked; damage ends the search.
 */
export function describeUnknownFeatures(mask: bigint, extensions: Uint8Array): string {
  const decoder = new TextDecoder();
  const names: string[] = [];
  let left = mask;
  const table = findTable(extensions);
  for (let at = 0; at + RECORD <= table.length && table[at + 2] !== 0; at += RECORD) {
    const [word, bit] = [table[at]!, table[at + 1]!];
    const flag = 1n << BigInt(bit);
    if (word !== Word.incompatible || bit > 63 || (left & flag) === 0n) continue;
    const field = table.subarray(at + 2, at + RECORD);
    const end = field.indexOf(0);
    names.push(printable(decoder.decode(end < 0 ? field : field.subarray(0, end))));
    left &= ~flag;
  }
  if (left !== 0n) names.push(`Unknown incompatible feature: ${left.toString(16)}`);
  return names.join(", ");
}

/** A name out of a strange file must not steer the terminal. */
function printable(name: string): string {
  // deno-lint-ignore no-control-regex
  return name.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}

function findTable(extensions: Uint8Array): Uint8Array {
  const view = new DataView(extensions.buffer, extensions.byteOffset, extensions.byteLength);
  for (let at = 0; at + 8 <= extensions.length;) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    at += 8;
    if (type === Extension.end || length > extensions.length - at) break;
    if (type === Extension.featureNames) return extensions.subarray(at, at + length);
    at += Math.ceil(length / 8) * 8;
  }
  return new Uint8Array(0);
}
