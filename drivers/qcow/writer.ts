/**
 * Writing (section 4 of the format's reference).
 *
 * Space is given out in the reference's order, at the end of the file. The order in which things reach the file
 * is another one: bytes come first, then, after a barrier, the tables that lead to them.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { writeAllocated } from "../../lib/block/write_allocated.ts";
import { alignUp, divideUp } from "../../lib/bytes/align.ts";
import { SECTOR } from "./header.ts";
import type { QcowImage } from "./image.ts";
import type { L2Table } from "./tables.ts";

const COMPRESSED = 0x80000000;

/** A cluster that has a place in the file and no entry yet, because its bytes are on their way. */
interface PendingCluster {
  readonly position: number;
  users: number;
}

/** Where a cluster lies, or will. */
interface Found {
  /** `undefined` if it has to get a place before it can be written to. */
  readonly position: number | undefined;
  readonly isPending: boolean;
}

/** A run of clusters that lie one behind the other in the file. */
interface Place {
  /** Where the first byte goes. */
  readonly position: number;
  /** Bytes from the one that was asked for. */
  readonly length: number;
  /** Clusters whose entries have to change once the bytes are written. */
  readonly pending: readonly number[];
}

/** Writes to an open image. */
export class Writer {
  readonly #image: QcowImage;
  /** Held by whatever changes tables or takes space. */
  readonly #lock = new Mutex();
  readonly #pending = new Map<number, PendingCluster>();
  /** Where the next space is taken, bytes; -1 until it is needed. */
  #next = -1;

  /** A writer for an image that was opened for writing. */
  constructor(image: QcowImage) {
    this.#image = image;
  }

  /**
   * Finds or reserves space for a prefix of a guest range. Clusters that are new and will not be written as a
   * whole hold what they showed before.
   *
   * @throws {ImageError} of the files, and `EIO` for damaged entries.
   */
  async allocate(offset: number, length: number): Promise<Allocation> {
    const { position, length: covered, pending } = await this.#lock.run(() =>
      this.#place(offset, length)
    );
    return {
      length: covered,
      file: this.#image.file,
      offset: position,
      publish: async () => {
        if (pending.length > 0) await this.#lock.run(() => this.#publish(pending));
      },
      abandon: async () => {
        if (pending.length > 0) await this.#lock.run(() => this.#release(pending));
      },
    };
  }

  /** Writes guest bytes. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    const { encryption } = this.#image;
    if (encryption === undefined) return await this.#write(offset, from);
    await encryption.inSectors(offset, from, {
      read: (at, into) => this.#image.read(at, into),
      write: (at, sectors) => this.#write(at, sectors),
    });
  }

  /**
   * Stores one compressed cluster: see `PackTarget.writePacked`.
   *
   * @throws {ImageError} `EIO` where a cluster is stored already, `EINVAL` for a stream that no entry describes.
   */
  async writePacked(offset: number, packed: Uint8Array): Promise<void> {
    const { file, tables, header: { clusterBits, clusterSize }, context } = this.#image;
    const cluster = offset / clusterSize;
    if (!Number.isInteger(cluster) || packed.length === 0 || packed.length >= clusterSize) {
      throw ImageError.fromErrno("EINVAL", { file: context.filename });
    }
    const position = await this.#lock.run(async () => {
      const table = await this.#ownTable(cluster);
      if (!this.#isFree(table, cluster)) throw this.#image.damaged("compressed cluster");
      return this.#reserve(packed.length, SECTOR, 2 ** (63 - clusterBits));
    });
    await file.write(position, packed);
    await this.#lock.run(async () => {
      const table = await this.#ownTable(cluster);
      if (!this.#isFree(table, cluster)) throw this.#image.damaged("compressed cluster");
      const high = COMPRESSED | packed.length << 31 - clusterBits | Math.floor(position / 2 ** 32);
      tables.set(table, this.#entry(cluster), high >>> 0, position % 2 ** 32);
      await this.#makeRoom();
    });
  }

  /** Brings everything into the file, and to the disk. */
  async flush(): Promise<void> {
    await this.#lock.run(() => this.#store());
    await this.#image.barrier();
  }

  /**
   * Forgets all that is stored: the L1 table is emptied first, so that from then on nothing is here, and then the
   * file ends with it.
   */
  async makeEmpty(): Promise<void> {
    await this.#lock.run(async () => {
      const { file, header: { l1Offset, l1Entries }, tables } = this.#image;
      const size = l1Entries * 8;
      await file.writeZeroes(l1Offset, size, { unmap: false });
      // Whatever fails from here on: nothing in memory belongs to what is in the file.
      tables.clear();
      this.#image.forget();
      this.#next = -1;
      await this.#image.barrier();
      await file.resize(l1Offset + size, "off");
      await this.#image.barrier();
    });
  }

  async #write(offset: number, from: Uint8Array): Promise<void> {
    const { encryption } = this.#image;
    if (encryption === undefined) {
      return await writeAllocated((at, length) => this.allocate(at, length), offset, from);
    }
    let guest = offset;
    await writeAllocated(
      (at, length) => this.allocate(guest = at, length),
      offset,
      from,
      (file, host, part) => encryption.write(file, { host, guest }, part),
    );
  }

  async #place(offset: number, length: number): Promise<Place> {
    const { clusterSize, l2Entries } = this.#image.header;
    const first = Math.floor(offset / clusterSize);
    const inside = offset - first * clusterSize;
    const end = first + divideUp(inside + length, clusterSize);
    const known = await this.#find(first);
    let cluster = first + 1;
    if (known.position !== undefined) {
      const pending = known.isPending ? [first] : [];
      for (; cluster < end; cluster++) {
        const next = await this.#find(cluster);
        if (next.position !== known.position + (cluster - first) * clusterSize) break;
        if (next.isPending) pending.push(cluster);
      }
      for (const joined of pending) this.#pending.get(joined)!.users++;
      return {
        position: known.position + inside,
        length: Math.min(length, (cluster - first) * clusterSize - inside),
        pending,
      };
    }
    // Clusters of another table come behind that table.
    const last = Math.min(end, first - first % l2Entries + l2Entries);
    await this.#ownTable(first);
    while (cluster < last && (await this.#find(cluster)).position === undefined) cluster++;
    const count = cluster - first;
    const size = count * clusterSize;
    const position = this.#reserve(size, clusterSize);
    const covered = Math.min(length, size - inside);
    await this.#fillAround(first, count, position, inside, inside + covered);
    const pending = Array.from({ length: count }, (_, i) => first + i);
    for (const [i, cluster] of pending.entries()) {
      this.#pending.set(cluster, { position: position + i * clusterSize, users: 1 });
    }
    return { position: position + inside, length: covered, pending };
  }

  async #find(cluster: number): Promise<Found> {
    const pending = this.#pending.get(cluster);
    if (pending !== undefined) return { position: pending.position, isPending: true };
    const run = await this.#image.runAt(cluster * this.#image.header.clusterSize, 1);
    if (run.kind === "damaged") throw this.#image.damaged("L2 table");
    return { position: run.kind === "plain" ? run.position : undefined, isPending: false };
  }

  #entry(cluster: number): number {
    return cluster % this.#image.header.l2Entries;
  }

  #isFree(table: L2Table, cluster: number): boolean {
    const at = this.#entry(cluster) * 8;
    return table.entries.getUint32(at) === 0 && table.entries.getUint32(at + 4) === 0 &&
      !this.#pending.has(cluster);
  }

  /** The table of a cluster, made if there is none. */
  async #ownTable(cluster: number): Promise<L2Table> {
    const { tables, header: { l2Entries, clusterSize } } = this.#image;
    const index = Math.floor(cluster / l2Entries);
    return await tables.load(index) ??
      tables.create(index, this.#reserve(l2Entries * 8, clusterSize));
  }

  /** Takes space at the end of the file, in whole sectors. What fails later leaves it unused. */
  #reserve(length: number, unit: number, limit: number = Number.MAX_SAFE_INTEGER): number {
    const { file } = this.#image;
    if (this.#next < 0) this.#next = file.length;
    const position = alignUp(this.#next, unit);
    if (position + length + unit > limit) {
      throw ImageError.fromErrno("EFBIG", { file: file.filename, field: "L2 table" });
    }
    this.#next = alignUp(position + length, SECTOR);
    return position;
  }

  /** What new clusters hold in front of and behind the bytes that are to be written, from `from` to `to`. */
  async #fillAround(
    first: number,
    count: number,
    position: number,
    from: number,
    to: number,
  ): Promise<void> {
    const { file, header: { clusterSize } } = this.#image;
    const end = count * clusterSize;
    const isHeadCut = from > 0;
    const isTailCut = to < end;
    if (isHeadCut) await this.#fill(first, position);
    if (isTailCut && !(isHeadCut && count === 1)) {
      await this.#fill(first + count - 1, position + end - clusterSize);
    }
    // A file ends with a whole cluster, whatever is written to it.
    if (isTailCut && !file.fixedLength && file.length < position + end) {
      await file.resize(position + end, "off");
    }
  }

  /** Fills one new cluster with what it showed before. What the guest writes goes over it. */
  async #fill(cluster: number, position: number): Promise<void> {
    const { file, header: { clusterSize, length }, encryption } = this.#image;
    const offset = cluster * clusterSize;
    const run = await this.#image.runAt(offset, 1);
    const isZero = run.kind === "absent" && this.#image.isEmptyBehind(offset);
    // Behind the end of a file there are zeros, but for devices. Encrypted zeros are nowhere.
    if (isZero && encryption === undefined && !file.fixedLength) return;
    const bytes = new Uint8Array(clusterSize);
    await this.#image.read(offset, bytes.subarray(0, Math.min(clusterSize, length - offset)));
    if (encryption === undefined) await file.write(position, bytes);
    else await encryption.write(file, { host: position, guest: offset }, bytes);
  }

  async #publish(clusters: readonly number[]): Promise<void> {
    for (const cluster of clusters) {
      const { position } = this.#pending.get(cluster)!;
      this.#image.tables.set(
        await this.#ownTable(cluster),
        this.#entry(cluster),
        Math.floor(position / 2 ** 32),
        position % 2 ** 32,
      );
    }
    this.#release(clusters);
    await this.#makeRoom();
  }

  #release(clusters: readonly number[]): void {
    for (const cluster of clusters) {
      const pending = this.#pending.get(cluster)!;
      if (--pending.users === 0) this.#pending.delete(cluster);
    }
  }

  async #makeRoom(): Promise<void> {
    if (this.#image.tables.isFull) await this.#store();
  }

  async #store(): Promise<void> {
    await this.#image.tables.store(() => this.#image.barrier());
  }
}
