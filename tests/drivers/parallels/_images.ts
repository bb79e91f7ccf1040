/** Images of Parallels' format made byte by byte, and opened without the command line. */
import { createHash } from "node:crypto";
import { parallels } from "../../../drivers/parallels/driver.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import type { MemoryNode } from "../../_memory_node.ts";
import { context, type TestContext } from "../qcow2/_image.ts";

/** Bytes of a sector. */
export const SECTOR = 512;

/** Fields of a header and what follows it; sectors unless it says otherwise. */
export interface ImageFields {
  /** 1: the table counts sectors; 2: clusters. */
  readonly version?: 1 | 2;
  /** Sectors of a cluster. */
  readonly tracks?: number;
  /** The table. */
  readonly table?: readonly number[];
  /** Length of the disk. */
  readonly sectors?: number | bigint;
  readonly inUse?: number;
  readonly dataOffset?: number;
  readonly extension?: number | bigint;
  /** Bytes of the file. */
  readonly fileLength?: number;
}

/** An image; the first byte of each of the file's clusters is the cluster's number. */
export function parallelsImage(fields: ImageFields = {}): Uint8Array<ArrayBuffer> {
  const { version = 2, tracks = 8, table = [1, 0, 2, 0], inUse = 0, extension = 0 } = fields;
  const clusterSize = tracks * SECTOR;
  const sectors = fields.sectors ?? table.length * tracks;
  const dataOffset = fields.dataOffset ?? Math.ceil((64 + table.length * 4) / clusterSize) * tracks;
  const unit = version === 2 ? clusterSize : SECTOR;
  const end = table.reduce((most, entry) => Math.max(most, entry * unit + clusterSize), 0);
  const bytes = new Uint8Array(fields.fileLength ?? Math.max(end, dataOffset * SECTOR));
  for (let at = clusterSize; at < bytes.length; at += clusterSize) bytes[at] = at / clusterSize;
  const start = new Uint8Array(64 + table.length * 4);
  const view = new DataView(start.buffer);
  new TextEncoder().encodeInto(version === 2 ? "WithouFreSpacExt" : "WithoutFreeSpace", start);
  for (
    const [at, value] of [[16, 2], [20, 16], [24, 7], [28, tracks], [32, table.length]] as const
  ) {
    view.setUint32(at, value, true);
  }
  view.setBigUint64(36, BigInt(sectors), true);
  view.setUint32(44, inUse, true);
  view.setUint32(48, dataOffset, true);
  view.setBigUint64(56, BigInt(extension), true);
  for (const [index, entry] of table.entries()) view.setUint32(64 + index * 4, entry, true);
  bytes.set(start.subarray(0, bytes.length));
  return bytes;
}

/** In-use fields: of an image that was not closed, and of one that Parallels' own software closed. */
export const [IN_USE, CLOSED_BY_PARALLELS] = [0x746f6e59, 0x312e3276];

/** A feature of the format extension. */
export interface Feature {
  readonly magic?: bigint;
  readonly flags?: bigint;
  /** Said to have so many bytes. */
  readonly size?: number;
  readonly data: Uint8Array;
}

/** What a dirty bitmap is stored as. */
export function bitmapFeature(
  { sectors, id = "e4f2eed037fe4539b50b85d2e7fd235f", granularity, table, entries }: {
    readonly sectors: number | bigint;
    /** 16 bytes, hexadecimal. */
    readonly id?: string;
    /** Sectors. */
    readonly granularity: number;
    readonly table: readonly (number | bigint)[];
    /** Said to have so many entries. */
    readonly entries?: number;
  },
): Feature {
  const data = new Uint8Array(32 + table.length * 8);
  const view = new DataView(data.buffer);
  view.setBigUint64(0, BigInt(sectors), true);
  data.set(Uint8Array.fromHex(id), 8);
  view.setUint32(24, granularity, true);
  view.setUint32(28, entries ?? table.length, true);
  for (const [i, entry] of table.entries()) view.setBigUint64(32 + i * 8, BigInt(entry), true);
  return { data };
}

/** A cluster with a format extension. */
export function extensionCluster(
  clusterSize: number,
  features: readonly Feature[],
  { magic = 0xab234cef23dcea87n, checksum }: {
    readonly magic?: bigint;
    readonly checksum?: Uint8Array;
  } = {},
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(clusterSize);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, magic, true);
  let at = 24;
  for (const { magic = 0x20385fae252cb34an, flags = 0n, size, data } of features) {
    view.setBigUint64(at, magic, true);
    view.setBigUint64(at + 8, flags, true);
    view.setUint32(at + 16, size ?? data.length, true);
    bytes.set(data, at + 24);
    at += 24 + Math.ceil(data.length / 8) * 8;
  }
  bytes.set(checksum ?? createHash("md5").update(bytes.subarray(24)).digest(), 8);
  return bytes;
}

/**
 * An image with bitmaps: a header, a cluster of data, one with the bits `bits`, and the extension. In the
 * tables of `features` the bits are at sector `2 * tracks`.
 */
export function imageWithExtension(
  extension: Uint8Array,
  { tracks = 8, bits = new Uint8Array(0), ...fields }: ImageFields & {
    readonly bits?: Uint8Array;
  } = {},
): Uint8Array<ArrayBuffer> {
  const clusterSize = tracks * SECTOR;
  const bytes = parallelsImage({
    tracks,
    table: [1, 0, 0, 0, 0, 0, 0, 0],
    inUse: CLOSED_BY_PARALLELS,
    extension: 3 * tracks,
    fileLength: 4 * clusterSize,
    ...fields,
  });
  bytes.fill(0, 2 * clusterSize);
  bytes.set(bits, 2 * clusterSize);
  bytes.set(extension.subarray(0, bytes.length - 3 * clusterSize), 3 * clusterSize);
  return bytes;
}

/** Opens an image through the driver. Disposing of the node closes `file`. */
export async function open(
  file: MemoryNode,
  { using, options = {}, ...mode }: Partial<OpenMode> & {
    readonly using?: TestContext;
    readonly options?: Readonly<Record<string, string>>;
  } = {},
): Promise<BlockNode> {
  const set = new OptionSet(parallels.openOptions, Object.entries(options));
  return await parallels.open(file, set, using ?? context(mode));
}

/** The table of an image, as numbers. */
export function tableOf(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from(
    { length: view.getUint32(32, true) },
    (_, index) => view.getUint32(64 + 4 * index, true),
  );
}
