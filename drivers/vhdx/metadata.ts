/**
 * The metadata region: what is known of the disk (section 1 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignDown, divideUp, isPowerOfTwo } from "../../lib/bytes/align.ts";
import {
  readU16LE,
  readU32LE,
  readU64LE,
  writeU16LE,
  writeU32LE,
  writeU64LE,
} from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import {
  CHUNK_SECTORS,
  hasSignature,
  invalid,
  MAX_BLOCK,
  MAX_ENTRIES,
  METADATA_TABLE_SIZE,
  MIN_BLOCK,
  Parameter,
  putSignature,
} from "./_layout.ts";
import { GUID_SIZE, Item, newGuid } from "./guid.ts";
import { type ParentLocator, readParentLocator } from "./parent_locator.ts";
import type { FileRange } from "./regions.ts";

const SIGNATURE = "metadata";
const [ENTRIES_AT, ENTRY_SIZE, REQUIRED] = [32, 32, 4];

/** Unit of a disk's length, whatever its own sectors are. */
const SECTOR = 512;

/** What is known of a disk. All in bytes, except where it counts. */
export interface Metadata {
  /** Bytes of the disk. */
  readonly length: number;
  /** Bytes of a block. */
  readonly blockSize: number;
  /** Bytes of a sector as the guest sees it: what a bit of a sector bitmap stands for. */
  readonly sectorSize: number;
  /** All blocks are in the file from the start. */
  readonly isFixed: boolean;
  /** Blocks between two sector bitmaps. */
  readonly chunkRatio: number;
  /** Where a differencing image's parent is. */
  readonly parent: ParentLocator | undefined;
}

/**
 * Reads the metadata region.
 *
 * @throws {ImageError} `EINVAL`, and `ENOTSUP` for an item that is missing, or is required and nobody knows it.
 */
export async function readMetadata(file: BlockNode, region: FileRange): Promise<Metadata> {
  const items = await readTable(file, region);
  const wrong = (field: string) => invalid(file, `metadata: ${field}`);
  const read = async (name: keyof typeof Item, length: number) => {
    const item = items.get(name);
    if (item === undefined) throw unsupported(file, `metadata: ${name}`);
    const bytes = new Uint8Array(length);
    await readPadded(file, item.offset, bytes);
    return bytes;
  };
  const parameters = await read("fileParameters", 8);
  const size = readU64LE(await read("virtualSize", 8), 0);
  await read("page83", GUID_SIZE);
  const sectorSize = readU32LE(await read("logicalSector", 4), 0);
  await read("physicalSector", 4);

  const blockSize = readU32LE(parameters, 0);
  const bits = readU32LE(parameters, 4);
  const hasParent = (bits & Parameter.hasParent) !== 0;
  const locator = items.get("parentLocator");
  if (hasParent && locator === undefined) throw wrong("parentLocator");
  if (blockSize < MIN_BLOCK || blockSize > MAX_BLOCK || !isPowerOfTwo(blockSize)) {
    throw wrong("block size");
  }
  if (sectorSize !== 512 && sectorSize !== 4096) {
    throw unsupported(file, "metadata: logical sector size");
  }
  if (size > Number.MAX_SAFE_INTEGER) {
    throw new ImageError("Disks of 2^53 bytes and more are not supported", {
      errno: "EFBIG",
      file: file.filename,
      field: "metadata: virtual size",
    });
  }
  return {
    length: alignDown(Number(size), SECTOR),
    blockSize,
    sectorSize,
    isFixed: (bits & Parameter.leaveBlocksAllocated) !== 0,
    chunkRatio: CHUNK_SECTORS * sectorSize / blockSize,
    // The locator alone makes no differencing image.
    parent: hasParent ? await readParentLocator(file, locator!) : undefined,
  };
}

function unsupported(file: BlockNode, field: string): ImageError {
  return ImageError.fromErrno("ENOTSUP", { file: file.filename, field });
}

async function readTable(
  file: BlockNode,
  region: FileRange,
): Promise<Map<keyof typeof Item, FileRange>> {
  const bytes = new Uint8Array(METADATA_TABLE_SIZE);
  await readPadded(file, region.offset, bytes);
  const count = readU16LE(bytes, 10);
  if (!hasSignature(bytes, SIGNATURE) || count > MAX_ENTRIES) throw invalid(file, "metadata");
  const items = new Map<keyof typeof Item, FileRange>();
  const names = Object.keys(Item) as (keyof typeof Item)[];
  for (let i = 0; i < count; i++) {
    const at = ENTRIES_AT + i * ENTRY_SIZE;
    const guid = bytes.subarray(at, at + GUID_SIZE);
    const name = names.find((name) => equalBytes(guid, Item[name]));
    if (name === undefined) {
      if ((readU32LE(bytes, at + 24) & REQUIRED) === 0) continue;
      throw unsupported(file, "metadata");
    }
    if (items.has(name)) throw invalid(file, `metadata: ${name}`);
    items.set(name, {
      offset: region.offset + readU32LE(bytes, at + 16),
      length: readU32LE(bytes, at + 20),
    });
  }
  return items;
}

/** How many entries a block allocation table needs, those of sector bitmaps included. */
export function tableEntries(
  { length, blockSize, chunkRatio, hasParent }: {
    readonly length: number;
    readonly blockSize: number;
    readonly chunkRatio: number;
    readonly hasParent: boolean;
  },
): number {
  const blocks = divideUp(length, blockSize);
  if (hasParent) return divideUp(blocks, chunkRatio) * (chunkRatio + 1);
  // In the 32 bits of the reference an empty disk has as many bitmaps as there can be, and it asks for them.
  const last = blocks === 0 ? 2 ** 32 - 1 : blocks - 1;
  return blocks + Math.floor(last / chunkRatio);
}

/** The metadata region of a new image, as far as it is not zero. */
export function newMetadata(
  { length, blockSize, isFixed }: {
    readonly length: number;
    readonly blockSize: number;
    readonly isFixed: boolean;
  },
): Uint8Array {
  const user = 0;
  const disk = 2;
  const items = [
    [Item.fileParameters, 8, user],
    [Item.virtualSize, 8, disk],
    [Item.page83, GUID_SIZE, disk],
    [Item.logicalSector, 4, disk],
    [Item.physicalSector, 4, disk],
  ] as const;
  const bytes = new Uint8Array(METADATA_TABLE_SIZE + 40);
  putSignature(bytes, SIGNATURE);
  writeU16LE(bytes, 10, items.length);
  let position = METADATA_TABLE_SIZE;
  for (const [i, [guid, size, flags]] of items.entries()) {
    const at = ENTRIES_AT + i * ENTRY_SIZE;
    bytes.set(guid, at);
    writeU32LE(bytes, at + 16, position);
    writeU32LE(bytes, at + 20, size);
    writeU32LE(bytes, at + 24, flags | REQUIRED);
    position += size;
  }
  writeU32LE(bytes, METADATA_TABLE_SIZE, blockSize);
  writeU32LE(bytes, METADATA_TABLE_SIZE + 4, isFixed ? Parameter.leaveBlocksAllocated : 0);
  writeU64LE(bytes, METADATA_TABLE_SIZE + 8, length);
  bytes.set(newGuid(), METADATA_TABLE_SIZE + 16);
  writeU32LE(bytes, METADATA_TABLE_SIZE + 32, SECTOR);
  writeU32LE(bytes, METADATA_TABLE_SIZE + 36, SECTOR);
  return bytes;
}
