/**
 * Where guest bytes are.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { Extent } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { BlockState } from "./_layout.ts";
import type { VhdxImage } from "./image.ts";

/** Bytes of a sector bitmap that are looked at in one go: 64 MiB of a disk with sectors of 512 bytes. */
const BITMAP_STEP = 16384;

/** Blocks that are looked at in one go. */
const MOST_BLOCKS = 65536;

/** A run of guest bytes. */
export interface Run {
  /** Bytes, from where it was asked for. */
  readonly length: number;
  /** Where they are in the file, bytes; `zero`: nowhere, they are zeros; `parent`: there. */
  readonly place: number | "zero" | "parent";
}

/**
 * The first run with one state at `offset` of the disk, `most` bytes at most.
 *
 * @throws {ImageError} `EIO` for a block with a state that is none, or one of a differencing image in
 * another one.
 */
export async function runAt(image: VhdxImage, offset: number, most: number): Promise<Run> {
  const { metadata: { blockSize } } = image;
  let block = Math.floor(offset / blockSize);
  const skip = offset % blockSize;
  const first = await blockPlace(image, block);
  if (first === "partial") return await partialRun(image, block, skip, most);
  let length = blockSize - skip;
  for (let left = MOST_BLOCKS; length < most && left > 0; left--) {
    const next = await blockPlace(image, ++block).catch(() => undefined);
    const goesOn = typeof first === "number" ? next === first + skip + length : next === first;
    if (!goesOn) break;
    length += blockSize;
  }
  return {
    length: Math.min(length, most),
    place: typeof first === "number" ? first + skip : first,
  };
}

/** Where a block is, or what it reads as; `partial` for one that is only partly here. */
async function blockPlace(
  { table, metadata, file }: VhdxImage,
  block: number,
): Promise<Run["place"] | "partial"> {
  const { state, offset } = await table.entry(block);
  const hasParent = metadata.parent !== undefined;
  switch (state) {
    case BlockState.fullyPresent:
      return offset;
    case BlockState.notPresent:
      return hasParent ? "parent" : "zero";
    case BlockState.undefined:
    case BlockState.zero:
    case BlockState.unmapped:
    case BlockState.unmappedDraft:
      return "zero";
    case BlockState.partiallyPresent:
      if (hasParent) return "partial";
  }
  throw ImageError.fromErrno("EIO", {
    file: file.filename,
    field: `block allocation table: state ${state}`,
  });
}

/** A run within a block of which a bitmap says which sectors are here, and which are in the parent. */
async function partialRun(
  image: VhdxImage,
  block: number,
  skip: number,
  most: number,
): Promise<Run> {
  const { table, file, metadata: { blockSize, sectorSize, chunkRatio } } = image;
  const { offset } = await table.entry(block);
  const bitmap = await table.bitmapEntry(block);
  if (bitmap.state !== BlockState.fullyPresent) {
    throw ImageError.fromErrno("EIO", {
      file: file.filename,
      field: `sector bitmap of block ${block}`,
    });
  }
  // Sectors are counted from the begin of the chunk, and so from the begin of the bitmap.
  const start = (block % chunkRatio) * (blockSize / sectorSize);
  const first = start + Math.floor(skip / sectorSize);
  const end = start + Math.ceil(Math.min(skip + most, blockSize) / sectorSize);
  const firstByte = first >> 3;
  const bytes = new Uint8Array(Math.min((end - 1 >> 3) - firstByte + 1, BITMAP_STEP));
  await readPadded(file, bitmap.offset + firstByte, bytes);
  const isHere = (sector: number) => (bytes[(sector >> 3) - firstByte]! >> (sector & 7) & 1) === 1;
  const here = isHere(first);
  const last = Math.min(end, (firstByte + bytes.length) * 8);
  let sector = first + 1;
  while (sector < last && isHere(sector) === here) sector++;
  return {
    length: Math.min((sector - start) * sectorSize - skip, most),
    place: here ? offset + skip : "parent",
  };
}

/** The same as an extent. */
export async function extentAt(image: VhdxImage, offset: number, most: number): Promise<Extent> {
  const { length, place } = await runAt(image, offset, most);
  const extent = { length, compressed: false } as const;
  if (place === "parent") return { ...extent, state: "unallocated" };
  if (place === "zero") return { ...extent, state: "zero" };
  return { ...extent, state: "data", file: image.file, offset: place };
}
