/**
 * The header: 64 bytes, which the table follows (sections 1 and 2 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { readU32LE, readU64LE, writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";
import { MAGIC, MAGIC_LENGTH, magicOf, VERSION } from "./probe.ts";

/** Unit of most fields, bytes. */
export const SECTOR = 512;

/** Bytes of a header. */
export const HEADER_SIZE = 64;

/** Where fields are, bytes. */
const AT = {
  version: 16,
  heads: 20,
  cylinders: 24,
  tracks: 28,
  entries: 32,
  sectors: 36,
  inUse: 44,
  dataOffset: 48,
  extension: 56,
} as const;

/** What is in the field of that name while the image is open for writing. */
const IN_USE = 0x746f6e59;

const MAX_TRACKS = 4186127;
const MAX_ENTRIES = 536870911;
const MAX_EXTENSION = 2n ** 54n - 2n;
const MAX_LENGTH = BigInt(Number.MAX_SAFE_INTEGER);
/** The longest disk that the reference knows of, bytes. */
const LENGTH_LIMIT = 2n ** 63n - 2n ** 30n;
/** Bytes of the table that an image may have that nobody vouches for. */
const MAX_TABLE_UNTRUSTED = 16 << 20;

/** The header of an open image. */
export class ParallelsHeader {
  /** As it is in the file, or will be. */
  readonly bytes: Uint8Array;
  /** Bytes of the disk, whole sectors. */
  readonly length: number;
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  /** Entries of the table. */
  readonly entries: number;
  /** Entries of the table count in this, bytes. */
  readonly entryUnit: number;
  /** Where data may begin at the earliest, bytes: behind the table. */
  readonly leastDataStart: number;
  readonly #isExtended: boolean;

  /**
   * The header with these 64 bytes, which it keeps.
   *
   * @throws {ImageError} for the checks of section 1, in their order.
   */
  constructor(
    bytes: Uint8Array,
    { filename, untrusted }: Pick<DriverContext, "filename" | "untrusted">,
  ) {
    const refuse = (message: string, field: string, errno: "EINVAL" | "EFBIG" = "EINVAL") =>
      new ImageError(message, { errno, file: filename, field });
    const magic = magicOf(bytes);
    if (magic === undefined || readU32LE(bytes, AT.version) !== VERSION) {
      throw refuse("Image not in Parallels format", "magic");
    }
    const tracks = readU32LE(bytes, AT.tracks);
    if (tracks === 0) throw refuse("Invalid image: Zero sectors per track", "tracks");
    if (tracks > MAX_TRACKS) throw refuse("Invalid image: Too big cluster", "tracks", "EFBIG");
    const entries = readU32LE(bytes, AT.entries);
    if (entries > MAX_ENTRIES) throw refuse("Catalog too large", "BAT entries", "EFBIG");
    if (readU64LE(bytes, AT.extension) > MAX_EXTENSION) {
      throw refuse("Invalid image: Too big offset", "extension offset", "EFBIG");
    }
    if (untrusted && entries * 4 > MAX_TABLE_UNTRUSTED) {
      throw refuse(`Table of ${entries} entries in an untrusted image`, "BAT entries", "EFBIG");
    }
    const isExtended = magic === "extended";
    const length = isExtended
      ? readU64LE(bytes, AT.sectors) * BigInt(SECTOR)
      : BigInt(readU32LE(bytes, AT.sectors) * SECTOR);
    if (length > LENGTH_LIMIT) {
      throw refuse("Could not refresh total sector count: File too large", "size", "EFBIG");
    }
    if (length > MAX_LENGTH) {
      throw refuse(
        `Image size ${length} exceeds the supported maximum of ${MAX_LENGTH} bytes`,
        "size",
        "EFBIG",
      );
    }
    this.bytes = bytes;
    this.length = Number(length);
    this.clusterSize = tracks * SECTOR;
    this.entries = entries;
    this.#isExtended = isExtended;
    this.entryUnit = isExtended ? this.clusterSize : SECTOR;
    this.leastDataStart = alignUp(tableEnd(entries), isExtended ? this.clusterSize : SECTOR);
  }

  /** Somebody has, or had, the image open for writing. */
  get inUse(): boolean {
    return readU32LE(this.bytes, AT.inUse) === IN_USE;
  }

  set inUse(inUse: boolean) {
    writeU32LE(this.bytes, AT.inUse, inUse ? IN_USE : 0);
  }

  /** Where the format extension begins, bytes; 0 if there is none. */
  get extension(): number {
    return Number(readU64LE(this.bytes, AT.extension)) * SECTOR;
  }

  /** Forgets the format extension. */
  dropExtension(): void {
    writeU64LE(this.bytes, AT.extension, 0);
  }

  /**
   * Where data begin in a file of `fileLength` bytes, `undefined` if the header says something that
   * cannot be. The older images need not say anything.
   */
  dataStart(fileLength: number): number | undefined {
    const stored = readU32LE(this.bytes, AT.dataOffset) * SECTOR;
    if (stored === 0 && !this.#isExtended) return this.leastDataStart;
    return stored >= this.leastDataStart && stored <= fileLength ? stored : undefined;
  }

  /** Corrects where data begin. */
  repairDataStart(): void {
    writeU32LE(this.bytes, AT.dataOffset, this.leastDataStart / SECTOR);
  }
}

/** Reads the header of the image in `file`. */
export async function readHeader(
  file: BlockNode,
  context: DriverContext,
): Promise<ParallelsHeader> {
  const bytes = new Uint8Array(HEADER_SIZE);
  await readPadded(file, 0, bytes);
  return new ParallelsHeader(bytes, context);
}

/** Where the table ends, bytes. */
export function tableEnd(entries: number): number {
  return HEADER_SIZE + 4 * entries;
}

/** The first sector of a new image. All in bytes; `length` and `clusterSize` are whole sectors. */
export function newHeader(
  length: number,
  clusterSize: number,
  entries: number,
  dataStart: number,
): Uint8Array {
  const bytes = new Uint8Array(SECTOR);
  new TextEncoder().encodeInto(MAGIC.extended, bytes);
  const put = (at: number, value: number) => writeU32LE(bytes, at, value);
  const sectors = length / SECTOR;
  put(MAGIC_LENGTH, VERSION);
  put(AT.heads, HEADS);
  put(AT.cylinders, Math.floor(sectors / HEADS / SECTORS_PER_TRACK));
  put(AT.tracks, clusterSize / SECTOR);
  put(AT.entries, entries);
  writeU64LE(bytes, AT.sectors, sectors);
  put(AT.dataOffset, dataStart / SECTOR);
  return bytes;
}

/** The geometry that the guest of a new image would have seen. */
const [HEADS, SECTORS_PER_TRACK] = [16, 32];
