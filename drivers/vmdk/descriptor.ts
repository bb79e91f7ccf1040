/**
 * The text that describes an image (section 2 of the format's reference).
 *
 * Like the reference this looks for words wherever they stand, which other products' descriptors bear.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { DESCRIPTOR_AREA, NO_PARENT, SECTOR } from "./_layout.ts";

/** What an extent line says. */
export interface ExtentLine {
  /** Sectors of the disk. */
  readonly sectors: number;
  /** What lies in the file: `FLAT`, `SPARSE` … */
  readonly type: ExtentType;
  /** The file's name, relative to the descriptor's folder. */
  readonly filename: string;
  /** First sector of the data in a flat file. */
  readonly offset: number;
}

/** Types of extents that can be read. */
export type ExtentType = "FLAT" | "VMFS" | "SPARSE" | "VMFSSPARSE" | "SESPARSE";

const EXTENT_TYPES: ReadonlySet<string> = new Set(
  ["FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "SESPARSE"] satisfies ExtentType[],
);

/** Kinds of images whose descriptor is a file of its own. */
const STAND_ALONE = new Set([
  "monolithicFlat",
  "vmfs",
  "vmfsSparse",
  "seSparse",
  "twoGbMaxExtentSparse",
  "twoGbMaxExtentFlat",
]);

const MAX_WORD = 127;
const MAX_HINT = 4095;

/** The text up to the first NUL. What is no UTF-8 is taken byte by byte. */
export function descriptorText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const text = end < 0 ? bytes : bytes.subarray(0, end);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text);
  } catch {
    return new TextDecoder("latin1").decode(text);
  }
}

/**
 * The kind of image that a stand-alone descriptor describes.
 *
 * @throws {ImageError} `invalid VMDK image descriptor`, `Unsupported image type '…'`
 */
export function standAloneType(text: string, file: string): string {
  const type = valueAfter(text, "createType", 2, MAX_WORD);
  if (type === undefined) {
    throw new ImageError("invalid VMDK image descriptor", {
      errno: "EINVAL",
      file,
      field: "createType",
    });
  }
  if (!STAND_ALONE.has(type)) {
    throw new ImageError(`Unsupported image type '${type}'`, {
      errno: "ENOTSUP",
      file,
      field: "createType",
    });
  }
  return type;
}

/**
 * The image's content id, or that which its parent had.
 *
 * @throws {ImageError} a bare `EINVAL` if there is none.
 */
export function contentId(text: string, which: "CID" | "parentCID", file: string): number {
  const at = text.indexOf(which);
  if (at < 0) throw ImageError.fromErrno("EINVAL", { file, field: which });
  const found = /^\s*([+-]?)(?:0[xX])?([0-9a-fA-F]+)/.exec(text.slice(at + which.length + 1));
  if (found === null) return 0;
  const value = BigInt(`0x${found[2]!.slice(-16)}`);
  return Number(BigInt.asUintN(32, found[1] === "-" ? -value : value));
}

/**
 * The name of the parent, `""` if there is none.
 *
 * @throws {ImageError} a bare `EINVAL` for a name without an end.
 */
export function parentName(text: string, file: string): string {
  const key = "parentFileNameHint";
  if (!text.includes(key)) return "";
  const name = valueAfter(text, key, 2, MAX_HINT);
  if (name === undefined) throw ImageError.fromErrno("EINVAL", { file, field: key });
  return name;
}

/** What stands between `skip` characters after a word and the next quote. */
function valueAfter(text: string, word: string, skip: number, limit: number): string | undefined {
  const found = text.indexOf(word);
  if (found < 0) return undefined;
  const start = found + word.length + skip;
  const end = text.indexOf('"', start);
  return end < 0 || end - start > limit ? undefined : text.slice(start, end);
}

/**
 * The extents that a stand-alone descriptor lists, in their order. Lines that are none, or that nobody
 * may write to, are passed over.
 *
 * @throws {ImageError} `Invalid extent line: …`
 */
export function* extentLines(text: string, file: string): Generator<ExtentLine> {
  for (const line of text.split("\n")) {
    const words = scanExtentLine(line);
    if (words === undefined || words.access !== "RW") continue;
    const { sectors, type, filename, offset } = words;
    const isWrong = type === "FLAT" ? offset === undefined || offset < 0 : offset !== undefined;
    if (isWrong) {
      throw new ImageError(`Invalid extent line: ${line}`, {
        errno: "EINVAL",
        file,
        field: "extent",
      });
    }
    if (sectors <= 0 || !EXTENT_TYPES.has(type)) continue;
    yield { sectors, type: type as ExtentType, filename, offset: offset ?? 0 };
  }
}

interface ScannedLine {
  readonly access: string;
  readonly sectors: number;
  readonly type: string;
  readonly filename: string;
  readonly offset: number | undefined;
}

/** `RW <sectors> <TYPE> "<file>" [<offset>]` with the liberties that C's `scanf` takes. */
function scanExtentLine(line: string): ScannedLine | undefined {
  let at = 0;
  const next = (pattern: RegExp): string | undefined => {
    const sticky = new RegExp(pattern, "y");
    sticky.lastIndex = at;
    const found = sticky.exec(line);
    if (found === null) return undefined;
    at = sticky.lastIndex;
    return found[1] ?? "";
  };
  const access = next(/\s*(\S{1,10})/);
  const sectors = access && next(/\s*([+-]?\d+)/);
  const type = sectors && next(/\s*(\S{1,10})/);
  const filename = type && next(/\s*"([^"\r\n]{1,511})/);
  if (!access || !sectors || !type || !filename) return undefined;
  const offset = next(/"/) === undefined ? undefined : next(/\s*([+-]?\d+)/);
  return {
    access,
    sectors: Number(sectors),
    type,
    filename,
    offset: offset === undefined ? undefined : Number(offset),
  };
}

/**
 * A content id for whatever is there now: random, and of a given number of hexadecimal digits, so that texts
 * can keep their length.
 */
export function newContentId(digits = 8): number {
  const lowest = 16 ** (digits - 1);
  const [random] = crypto.getRandomValues(new Uint32Array(1));
  const id = lowest + random! % (lowest * 15);
  // All bits set mean that there is no parent.
  return Math.min(id, NO_PARENT - 2);
}

/** A descriptor with another content id. */
export interface ChangedDescriptor {
  /** Its bytes, padded with NULs to whole sectors. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The content id. */
  readonly cid: number;
}

/**
 * The descriptor in `area` with another content id of as many digits, so that nothing else changes. One
 * that has no such id gets what the reference would make of it.
 *
 * @throws {ImageError} a bare `EINVAL` if there is no parent's id behind it.
 */
export function changeContentId(area: Uint8Array, file: string): ChangedDescriptor {
  const end = area.indexOf(0);
  const text = area.subarray(0, end < 0 ? area.length : end);
  const rest = find(text, "parentCID");
  if (rest < 0) throw ImageError.fromErrno("EINVAL", { file, field: "parentCID" });
  const bytes = new Uint8Array(Math.ceil(area.length / SECTOR) * SECTOR);
  bytes.set(area);
  const key = find(text, "CID=");
  if (key < 0) return { bytes, cid: newContentId() };
  const start = key + "CID=".length;
  const old = /^[0-9a-fA-F]*/.exec(new TextDecoder().decode(text.subarray(start, start + 9)))![0];
  if (old.length >= 1 && old.length <= 8) {
    let cid: number;
    do cid = newContentId(old.length); while (cid === Number.parseInt(old, 16));
    bytes.set(new TextEncoder().encode(cid.toString(16)), start);
    return { bytes, cid };
  }
  const cid = newContentId();
  const line = new TextEncoder().encode(`${cid.toString(16)}\n`);
  const tail = text.subarray(rest);
  const length = start + line.length + tail.length;
  if (length > bytes.length) throw ImageError.fromErrno("EFBIG", { file, field: "CID" });
  bytes.set(line, start);
  bytes.set(tail, start + line.length);
  bytes.fill(0, length, Math.max(text.length, length));
  return { bytes, cid };
}

function find(bytes: Uint8Array, word: string): number {
  // One character a byte.
  return new TextDecoder("latin1").decode(bytes).indexOf(word);
}

/** What a new descriptor says. */
export interface DescriptorFields {
  /** Content id. */
  readonly cid: number;
  /** The parent's. */
  readonly parentCid: number;
  /** Kind of image. */
  readonly createType: string;
  /** Name of the parent, `""` for none. */
  readonly parent: string;
  /** Lines of extents, each without its end. */
  readonly extents: readonly string[];
  /** Virtual hardware version. */
  readonly hardwareVersion: string;
  /** Size of the disk, bytes. */
  readonly size: number;
  /** Disk controller. */
  readonly adapterType: string;
  /** Version of the guest tools. */
  readonly toolsVersion: string;
}

/** The text of a new descriptor (section 8 of the format's reference). */
export function newDescriptor(fields: DescriptorFields): Uint8Array<ArrayBuffer> {
  const heads = fields.adapterType === "ide" ? 16 : 255;
  const cylinders = Math.floor(fields.size / (63 * heads * SECTOR));
  const lines = [
    "# Disk DescriptorFile",
    "version=1",
    `CID=${fields.cid.toString(16)}`,
    `parentCID=${fields.parentCid.toString(16)}`,
    `createType="${fields.createType}"`,
    fields.parent === "" ? "" : `parentFileNameHint="${fields.parent}"`,
    "# Extent description",
    ...fields.extents,
    "",
    "# The Disk Data Base",
    "#DDB",
    "",
    `ddb.virtualHWVersion = "${fields.hardwareVersion}"`,
    `ddb.geometry.cylinders = "${cylinders}"`,
    `ddb.geometry.heads = "${heads}"`,
    `ddb.geometry.sectors = "63"`,
    `ddb.adapterType = "${fields.adapterType}"`,
    `ddb.toolsVersion = "${fields.toolsVersion}"`,
    "",
  ];
  return new TextEncoder().encode(lines.join("\n"));
}

/** Whether a descriptor fits into the header of a sparse file. */
export function fitsEmbedded(descriptor: Uint8Array): boolean {
  return descriptor.length < DESCRIPTOR_AREA;
}
