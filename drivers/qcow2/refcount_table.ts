/**
 * Larger refcount tables (section 6, growTable).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { Qcow2Image } from "./image.ts";
import { RefcountTable } from "./table.ts";

/** Most entries of a refcount table that is made; a larger one could not be opened again. */
const MAX_ENTRIES = 2 ** 23;

/** Where the header says where the table is: offset (8 bytes), clusters (4). */
const HEADER_FIELD = 48;

/** Sizes that decide how large the refcount structures of a file are. */
export interface RefcountSizes {
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  /** Refcounts in a block. */
  readonly perBlock: number;
}

/**
 * Refcount blocks and table clusters for `clusters` clusters and for
 * themselves. `generous`: with room for half a table more.
 */
export function refcountStructures(
  clusters: number,
  { clusterSize, perBlock }: RefcountSizes,
  generous = false,
): { blocks: number; tableClusters: number } {
  let blocks = 0;
  let tableClusters = 0;
  let before = -1;
  for (let sum = 0; sum !== before;) {
    before = sum;
    blocks = Math.ceil((clusters + tableClusters + blocks) / perBlock);
    tableClusters = Math.ceil(blocks * 8 / clusterSize);
    sum = clusters + blocks + tableClusters;
    if (sum === before && generous) {
      clusters += Math.ceil(tableClusters / 2);
      generous = false;
      sum = 0;
    }
  }
  return { blocks, tableClusters };
}

/** A request for a larger table. */
export interface GrowRequest {
  /** Where the new structures begin, bytes. Everything behind is free. */
  readonly start: number;
  /** Clusters that will be used behind the new structures. */
  readonly extra: number;
  /** Whether to leave room for more. */
  readonly size: "exact" | "generous";
  /** A block that exists already and has no place in the old table. */
  readonly block?: { readonly index: number; readonly offset: number };
}

/** A table on disk that nothing names yet. */
export interface NewTable {
  /** Its entries. */
  readonly table: RefcountTable;
  /** Where it lies, bytes. */
  readonly offset: number;
  /** Where the new structures end, bytes. */
  readonly end: number;
}

/**
 * Writes a larger table and the blocks that it lacks. The caller names it in
 * the header, takes over the answer and frees the old table.
 *
 * @throws {ImageError} `EFBIG` above the format's limit.
 */
export async function growRefcountTable(
  image: Qcow2Image,
  { start, extra, size, block }: GrowRequest,
): Promise<NewTable> {
  const { geometry: { clusterSize }, refcounts: { cache, format, table: old }, file } = image;
  const { perBlock } = format;
  const generous = size === "generous";
  const first = start / clusterSize;
  const { blocks } = refcountStructures(first + extra, { clusterSize, perBlock }, generous);
  const tableClusters = Math.ceil(
    (generous ? blocks + Math.ceil(blocks / 2) : blocks) * 8 / clusterSize,
  );
  const entries = tableClusters * clusterSize / 8;
  if (entries > MAX_ENTRIES) {
    throw ImageError.fromErrno("EFBIG", { file: image.context.filename, field: "refcount table" });
  }

  const table = new RefcountTable(new Uint8Array(entries * 8));
  // Behind the area nothing is used, so blocks that find no room any more count nothing.
  table.bytes.set(old.bytes.subarray(0, Math.min(old.bytes.length, table.bytes.length)));
  if (block !== undefined) table.setOffset(block.index, block.offset);

  const firstBlock = Math.floor(first / perBlock);
  let missing = 0;
  for (let index = firstBlock; index < blocks; index++) {
    if (table.offset(index) === 0) missing++;
  }
  const offset = start + missing * clusterSize;
  const end = offset + tableClusters * clusterSize;
  if (end > Number.MAX_SAFE_INTEGER) {
    throw ImageError.fromErrno("EFBIG", { file: image.context.filename });
  }

  const endCluster = end / clusterSize;
  let place = start;
  for (let index = firstBlock; index < blocks; index++) {
    await cache.makeRoom();
    let slot;
    if (table.offset(index) === 0) {
      slot = cache.create(place);
      table.setOffset(index, place);
      place += clusterSize;
    } else {
      slot = await cache.load(table.offset(index));
    }
    const base = index * perBlock;
    const stop = Math.min(endCluster - base, perBlock);
    for (let at = Math.max(first - base, 0); at < stop; at++) {
      format.set(slot.entries.bytes, at, 1);
    }
    cache.touch(slot);
  }

  image.event("refblock_alloc_write_blocks");
  await cache.flush();
  await image.overlap.check(offset, table.bytes.length);
  image.event("refblock_alloc_write_table");
  await file.write(offset, table.bytes);
  await image.barrier();
  return { table, offset, end };
}

/** Lets the file's header name a table. Does not flush. */
export async function nameRefcountTable(
  image: Qcow2Image,
  offset: number,
  clusters: number,
): Promise<void> {
  const field = new DataView(new ArrayBuffer(12));
  field.setBigUint64(0, BigInt(offset));
  field.setUint32(8, clusters);
  await image.file.write(HEADER_FIELD, new Uint8Array(field.buffer));
}
