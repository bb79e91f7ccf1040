/** log2 of the clusters that a page counts. */
const PAGE_BITS = 16;
const PAGE = 1 << PAGE_BITS;
const PAGE_MASK = PAGE - 1;
/** Largest count that a wide page holds itself. */
const WIDE_MAX = 0xffff;

/** Most clusters that are counted: indices are 31-bit integers. */
export const MAX_COUNTED_CLUSTERS = 2 ** 31 - 1;

/**
 * How often each cluster of a file is referenced, counted in memory.
 *
 * Files are sparse and may claim any length, and nearly every cluster is
 * referenced once or not at all. So counts come in pages that exist from the
 * first reference on, a bit a cluster until one of them is referenced twice,
 * then 16 bits; what goes beyond lies in a map, whose entries each took
 * 65,535 references to get there.
 */
export class ReferenceCounts {
  /** No count gets higher than this: what the image's refcounts can hold. */
  readonly maximum: number;
  readonly #bits: (Uint32Array | undefined)[] = [];
  readonly #wide: (Uint16Array | undefined)[] = [];
  readonly #large = new Map<number, number>();
  #length = 0;

  /** No references yet, `clusters` clusters. */
  constructor(clusters: number, maximum: number) {
    this.maximum = maximum;
    this.grow(clusters);
  }

  /** Clusters that are looked at: those of the file, and any behind it that are referenced. */
  get length(): number {
    return this.#length;
  }

  /**
   * Makes room for `clusters` clusters.
   *
   * @throws {RangeError} above {@linkcode MAX_COUNTED_CLUSTERS}.
   */
  grow(clusters: number): void {
    if (clusters > MAX_COUNTED_CLUSTERS) {
      throw new RangeError(`${clusters} clusters are more than can be counted`);
    }
    if (clusters <= this.#length) return;
    this.#length = clusters;
    const pages = ((clusters - 1) >>> PAGE_BITS) + 1;
    while (this.#bits.length < pages) {
      this.#bits.push(undefined);
      this.#wide.push(undefined);
    }
  }

  /** Forgets all references; the length stays. */
  clear(): void {
    this.#bits.fill(undefined);
    this.#wide.fill(undefined);
    this.#large.clear();
  }

  /** References of a cluster below `length`. */
  get(cluster: number): number {
    const page = cluster >>> PAGE_BITS;
    const index = cluster & PAGE_MASK;
    const bits = this.#bits[page];
    if (bits !== undefined) return (bits[index >>> 5]! >>> (index & 31)) & 1;
    const wide = this.#wide[page];
    if (wide === undefined) return 0;
    const count = wide[index]!;
    return count < WIDE_MAX ? count : this.#large.get(cluster) ?? WIDE_MAX;
  }

  /** Counts a reference; false if the cluster has as many as can be. The length grows if needed. */
  increment(cluster: number): boolean {
    if (cluster >= this.#length) this.grow(cluster + 1);
    const page = cluster >>> PAGE_BITS;
    const index = cluster & PAGE_MASK;
    const bits = this.#bits[page];
    if (bits !== undefined) {
      const word = bits[index >>> 5]!;
      const mask = 1 << (index & 31);
      if ((word & mask) === 0) {
        bits[index >>> 5] = word | mask;
        return true;
      }
    }
    return this.#incrementSlowly(cluster);
  }

  /** Replaces a count. Counts above 65,534 are kept as 65,535: enough to know that they are not 1. */
  set(cluster: number, count: number): void {
    if (cluster >= this.#length) this.grow(cluster + 1);
    const page = cluster >>> PAGE_BITS;
    const index = cluster & PAGE_MASK;
    if (count <= 1 && this.#wide[page] === undefined) {
      const bits = this.#bits[page] ??= new Uint32Array(PAGE / 32);
      if (count === 0) bits[index >>> 5]! &= ~(1 << (index & 31));
      else bits[index >>> 5]! |= 1 << (index & 31);
      return;
    }
    const wide = this.#widen(page);
    if (wide[index] === WIDE_MAX) this.#large.delete(cluster);
    wide[index] = Math.min(count, WIDE_MAX);
  }

  /** The first referenced cluster in `[from, to)`, `to` if there is none. */
  nextUsed(from: number, to: number): number {
    const end = Math.min(to, this.#length);
    for (let cluster = from; cluster < end;) {
      const page = cluster >>> PAGE_BITS;
      const pageEnd = Math.min((page + 1) * PAGE, end);
      const bits = this.#bits[page];
      const wide = this.#wide[page];
      if (bits !== undefined) {
        while (cluster < pageEnd) {
          const rest = bits[(cluster & PAGE_MASK) >>> 5]! >>> (cluster & 31);
          if (rest !== 0) {
            cluster += 31 - Math.clz32(rest & -rest);
            return cluster < end ? cluster : to;
          }
          cluster += 32 - (cluster & 31);
        }
      } else if (wide !== undefined) {
        for (; cluster < pageEnd; cluster++) {
          if (wide[cluster & PAGE_MASK] !== 0) return cluster;
        }
      }
      cluster = (page + 1) * PAGE;
    }
    return to;
  }

  /** The first cluster from `from` on that nobody references; may lie behind all that are counted. */
  nextFree(from: number): number {
    let cluster = from;
    while (cluster < this.#length) {
      const page = cluster >>> PAGE_BITS;
      const pageEnd = Math.min((page + 1) * PAGE, this.#length);
      const bits = this.#bits[page];
      const wide = this.#wide[page];
      if (bits !== undefined) {
        while (cluster < pageEnd) {
          const rest = ~bits[(cluster & PAGE_MASK) >>> 5]! >>> (cluster & 31);
          if (rest !== 0) return cluster + 31 - Math.clz32(rest & -rest);
          cluster += 32 - (cluster & 31);
        }
        cluster = pageEnd;
      } else if (wide !== undefined) {
        for (; cluster < pageEnd; cluster++) {
          if (wide[cluster & PAGE_MASK] === 0) return cluster;
        }
      } else {
        return cluster;
      }
    }
    return cluster;
  }

  /**
   * Takes the first `count` contiguous free clusters from `from` on, behind
   * all others if need be, and gives each a reference. Answers with the first
   * of them, and with the first free cluster that there was, fit or not.
   */
  allocate(count: number, from: number): { readonly start: number; readonly firstFree: number } {
    const firstFree = this.nextFree(from);
    let start = firstFree;
    for (;;) {
      const limit = start + count;
      const used = this.nextUsed(start, limit);
      if (used === limit) break;
      start = this.nextFree(used);
    }
    this.grow(start + count);
    for (let cluster = start; cluster < start + count; cluster++) this.set(cluster, 1);
    return { start, firstFree };
  }

  #incrementSlowly(cluster: number): boolean {
    const page = cluster >>> PAGE_BITS;
    const index = cluster & PAGE_MASK;
    if (this.#bits[page] === undefined && this.#wide[page] === undefined) {
      this.#bits[page] = new Uint32Array(PAGE / 32);
      return this.increment(cluster);
    }
    const count = this.get(cluster);
    if (count >= this.maximum) return false;
    const wide = this.#widen(page);
    if (count < WIDE_MAX) wide[index] = count + 1;
    if (count + 1 >= WIDE_MAX) this.#large.set(cluster, count + 1);
    return true;
  }

  /** The page with 16 bits a cluster. */
  #widen(page: number): Uint16Array {
    let wide = this.#wide[page];
    if (wide !== undefined) return wide;
    this.#wide[page] = wide = new Uint16Array(PAGE);
    const bits = this.#bits[page];
    if (bits !== undefined) {
      for (let index = 0; index < PAGE; index++) {
        wide[index] = (bits[index >>> 5]! >>> (index & 31)) & 1;
      }
      this.#bits[page] = undefined;
    }
    return wide;
  }
}
