/**
 * Zero clusters made into others, for version 2, which has none (section 17
 * of the format's reference).
 *
 * Every table is treated alike, the active ones and those of snapshots, once
 * it is met: what it shares with others is changed for all of them. A host
 * cluster that is reserved for zeros is written to only if nobody else has it:
 * a snapshot may still have data there.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { MAX_L1_BYTES } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { Step } from "./amend_progress.ts";
import { Kind, kindOf, offsetOf } from "./cluster_entry.ts";
import { hex, signalCorruption } from "./corruption.ts";
import type { DataPlace } from "../../lib/block/encrypted_data.ts";
import type { Qcow2Image } from "./image.ts";
import { COPIED_HIGH, EntryTable } from "./table.ts";

/**
 * Replaces zero clusters: those with a host cluster of their own by written
 * zeros, others by nothing, or by new clusters of zeros if a backing file would
 * show. The lock is held.
 */
export async function expandZeroClusters(image: Qcow2Image, onStep: Step): Promise<void> {
  const { header: { l1Size }, snapshots, l2, refcounts } = image;
  const total = snapshots.entries.reduce((sum, snapshot) => sum + snapshot.l1Size, l1Size);
  let done = 0;
  for await (const table of l1Tables(image)) {
    for (let index = 0; index < table.length; index++) {
      const offset = table.offset(index);
      if (offset !== 0) await expandTable(image, offset, index);
      onStep(++done, total);
    }
  }
  await l2.flush();
  await refcounts.flush();
}

/** Whether any cluster, be it of a snapshot, is compressed. The lock need not be held. */
export async function hasCompressedClusters(image: Qcow2Image): Promise<boolean> {
  const { geometry: { clusterSize, entrySize, l2Entries } } = image;
  const seen = new Set<number>();
  for await (const l1 of l1Tables(image)) {
    for (let index = 0; index < l1.length; index++) {
      const offset = l1.offset(index);
      if (offset === 0 || offset % clusterSize !== 0 || seen.has(offset)) continue;
      seen.add(offset);
      const { entries } = await image.l2.load(offset);
      for (let i = 0; i < l2Entries; i++) {
        const word = i * entrySize / 8;
        const kind = kindOf(image, entries.high(word), entries.low(word));
        if (kind === Kind.compressed) return true;
      }
    }
  }
  return false;
}

/** The active L1 table and those of the snapshots. */
async function* l1Tables(image: Qcow2Image): AsyncGenerator<EntryTable> {
  yield image.l1;
  const { file, context, geometry: { clusterSize } } = image;
  for (const { exact, l1Offset, l1Size } of image.snapshots.entries) {
    const refuse = (what: string, errno: "EFBIG" | "EINVAL") =>
      new ImageError(`Snapshot L1 table ${what}`, {
        errno,
        file: context.filename,
        field: "snapshot table",
      });
    if (l1Size * 8 > MAX_L1_BYTES) throw refuse("too large", "EFBIG");
    if (exact.l1Offset % BigInt(clusterSize) !== 0n) throw refuse("offset invalid", "EINVAL");
    const table = new EntryTable(new Uint8Array(l1Size * 8));
    await readPadded(file, l1Offset, table.bytes);
    yield table;
  }
}

async function expandTable(image: Qcow2Image, tableOffset: number, l1Index: number): Promise<void> {
  const { geometry: { clusterSize, l2Entries }, l2, refcounts } = image;
  if (tableOffset % clusterSize !== 0) {
    throw await signalCorruption(
      image,
      `L2 table offset ${hex(tableOffset)} unaligned (L1 index: ${hex(l1Index)})`,
    );
  }
  /** How many L1 tables lead here. */
  const users = await refcounts.get(tableOffset / clusterSize);
  for (let index = 0; index < l2Entries; index++) {
    // Read anew each time: what is done below may push the table out of memory.
    const { entries } = l2.peek(tableOffset) ?? await l2.load(tableOffset);
    let kind: number = Kind.unallocated;
    for (; index < l2Entries; index++) {
      kind = kindOf(image, entries.high(index), entries.low(index));
      if (kind === Kind.zero || kind === Kind.zeroReserved) break;
    }
    if (index === l2Entries) break;
    const old = kind === Kind.zero ? 0 : offsetOf(entries.high(index), entries.low(index));
    if (old % clusterSize !== 0) {
      throw await signalCorruption(
        image,
        `Cluster allocation offset ${hex(old)} unaligned (L2 offset: ${hex(tableOffset)}, ` +
          `L2 index: ${hex(index)})`,
      );
    }
    const references = old === 0 ? 0 : await refcounts.get(old / clusterSize);
    const own = references === users && old !== 0;
    const host = own ? old : image.backing === null ? 0 : await newCluster(image, users);
    if (host !== 0) {
      await image.overlap.check(host, clusterSize);
      const guest = (l1Index * l2Entries + index) * clusterSize;
      await writeZeros(image, { host, guest });
      if (!own) await l2.cache.after(refcounts.cache);
      l2.cache.afterBarrier();
    }
    await l2.cache.makeRoom();
    const table = await l2.load(tableOffset);
    table.entries.setOffset(index, host, host !== 0 && users === 1 ? COPIED_HIGH : 0);
    l2.touch(table);
    if (old !== 0 && !own && references >= users) {
      await refcounts.add(old, clusterSize, -users, "other");
    }
  }
}

/** Lets a cluster read as zeros; of an encrypted image that takes bytes. */
async function writeZeros(image: Qcow2Image, place: DataPlace): Promise<void> {
  const { file, encryption, geometry: { clusterSize } } = image;
  if (encryption === undefined) {
    await file.writeZeroes(place.host, clusterSize, { unmap: false });
  } else {
    await encryption.write(file, place, new Uint8Array(clusterSize));
  }
}

/** A cluster with so many references. */
async function newCluster(image: Qcow2Image, users: number): Promise<number> {
  const { refcounts, geometry: { clusterSize } } = image;
  const offset = await refcounts.allocate(clusterSize);
  try {
    if (users > 1) await refcounts.add(offset, clusterSize, users - 1);
  } catch (error) {
    await refcounts.free(offset, clusterSize, "other");
    throw error;
  }
  return offset;
}
