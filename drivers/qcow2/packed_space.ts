import type { Refcounts } from "./allocation.ts";
import { signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";

/** Where compressed clusters go: one behind the other, as long as the file has room there (section 6). */
export class PackedSpace {
  readonly #image: Qcow2Image;
  readonly #refcounts: Refcounts;
  /** Where the next one goes, 0 for a new cluster. */
  #next = 0;

  /** One for each image. */
  constructor(image: Qcow2Image, refcounts: Refcounts) {
    this.#image = image;
    this.#refcounts = refcounts;
  }

  /**
   * Room for `length` bytes (at most a cluster): its offset.
   *
   * @throws {ImageError} `EFBIG` beyond what an entry can express.
   */
  async allocate(length: number): Promise<number> {
    const refcounts = this.#refcounts;
    const { clusterSize, clusterBits } = this.#image.geometry;
    const limit = Math.min(2 ** (70 - clusterBits) - 1, Number.MAX_SAFE_INTEGER);
    this.#image.event("cluster_alloc_bytes");
    let offset = this.#next;
    if (offset !== 0) {
      const count = await refcounts.get(Math.floor(offset / clusterSize));
      if (count >= refcounts.format.maximum) offset = 0;
    }
    let room = clusterSize - offset % clusterSize;
    for (;;) {
      if (offset === 0 || room < length) {
        const cluster = await refcounts.findFree(1, limit);
        if (cluster === 0) {
          throw await signalCorruption(
            this.#image,
            "Preventing invalid allocation of compressed cluster at offset 0",
          );
        }
        if (offset === 0 || Math.ceil(offset / clusterSize) * clusterSize !== cluster) {
          offset = cluster;
          room = clusterSize;
        } else {
          room += clusterSize;
        }
      }
      if (await refcounts.change(offset, length, 1, "never")) break;
      offset = 0;
    }
    const end = offset + length;
    this.#next = end % clusterSize === 0 ? 0 : end;
    return offset;
  }

  /** Says that a cluster was freed: it may soon hold something else, so nothing may go on in it. */
  freed(cluster: number): void {
    if (Math.floor(this.#next / this.#image.geometry.clusterSize) === cluster) this.#next = 0;
  }

  /** Goes on in a new cluster. */
  reset(): void {
    this.#next = 0;
  }
}
