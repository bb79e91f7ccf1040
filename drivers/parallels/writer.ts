/**
 * Changing the disk: where clusters go, and what becomes of the places that they leave (section 3 of the
 * format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { writeAllocated } from "../../lib/block/write_allocated.ts";
import { isAligned } from "../../lib/bytes/align.ts";
import type { Place } from "./free_space.ts";
import type { ParallelsImage } from "./image.ts";
import { readThrough, runAt } from "./reader.ts";

const ZEROS = new Uint8Array(256 << 10);
/** Bytes of a backing file that are copied at a time. */
const COPY_STEP = 1 << 20;

/** A cluster of the disk that has a place, until its first bytes are there. */
interface PendingCluster {
  readonly position: number;
  /** Allocations in it that have not ended. */
  users: number;
}

/** Writes to the disk of an open image. */
export class DiskWriter {
  readonly #image: ParallelsImage;
  readonly #pending = new Map<number, PendingCluster>();
  /** Up to where the file has space for what was made in advance, bytes; `undefined` where it has all of it. */
  #reservedTo: number | undefined;
  /** The table in the file may still lead to holes. */
  #hasLooseHoles = false;

  /** One for each image. */
  constructor(image: ParallelsImage) {
    this.#image = image;
  }

  /** Writes all of `from`. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    await writeAllocated((at, length) => this.allocate(at, length), offset, from);
  }

  /** Makes a range read as zeros: by forgetting its clusters if it is made of whole ones. */
  async writeZeroes(offset: number, length: number, noFallback: boolean): Promise<void> {
    if (await this.discard(offset, length)) return;
    if (noFallback) {
      throw ImageError.fromErrno("ENOTSUP", { file: this.#image.context.filename });
    }
    for (let done = 0; done < length; done += ZEROS.length) {
      await this.write(offset + done, ZEROS.subarray(0, length - done));
    }
  }

  /** Forgets clusters of the disk; false where that cannot be done, and nothing was. */
  discard(offset: number, length: number): Promise<boolean> {
    const { clusterSize } = this.#image.header;
    if (this.#image.backing !== null) return Promise.resolve(false);
    if (!isAligned(offset, clusterSize) || !isAligned(length, clusterSize)) {
      return Promise.resolve(false);
    }
    return this.#image.lock.run(() =>
      this.#forget(offset / clusterSize, (offset + length) / clusterSize)
    );
  }

  /** Brings everything into the file. Under the image's lock. */
  async store(): Promise<void> {
    await this.#reserve();
    await this.#image.storeTable();
    this.#hasLooseHoles = false;
  }

  /** Space for a prefix of a range. */
  allocate(offset: number, most: number): Promise<Allocation> {
    const image = this.#image;
    return image.lock.run(async () => {
      await image.dropExtension();
      const known = runAt(image, offset, most);
      if (known.position !== undefined) {
        return {
          length: known.length,
          file: image.file,
          offset: known.position,
          publish: () => Promise.resolve(),
          abandon: () => Promise.resolve(),
        };
      }
      const first = image.clusterAt(offset);
      return this.#pending.has(first)
        ? this.#join(first, offset, known.length)
        : await this.#begin(first, offset, known.length);
    });
  }

  /** One more use of a cluster that others are filling. */
  #join(index: number, offset: number, most: number): Allocation {
    const pending = this.#pending.get(index)!;
    const { clusterSize } = this.#image.header;
    const skip = offset - index * clusterSize;
    pending.users++;
    return this.#allocation(index, 1, pending.position + skip, Math.min(clusterSize - skip, most));
  }

  /** New places for the clusters of a range in which nothing is allocated. */
  async #begin(first: number, offset: number, most: number): Promise<Allocation> {
    const image = this.#image;
    const { table, header: { clusterSize } } = image;
    const last = image.clusterAt(offset + most - 1);
    if (last >= table.length) {
      throw new ImageError(`Cluster ${last} of the disk has no place in the table`, {
        errno: "EIO",
        file: image.context.filename,
        field: "BAT entries",
      });
    }
    let wanted = 1;
    while (first + wanted <= last && !this.#pending.has(first + wanted)) wanted++;
    const place = await this.#take(wanted);
    const { position, count } = place;
    const skip = offset - first * clusterSize;
    const length = Math.min(count * clusterSize - skip, most);
    try {
      await this.#fillAround(place, offset, skip, length);
    } catch (error) {
      for (let i = 0; i < count; i++) image.space!.free(position + i * clusterSize);
      throw error;
    }
    for (let i = 0; i < count; i++) {
      this.#pending.set(first + i, { position: position + i * clusterSize, users: 1 });
    }
    return this.#allocation(first, count, position + skip, length);
  }

  #allocation(first: number, count: number, offset: number, length: number): Allocation {
    const { lock, file } = this.#image;
    const end = (isFilled: boolean) => lock.run(() => this.#end(first, count, isFilled));
    return { length, file, offset, publish: () => end(true), abandon: () => end(false) };
  }

  /** Ends one use of new clusters; the first that is published makes a cluster a part of the disk. */
  #end(first: number, count: number, isFilled: boolean): void {
    const { table, space } = this.#image;
    for (let index = first; index < first + count; index++) {
      const pending = this.#pending.get(index)!;
      if (isFilled && table.get(index) === 0) table.set(index, pending.position);
      if (--pending.users > 0) continue;
      this.#pending.delete(index);
      if (table.get(index) === 0) space!.free(pending.position);
    }
  }

  async #take(most: number): Promise<Place> {
    const space = this.#image.space!;
    let place = space.take(most);
    if (place === undefined) {
      await this.#grow(most);
      place = space.take(most)!;
    }
    if (place.isHole && this.#hasLooseHoles) {
      // The disk must never show, after a crash, what another part of it got in the meantime.
      try {
        await this.store();
      } catch (error) {
        for (let i = 0; i < place.count; i++) {
          space.free(place.position + i * this.#image.header.clusterSize);
        }
        throw error;
      }
    }
    return place;
  }

  /** Makes the file longer, by more than what is needed now. */
  async #grow(count: number): Promise<void> {
    const { file, space, preallocated, header: { clusterSize } } = this.#image;
    const spare = Math.floor(Math.max(preallocated.size, clusterSize) / clusterSize);
    const at = space!.growsAt;
    // Clearing space that is about to be written takes longer than writing it.
    const isReserved = !preallocated.sparse && !file.fixedLength && file.reserve !== undefined;
    if (isReserved) this.#reservedTo ??= at;
    const grow = async (places: number) => {
      const length = places * clusterSize;
      if (preallocated.sparse || isReserved) await file.resize(at + length, "off");
      else await file.writeZeroes(at, length, { unmap: false });
      space!.grown(places);
    };
    try {
      await grow(count + spare);
    } catch (error) {
      // Without the spare it may fit yet.
      if (spare === 0 || !isFull(error)) throw error;
      await grow(count);
    }
  }

  /** Gives the places in use the space that they have not filled, so that writing to them later cannot fail. */
  async #reserve(): Promise<void> {
    const { file, space } = this.#image;
    const from = this.#reservedTo;
    const end = space!.dataEnd;
    if (from === undefined || end <= from) return;
    try {
      await file.reserve!(from, end - from);
    } catch (error) {
      // Without it the disk is the same.
      if (!isFull(error)) throw error;
    }
    this.#reservedTo = end;
  }

  /** What clusters hold beside a range of new ones: zeros, or what shows there so far. */
  async #fillAround(
    { position, count, isZero }: Place,
    offset: number,
    skip: number,
    length: number,
  ): Promise<void> {
    const { file, backing, header: { clusterSize } } = this.#image;
    const end = count * clusterSize;
    if (!isZero) await file.writeZeroes(position, end, { unmap: false });
    if (backing === null) return;
    const diskStart = offset - skip;
    for (const [from, to] of [[0, skip], [skip + length, end]] as const) {
      for (let at = from; at < to; at += COPY_STEP) {
        const bytes = new Uint8Array(Math.min(COPY_STEP, to - at));
        await readThrough(this.#image, diskStart + at, bytes);
        await file.write(position + at, bytes);
      }
    }
  }

  /** Forgets clusters unless somebody is filling one of them. */
  async #forget(first: number, end: number): Promise<boolean> {
    const image = this.#image;
    const { file, table, space, header: { clusterSize } } = image;
    for (const index of this.#pending.keys()) {
      if (index >= first && index < end) return false;
    }
    for (const index of table.used(first, end)) {
      const position = table.get(index);
      await image.dropExtension();
      await file.discard(position, clusterSize);
      table.set(index, 0);
      space!.free(position);
      this.#hasLooseHoles = true;
    }
    return true;
  }
}

function isFull(error: unknown): boolean {
  const { errno } = ImageError.from(error);
  return errno === "ENOSPC" || errno === "EFBIG" || errno === "EDQUOT";
}
