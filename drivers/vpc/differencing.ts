/**
 * Differencing images, for reading: blocks whose sector bitmaps say what is stored, in front of a parent.
 *
 * @module
 */
import type { ImageDetails } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent, NodeLimits } from "../../lib/block/node.ts";
import { requireRange } from "../../lib/block/range.ts";
import { ReadOnlyNode } from "../../lib/block/read_only_node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { SECTOR } from "./_layout.ts";
import type { BlockImage } from "./dynamic.ts";
import { ParentLink, parentPaths } from "./parent.ts";

/** Bytes of sector bitmaps that are kept in memory; one of them is in any case. */
const MAX_BITMAPS = 1 << 20;

/** A run of sectors that are all stored, or all the parent's. */
interface Run {
  /** Bytes. */
  readonly length: number;
  /** Where it is in the file, `undefined`: in the parent. */
  readonly position: number | undefined;
}

/**
 * Opens the differencing image in `file`; the caller attaches its parent.
 *
 * @throws {ImageError} if it is to be written, or does not name its parent.
 */
export async function openDifferencing(
  file: BlockNode,
  context: DriverContext,
  image: BlockImage,
): Promise<BlockNode> {
  if (context.mode.writable) {
    throw new ImageError("Differencing VHD images can only be read", {
      errno: "EACCES",
      file: context.filename,
    });
  }
  const { header } = image;
  const paths = await parentPaths(file, header);
  return new DifferencingNode(file, context, image, new ParentLink(file, context, header, paths));
}

class DifferencingNode extends ReadOnlyNode {
  readonly driver = "vpc";
  readonly length: number;
  override readonly limits: NodeLimits;
  readonly backing: ParentLink;
  readonly #image: BlockImage;
  /** Sector bitmaps by the numbers of their blocks, the last used one last. */
  readonly #bitmaps = new Map<number, Uint8Array>();

  constructor(
    file: BlockNode,
    context: DriverContext,
    image: BlockImage,
    parent: ParentLink,
  ) {
    super(file, context);
    this.#image = image;
    this.length = image.length;
    this.limits = {
      requestAlignment: 1,
      clusterSize: image.header.blockSize,
      zeroAlignment: 0,
    };
    this.backing = parent;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    for (let done = 0; done < into.length;) {
      const { length, position } = await this.#run(offset + done, into.length - done);
      const part = into.subarray(done, done + length);
      if (position === undefined) await this.#readBehind(offset + done, part);
      else await readPadded(this.file, position, part);
      done += length;
    }
  }

  async extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    const { length: run, position } = await this.#run(offset, length);
    if (position === undefined) return { length: run, state: "unallocated", compressed: false };
    return { length: run, state: "data", compressed: false, file: this.file, offset: position };
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve({ clusterSize: this.limits.clusterSize, dirty: false });
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.backing.node?.[Symbol.asyncDispose]();
    } finally {
      await super[Symbol.asyncDispose]();
    }
  }

  async #readBehind(offset: number, into: Uint8Array): Promise<void> {
    const { node } = this.backing;
    const available = node === null ? 0 : Math.min(Math.max(node.length - offset, 0), into.length);
    if (available > 0) await node!.read(offset, into.subarray(0, available));
    into.fill(0, available);
  }

  async #run(offset: number, most: number): Promise<Run> {
    const { header: { blockSize, bitmapSize }, table } = this.#image;
    const index = Math.floor(offset / blockSize);
    const skip = offset % blockSize;
    const start = table.position(index);
    let length = blockSize - skip;
    if (start === undefined) {
      for (let next = index + 1; length < most; next++) {
        if (table.position(next) !== undefined) break;
        length += blockSize;
      }
      return { length: Math.min(length, most), position: undefined };
    }
    const bitmap = await this.#bitmap(index, start);
    const first = Math.floor(skip / SECTOR);
    const isStored = isSet(bitmap, first);
    const end = Math.ceil(Math.min(blockSize, skip + most) / SECTOR);
    let sector = first + 1;
    while (sector < end && isSet(bitmap, sector) === isStored) sector++;
    length = Math.min(sector * SECTOR - skip, most);
    return { length, position: isStored ? start + bitmapSize + skip : undefined };
  }

  async #bitmap(index: number, position: number): Promise<Uint8Array> {
    const { bitmapSize } = this.#image.header;
    let bitmap = this.#bitmaps.get(index);
    if (bitmap === undefined) {
      bitmap = new Uint8Array(bitmapSize);
      await readPadded(this.file, position, bitmap);
    }
    this.#bitmaps.delete(index);
    this.#bitmaps.set(index, bitmap);
    if (this.#bitmaps.size > Math.max(1, MAX_BITMAPS / bitmapSize)) {
      this.#bitmaps.delete(this.#bitmaps.keys().next().value!);
    }
    return bitmap;
  }
}

/** Sectors are counted from the most significant bit of the first byte. */
function isSet(bitmap: Uint8Array, sector: number): boolean {
  return (bitmap[sector >> 3]! & 0x80 >> (sector & 7)) !== 0;
}
