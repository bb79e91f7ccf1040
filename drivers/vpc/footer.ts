/**
 * The footer, which dynamic images have at both ends (sections 1 and 2 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import {
  readU16BE,
  readU32BE,
  readU64BE,
  readU8,
  writeU16BE,
  writeU32BE,
  writeU64BE,
} from "../../lib/bytes/endian.ts";
import { checksum, FOOTER_SIZE, MAX_SECTORS, SECTOR } from "./_layout.ts";
import { type Geometry, LARGEST, sectorsOf } from "./geometry.ts";
import { FOOTER_COOKIE, isFooter } from "./probe.ts";

/** The types of images. */
export const DiskType = { fixed: 2, dynamic: 3, differencing: 4 } as const;

/** The runtime option that says what the size of a disk is taken from. */
export const SIZE_RULE = "force_size_calc";

/** A creator application. Only those whose disks are as long as their geometry are looked for. */
export type Creator = "qemu" | "qem2";

/** Those creators: for all others the current size counts. */
const BY_GEOMETRY = ["vpc ", "qemu"];

/** Seconds from 1970 to 2000, when the time of footers began. */
const EPOCH = 946684800;

const AT = {
  features: 8,
  version: 12,
  dataOffset: 16,
  time: 24,
  creator: 28,
  creatorVersion: 32,
  creatorSystem: 36,
  originalSize: 40,
  currentSize: 48,
  cylinders: 56,
  heads: 58,
  sectors: 59,
  type: 60,
  checksum: 64,
  id: 68,
} as const;

const ID_SIZE = 16;

/** A footer as it was found. */
export interface Footer {
  /** All of it. */
  readonly bytes: Uint8Array;
  /** It stands in front of the file, as those of dynamic images do. */
  readonly isLeading: boolean;
  /** Where the dynamic header begins, bytes. */
  readonly dataOffset: bigint;
  /** One of `DiskType`, if the image is sound. */
  readonly type: number;
  /** Four bytes, as characters. */
  readonly creator: string;
  /** Bytes of the disk. */
  readonly currentSize: bigint;
  /** Cylinders, heads, sectors. */
  readonly geometry: Geometry;
}

/**
 * Finds the footer of an image: in front of the file, or, of a fixed image, at the end. There it may lack
 * its last byte, which old versions of Virtual PC did not write.
 *
 * @throws {ImageError} for the checks of section 2, in their order.
 */
export async function readFooter(file: BlockNode): Promise<Footer> {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: file.filename, field });
  const bytes = new Uint8Array(FOOTER_SIZE);
  await readPadded(file, 0, bytes);
  const isLeading = isFooter(bytes);
  if (!isLeading) {
    const { length } = file;
    if (length < FOOTER_SIZE) throw refuse("File too small for a VHD header", "footer");
    await readPadded(file, length - FOOTER_SIZE, bytes);
    if (!isFooter(bytes) || readU32BE(bytes, AT.type) !== DiskType.fixed) {
      throw refuse("invalid VPC image", "footer");
    }
  }
  if (readU32BE(bytes, AT.checksum) !== checksum(bytes, AT.checksum)) {
    throw refuse("Incorrect header checksum", "footer checksum");
  }
  identities.set(file, bytes.slice(AT.id, AT.id + ID_SIZE));
  return {
    bytes,
    isLeading,
    dataOffset: readU64BE(bytes, AT.dataOffset),
    type: readU32BE(bytes, AT.type),
    creator: String.fromCharCode(...bytes.subarray(AT.creator, AT.creator + 4)),
    currentSize: readU64BE(bytes, AT.currentSize),
    geometry: {
      cylinders: readU16BE(bytes, AT.cylinders),
      heads: readU8(bytes, AT.heads),
      sectors: readU8(bytes, AT.sectors),
    },
  };
}

/** What tells images from others, by the open files that hold them. */
const identities = new WeakMap<BlockNode, Uint8Array>();

/** What tells an image from others: its UUID. `undefined` for a file in which no footer was found. */
export function identityOf(file: BlockNode): Uint8Array | undefined {
  return identities.get(file);
}

/** How the size of a disk is found: as its creator does, or as somebody says. */
export type SizeRule = "creator" | "chs" | "current_size";

/**
 * Reads the runtime option.
 *
 * @throws {ImageError} `Invalid size calculation mode: '…'`
 */
export function sizeRule(options: OptionSet): SizeRule {
  const text = options.string(SIZE_RULE);
  if (text === undefined) return "creator";
  if (text === "chs" || text === "current_size") return text;
  throw new ImageError(`Invalid size calculation mode: '${text}'`, {
    errno: "EINVAL",
    field: SIZE_RULE,
  });
}

/**
 * Bytes of the disk, whole sectors.
 *
 * @throws {ImageError} `EFBIG` above 2040 GiB.
 */
export function diskLength({ creator, currentSize, geometry }: Footer, rule: SizeRule): number {
  const byGeometry = rule === "creator" ? BY_GEOMETRY.includes(creator) : rule === "chs";
  const inGeometry = sectorsOf(geometry);
  // The largest geometry is that of all disks that are larger.
  const sectors = byGeometry && inGeometry !== sectorsOf(LARGEST)
    ? BigInt(inGeometry)
    : currentSize / BigInt(SECTOR);
  if (sectors > MAX_SECTORS) throw ImageError.fromErrno("EFBIG", { field: "current size" });
  return Number(sectors) * SECTOR;
}

/** What a new image's footer says. */
export interface NewFooter {
  /** Bytes of the disk. */
  readonly length: number;
  /** Cylinders, heads, sectors. */
  readonly geometry: Geometry;
  /** Who made it, which says how to read it. */
  readonly creator: Creator;
  /** Where the dynamic header begins, bytes; a fixed image has none. */
  readonly dataOffset: number | undefined;
  /** Milliseconds since 1970. */
  readonly date: number;
}

/** The footer of a new image, with an id drawn by lot. */
export function newFooter(
  { length, geometry, creator, dataOffset, date }: NewFooter,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FOOTER_SIZE);
  const text = (at: number, value: string) =>
    new TextEncoder().encodeInto(value, bytes.subarray(at));
  text(0, FOOTER_COOKIE);
  writeU32BE(bytes, AT.features, 2);
  writeU32BE(bytes, AT.version, 0x00010000);
  writeU64BE(bytes, AT.dataOffset, dataOffset ?? 0xffffffffffffffffn);
  writeU32BE(bytes, AT.time, Math.floor(date / 1000) - EPOCH);
  text(AT.creator, creator);
  writeU32BE(bytes, AT.creatorVersion, 0x00050003);
  text(AT.creatorSystem, "Wi2k");
  writeU64BE(bytes, AT.originalSize, length);
  writeU64BE(bytes, AT.currentSize, length);
  writeU16BE(bytes, AT.cylinders, geometry.cylinders);
  bytes.set([geometry.heads, geometry.sectors], AT.heads);
  writeU32BE(bytes, AT.type, dataOffset === undefined ? DiskType.fixed : DiskType.dynamic);
  const id = crypto.randomUUID().replaceAll("-", "");
  for (let i = 0; i < ID_SIZE; i++) bytes[AT.id + i] = parseInt(id.slice(2 * i, 2 * i + 2), 16);
  writeU32BE(bytes, AT.checksum, checksum(bytes, AT.checksum));
  return bytes;
}
