/**
 * Writing guest bytes (section 7): host space, copy-on-write around it, then
 * the entries that lead there.
 *
 * @module
 */
import { during } from "../../lib/block/error.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { type Piece, planPieces } from "./allocation_plan.ts";
import { freeEntries } from "./cluster_entry.ts";
import { fillAround, fillJoined } from "./copy_on_write.ts";
import type { HostRange, Qcow2Image } from "./image.ts";
import { completeRuns, linkClusters, linkRun } from "./link.ts";
import { readAt } from "./mapping.ts";
import type { PendingRun } from "./pending.ts";

/**
 * Host space for a prefix of a guest range: see `Allocator`. `planned`: for a
 * planner, who may keep it open while it waits for other requests.
 *
 * @throws {ImageError} of the file, or `EIO` for damaged tables.
 */
export async function allocateGuest(
  image: Qcow2Image,
  offset: number,
  length: number,
  planned = false,
): Promise<GuestAllocation> {
  image.assertUsable();
  const pieces = await image.lock.run(() => planPieces(image, { offset, length, planned }));
  const allocation = new GuestAllocation(image, pieces);
  try {
    for (const piece of pieces) await prepare(image, piece);
  } catch (error) {
    // Those who joined fail with it, in their own time.
    for (const { range } of pieces) range?.prepare(error);
    await allocation.abandon();
    throw error;
  }
  return allocation;
}

/** An allocation that knows its image. */
export class GuestAllocation implements Allocation {
  readonly length: number;
  readonly file: BlockNode;
  readonly offset: number;
  readonly #image: Qcow2Image;
  readonly #pieces: readonly Piece[];

  /** An allocation of host-contiguous pieces, at least one. */
  constructor(image: Qcow2Image, pieces: readonly Piece[]) {
    this.#image = image;
    this.#pieces = pieces;
    this.file = image.dataFile;
    this.offset = pieces[0]!.host;
    this.length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  }

  publish(): Promise<void> {
    return this.#end("published");
  }

  abandon(): Promise<void> {
    return this.#end("abandoned");
  }

  /**
   * Resolves when the published range is reachable: others that write to the
   * same clusters may keep it back. Planners are not waited for, they may be
   * waiting for this.
   */
  async settled(): Promise<void> {
    for (const { run } of this.#pieces) {
      if (run !== undefined && !run.waitsForPlanner) await run.settled;
    }
  }

  async #end(state: "published" | "abandoned"): Promise<void> {
    const complete: PendingRun[] = [];
    for (const { run, range } of this.#pieces) {
      if (run === undefined || range === undefined) continue;
      if (range.state !== "open") throw new Error("an allocation ends once");
      range.state = state;
      if (!run.open) complete.push(run);
    }
    await completeRuns(this.#image, complete);
  }
}

/** Fills a run around a piece, after all who came before. `written`: the piece will be written itself. */
async function prepare(
  image: Qcow2Image,
  { run, range }: Piece,
  written = true,
): Promise<void> {
  if (run === undefined || range === undefined) return;
  const earlier = run.ranges.slice(0, run.ranges.indexOf(range));
  for (const { prepared } of earlier) await prepared;
  if (earlier.length === 0) await fillAround(image, run, range, written);
  else if (image.geometry.subclusters > 1) await fillJoined(image, run, range, earlier);
  range.prepare();
}

/**
 * Writes guest bytes.
 *
 * @throws {ImageError} of the file, or `EIO` for damaged tables.
 */
export async function writeAt(image: Qcow2Image, offset: number, from: Uint8Array): Promise<void> {
  if (image.encryption !== undefined) {
    return await writeEncrypted(image, image.encryption, offset, from);
  }
  await writeGuest(
    image,
    offset,
    from.length,
    (file, host, done, length) => file.write(host, from.subarray(done, done + length)),
  );
}

/** Writes guest bytes in whole sectors, of which those that are written in part are read before. */
async function writeEncrypted(
  image: Qcow2Image,
  encryption: DataEncryption,
  offset: number,
  from: Uint8Array,
): Promise<void> {
  await encryption.inSectors(offset, from, {
    read: (at, into) => readAt(image, at, into),
    write: (at, sectors) => writeSectors(image, encryption, at, sectors),
  });
}

/** Clusters that are encrypted and allocated at a time at most, as in the reference: images get the same layout. */
const MOST_ENCRYPTED_CLUSTERS = 32;

async function writeSectors(
  image: Qcow2Image,
  encryption: DataEncryption,
  offset: number,
  from: Uint8Array,
): Promise<void> {
  const { clusterSize } = image.geometry;
  for (let done = 0; done < from.length;) {
    const guest = offset + done;
    const most = MOST_ENCRYPTED_CLUSTERS * clusterSize - guest % clusterSize;
    const piece = from.subarray(done, done + most);
    await writeGuest(
      image,
      guest,
      piece.length,
      (file, host, at, length) =>
        encryption.write(file, { host, guest: guest + at }, piece.subarray(at, at + length)),
    );
    done += piece.length;
  }
}

/** Allocates a guest range, lets `fill` write each part of it to its file, and links it. */
export async function writeGuest(
  image: Qcow2Image,
  offset: number,
  length: number,
  fill: (file: BlockNode, host: number, done: number, length: number) => Promise<void>,
): Promise<void> {
  for (let done = 0; done < length;) {
    const allocation = await allocateGuest(image, offset + done, length - done);
    try {
      image.event("write_aio");
      await fill(allocation.file, allocation.offset, done, allocation.length);
    } catch (error) {
      await allocation.abandon();
      throw error;
    }
    await allocation.publish();
    await allocation.settled();
    done += allocation.length;
  }
}

/**
 * Allocates and links clusters for a prefix of a guest range without writing
 * data (metadata preallocation, section 11): where the bytes of that prefix lie.
 */
export async function preallocateGuest(
  image: Qcow2Image,
  offset: number,
  length: number,
): Promise<HostRange> {
  const pieces = await during(
    "Allocating clusters failed",
    () => image.lock.run(() => planPieces(image, { offset, length, planned: false })),
  );
  await during("Mapping clusters failed", async () => {
    try {
      for (const piece of pieces) await prepare(image, piece, false);
    } catch (error) {
      await new GuestAllocation(image, pieces).abandon();
      throw error;
    }
    await image.lock.run(async () => {
      for (const { run } of pieces) {
        if (run === undefined) continue;
        await linkRun(image, run, []);
      }
    });
  });
  return {
    offset: pieces[0]!.host,
    length: pieces.reduce((sum, piece) => sum + piece.length, 0),
  };
}

/**
 * Links guest clusters from `offset` on to host clusters that are allocated
 * already (section 11, falloc and full). What the first `filled` bytes of them
 * hold is the guest's; with extended L2 entries the rest is as it was before.
 */
export async function linkGuest(
  image: Qcow2Image,
  offset: number,
  host: number,
  clusters: number,
  filled = 0,
): Promise<void> {
  const { clusterSize } = image.geometry;
  await image.lock.run(async () => {
    for (let done = 0; done < clusters;) {
      const guest = offset + done * clusterSize;
      const count = Math.min(clusters - done, image.l2.entriesForRun(guest));
      const place = { guest, host: host + done * clusterSize, clusters: count, fresh: true };
      const ranges = [{ from: 0, to: filled - done * clusterSize }];
      await freeEntries(image, await linkClusters(image, place, ranges), "never");
      done += count;
    }
  });
}
