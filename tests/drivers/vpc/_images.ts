/** VHD images in memory: some made by the driver, others by hand, from the specification and nothing of the driver. */
import { vpc } from "../../../drivers/vpc/driver.ts";
import type { DriverContext } from "../../../lib/block/driver.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context as plainContext } from "../qcow2/_image.ts";

const SECTOR = 512;
const NAME = "test.vhd";

/** Types of images. */
export const [FIXED, DYNAMIC, DIFFERENCING] = [2, 3, 4];

/** A context for an image of this format. */
export function context(mode: Partial<OpenMode> = {}, untrusted = false): DriverContext {
  return { ...plainContext(mode, { untrusted }), filename: NAME };
}

/** Makes an image through the driver. */
export async function create(options: Readonly<Record<string, string>>): Promise<MemoryNode> {
  const file = new MemoryNode({ filename: NAME });
  await vpc.create!({
    filename: NAME,
    options: new OptionSet(vpc.createOptions!, Object.entries(options)),
    createBase: () => Promise.resolve(file),
    context: context({ writable: true }),
  });
  return file.copy();
}

/** Opens an image through the driver. Disposing of the node closes `file`. */
export function open(
  file: BlockNode,
  mode: Partial<OpenMode> = {},
  { parent, untrusted = false }: {
    readonly parent?: BlockNode | undefined;
    readonly untrusted?: boolean;
  } = {},
): Promise<BlockNode> {
  const opened = vpc.open(file, new OptionSet(vpc.openOptions), context(mode, untrusted));
  return opened.then((node) => {
    if (parent !== undefined) node.backing!.attach(parent);
    return node;
  });
}

/** The checksum of a footer or header. */
function checksumOf(bytes: Uint8Array, at: number): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) if (i < at || i >= at + 4) sum += bytes[i]!;
  return (2 ** 32 - 1 - sum) >>> 0;
}

/** Changes all footers of an image, and makes their checksums right. */
export function patchFooters(bytes: Uint8Array, change: (footer: Uint8Array) => void): void {
  const cookie = "conectix";
  for (let at = 0; at + SECTOR <= bytes.length; at += SECTOR) {
    const footer = bytes.subarray(at, at + SECTOR);
    if (String.fromCharCode(...footer.subarray(0, 8)) !== cookie) continue;
    change(footer);
    const view = new DataView(footer.buffer, footer.byteOffset, footer.length);
    view.setUint32(64, checksumOf(footer, 64));
  }
}

/** A text as a parent locator of a platform has it. */
export function utf16(text: string, littleEndian = true): Uint8Array {
  const bytes = new Uint8Array(text.length * 2);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < text.length; i++) view.setUint16(2 * i, text.charCodeAt(i), littleEndian);
  return bytes;
}

/** A block that is there. */
export interface HandMadeBlock {
  /** The sectors whose bits are set. */
  readonly sectors: readonly number[];
  /** What these are filled with; all others hold 0xee. */
  readonly fill: number;
}

/** An image to be made by hand. All in bytes, except where it counts. */
export interface HandMade {
  readonly type: number;
  /** Bytes of the disk. */
  readonly length: number;
  /** A byte of which the UUID consists. */
  readonly id?: number;
  readonly blockSize?: number;
  /** By their numbers; they lie in the file in this order. */
  readonly blocks?: ReadonlyMap<number, HandMadeBlock>;
  readonly parent?: {
    readonly id: number;
    readonly name?: string;
    readonly locators?: readonly (readonly [platform: string, path: Uint8Array])[];
  };
  /** The dynamic header lies behind the blocks instead of in front. */
  readonly headerLast?: boolean;
}

function footerOf({ type, length, id = 1 }: HandMade, dataOffset: number): Uint8Array {
  const bytes = new Uint8Array(SECTOR);
  const view = new DataView(bytes.buffer);
  const ascii = (at: number, text: string) =>
    new TextEncoder().encodeInto(text, bytes.subarray(at));
  ascii(0, "conectix");
  view.setUint32(8, 2);
  view.setUint32(12, 0x10000);
  view.setBigUint64(16, type === FIXED ? 2n ** 64n - 1n : BigInt(dataOffset));
  ascii(28, "win ");
  ascii(36, "Wi2k");
  view.setBigUint64(40, BigInt(length));
  view.setBigUint64(48, BigInt(length));
  view.setUint32(60, type);
  bytes.fill(id, 68, 84);
  view.setUint32(64, checksumOf(bytes, 64));
  return bytes;
}

/** Makes an image by hand; a fixed one is filled with its id. */
export function handMade(image: HandMade): Uint8Array<ArrayBuffer> {
  const { type, length, blockSize = 4096, blocks = new Map(), parent, id = 1 } = image;
  if (type === FIXED) {
    const bytes = new Uint8Array(length + SECTOR).fill(id, 0, length);
    bytes.set(footerOf(image, 0), length);
    return bytes;
  }
  const up = (value: number) => Math.ceil(value / SECTOR) * SECTOR;
  const entries = Math.ceil(length / blockSize);
  const tableAt = 1536;
  const locators = parent?.locators ?? [];
  const bitmapSize = up(blockSize / SECTOR / 8);
  const firstLocator = up(tableAt + entries * 4);
  const locatorsAt = locators.map((_, i) =>
    locators.slice(0, i).reduce((at, [, path]) => at + up(path.length), firstLocator)
  );
  const blocksAt = locators.reduce((at, [, path]) => at + up(path.length), firstLocator);
  const blocksEnd = blocksAt + blocks.size * (bitmapSize + blockSize);
  const headerAt = image.headerLast ? blocksEnd : SECTOR;
  const end = image.headerLast ? blocksEnd + 1024 : blocksEnd;
  const bytes = new Uint8Array(end + SECTOR);
  const view = new DataView(bytes.buffer);

  bytes.fill(0xff, tableAt, up(tableAt + entries * 4));
  let at = blocksAt;
  for (const [index, { sectors, fill }] of blocks) {
    view.setUint32(tableAt + index * 4, at / SECTOR);
    bytes.fill(0xee, at + bitmapSize, at + bitmapSize + blockSize);
    for (const sector of sectors) {
      bytes[at + (sector >> 3)]! |= 0x80 >> (sector & 7);
      const start = at + bitmapSize + sector * SECTOR;
      bytes.fill(fill, start, start + SECTOR);
    }
    at += bitmapSize + blockSize;
  }

  const header = new Uint8Array(bytes.buffer, headerAt, 1024);
  const fields = new DataView(bytes.buffer, headerAt, 1024);
  new TextEncoder().encodeInto("cxsparse", header);
  fields.setBigUint64(8, 2n ** 64n - 1n);
  fields.setBigUint64(16, BigInt(tableAt));
  fields.setUint32(24, 0x10000);
  fields.setUint32(28, entries);
  fields.setUint32(32, blockSize);
  if (parent !== undefined) {
    header.fill(parent.id, 40, 56);
    header.set(utf16(parent.name ?? "", false), 64);
    locators.forEach(([platform, path], i) => {
      const locator = 576 + i * 24;
      new TextEncoder().encodeInto(platform, header.subarray(locator));
      fields.setUint32(locator + 4, up(path.length));
      fields.setUint32(locator + 8, path.length);
      fields.setBigUint64(locator + 16, BigInt(locatorsAt[i]!));
      bytes.set(path, locatorsAt[i]!);
    });
  }
  fields.setUint32(36, checksumOf(header, 36));
  const footer = footerOf(image, headerAt);
  bytes.set(footer, 0);
  bytes.set(footer, end);
  return bytes;
}

/** The first byte of each sector of a disk, which has to consist of it. */
export async function sectorsOf(node: BlockNode): Promise<number[]> {
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return Array.from({ length: node.length / SECTOR }, (_, i) => {
    const sector = bytes.subarray(i * SECTOR, (i + 1) * SECTOR);
    return sector.every((byte) => byte === sector[0]) ? sector[0]! : NaN;
  });
}
