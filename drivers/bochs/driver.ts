/**
 * Bochs' redolog of type "Growing", versions 1 and 2, for reading.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import { requireRange } from "../../lib/block/range.ts";
import { ReadOnlyNode, requireReadOnly } from "../../lib/block/read_only_node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32LE, readU64LE } from "../../lib/bytes/endian.ts";
import { isBochs } from "./probe.ts";

const SECTOR = 512;
const MAX_ENTRIES = 0x100000;
const MAX_EXTENT = 0x800000;
/** An extent that was never written. */
const UNWRITTEN = 0xffffffff;

/** The driver. */
export const bochs: FormatDriver = {
  name: "bochs",
  transparent: false,
  openOptions: [],
  open: (file, _options, context) => BochsNode.open(file, context),
};

/** What a header says (section 1 of the format's reference). */
interface Layout {
  /** Bytes of the disk. */
  readonly length: number;
  /** Bytes of the disk that an extent holds. */
  readonly extentSize: number;
  /** Bytes that an extent takes in the file: its bitmap, and room for all its sectors. */
  readonly stride: number;
  /** Of these the bitmap's. */
  readonly bitmapSize: number;
  /** Where extent 0 begins in the file. */
  readonly dataOffset: number;
  /** For each part of the disk the number of the extent that holds it. */
  readonly catalog: Uint32Array;
}

class BochsNode extends ReadOnlyNode {
  readonly driver = "bochs";
  readonly length: number;
  readonly #layout: Layout;

  private constructor(file: BlockNode, context: DriverContext, layout: Layout) {
    super(file, context);
    this.length = layout.length;
    this.#layout = layout;
  }

  /** @throws {ImageError} for the checks of section 2, in its order. */
  static async open(file: BlockNode, context: DriverContext): Promise<BochsNode> {
    requireReadOnly(context);
    return new BochsNode(file, context, await readLayout(file, context));
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    const { extentSize } = this.#layout;
    for (let at = 0; at < into.length;) {
      const index = Math.floor((offset + at) / extentSize);
      const skip = (offset + at) % extentSize;
      const length = Math.min(extentSize - skip, into.length - at);
      await this.#readExtent(index, skip, into.subarray(at, at + length));
      at += length;
    }
  }

  /** All is data, somewhere: that is what the reference knows. */
  extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    return Promise.resolve({ length, state: "data", compressed: false });
  }

  async #readExtent(index: number, skip: number, into: Uint8Array): Promise<void> {
    const { catalog, dataOffset, stride, bitmapSize } = this.#layout;
    const number = catalog[index]!;
    if (number === UNWRITTEN) {
      into.fill(0);
      return;
    }
    const position = dataOffset + stride * number;
    const first = Math.floor(skip / SECTOR);
    const end = Math.ceil((skip + into.length) / SECTOR);
    const firstByte = first >> 3;
    const bitmap = new Uint8Array((end - 1 >> 3) - firstByte + 1);
    await readPadded(this.file, position + firstByte, bitmap);
    const isWritten = (sector: number) =>
      (bitmap[(sector >> 3) - firstByte]! >> (sector & 7) & 1) === 1;
    for (let sector = first; sector < end;) {
      const written = isWritten(sector);
      const from = Math.max(sector * SECTOR - skip, 0);
      while (sector < end && isWritten(sector) === written) sector++;
      const part = into.subarray(from, sector * SECTOR - skip);
      if (written) await readPadded(this.file, position + bitmapSize + skip + from, part);
      else part.fill(0);
    }
  }
}

async function readLayout(file: BlockNode, context: DriverContext): Promise<Layout> {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: context.filename, field });
  const header = new Uint8Array(SECTOR);
  await readPadded(file, 0, header);
  if (!isBochs(header)) throw refuse("Image not in Bochs format", "magic");
  const version = readU32LE(header, 64);
  const catalogOffset = readU32LE(header, 68);
  const entries = readU32LE(header, 72);
  const bitmap = readU32LE(header, 76);
  const extentSize = readU32LE(header, 80);
  const sectors = readU64LE(header, version === 0x10000 ? 84 : 88) / BigInt(SECTOR);
  if (entries > MAX_ENTRIES) throw refuse("Catalog size is too large", "catalog");
  if (extentSize < SECTOR) throw refuse("Extent size must be at least 512", "extent");
  if ((extentSize & extentSize - 1) !== 0) {
    throw refuse(`Extent size ${extentSize} is not a power of two`, "extent");
  }
  if (extentSize > MAX_EXTENT) throw refuse(`Extent size ${extentSize} is too large`, "extent");
  const perExtent = BigInt(extentSize / SECTOR);
  if (BigInt(entries) < (sectors + perExtent - 1n) / perExtent) {
    throw refuse("Catalog size is too small for this disk size", "catalog");
  }
  const bytes = new Uint8Array(entries * 4);
  await readPadded(file, catalogOffset, bytes);
  // In the 32 bits of the reference nothing less one is a lot, which lies behind every file's end.
  const bitmapSize = (1 + Math.floor((bitmap - 1 >>> 0) / SECTOR)) * SECTOR;
  return {
    length: Number(sectors) * SECTOR,
    extentSize,
    stride: bitmapSize + extentSize,
    bitmapSize,
    dataOffset: catalogOffset + entries * 4,
    catalog: Uint32Array.from({ length: entries }, (_, index) => readU32LE(bytes, index * 4)),
  };
}
