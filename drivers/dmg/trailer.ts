/**
 * The block at the end of an image that tells where all else is (section 1 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { readU64BE } from "../../lib/bytes/endian.ts";

const SECTOR = 512;
/** "koly". */
const MAGIC = [0x6b, 0x6f, 0x6c, 0x79] as const;
/** How far in front of the last sector's end the trailer may begin, bytes. */
const REACH = 1023;
/** Bytes in which it has to begin. */
const WINDOW = 515;

/** A run of bytes of the file. */
export interface FileRange {
  /** First byte. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** What the trailer says. All in bytes. */
export interface Trailer {
  /** The disk, perhaps longer than any may be. */
  readonly length: bigint;
  /** Where the chunks' offsets are counted from. */
  readonly dataOffset: number;
  /** Where the tables of chunks are. */
  readonly tables: FileRange;
  /** In which form. */
  readonly layout: "resource fork" | "plist";
}

/**
 * Finds and reads the trailer of `file`.
 *
 * @throws {ImageError} `dmg file must be at least 512 bytes long`, `Could not locate UDIF trailer in dmg
 * file`, `EINVAL` for ranges that do not end before the trailer.
 */
export async function readTrailer(
  file: BlockNode,
  { filename }: DriverContext,
): Promise<Trailer> {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: filename, field });
  if (file.length === 0) throw refuse("dmg file must be at least 512 bytes long", "length");
  const position = await findTrailer(file);
  if (position === undefined) throw refuse("Could not locate UDIF trailer in dmg file", "magic");
  const bytes = new Uint8Array(SECTOR);
  await readPadded(file, position, bytes);

  const invalid = (field: string) => ImageError.fromErrno("EINVAL", { file: filename, field });
  const range = (at: number, field: string): FileRange => {
    const [offset, length] = [readU64BE(bytes, at), readU64BE(bytes, at + 8)];
    if (offset >= BigInt(position) || length > BigInt(position) - offset) throw invalid(field);
    return { offset: Number(offset), length: Number(length) };
  };
  const dataOffset = readU64BE(bytes, 0x18);
  if (dataOffset > BigInt(position)) throw invalid("data fork");
  const resources = range(0x28, "resource fork");
  const plist = range(0xd8, "plist");
  const sectors = readU64BE(bytes, 0x1ec);
  if (sectors >= 2n ** 63n) throw invalid("sector count");
  const trailer = { length: sectors * BigInt(SECTOR), dataOffset: Number(dataOffset) };
  if (resources.length > 0) return { ...trailer, tables: resources, layout: "resource fork" };
  if (plist.length > 0) return { ...trailer, tables: plist, layout: "plist" };
  throw invalid("plist");
}

/** Where the trailer begins: not always 512 bytes before the end, which may lie within a sector. */
async function findTrailer(file: BlockNode): Promise<number | undefined> {
  const start = Math.max(alignUp(file.length, SECTOR) - REACH, 0);
  const bytes = new Uint8Array(WINDOW);
  await readPadded(file, start, bytes);
  for (let at = 0; at + MAGIC.length <= bytes.length; at++) {
    if (MAGIC.every((byte, index) => bytes[at + index] === byte)) return start + at;
  }
  return undefined;
}
