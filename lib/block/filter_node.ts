import { closeAll } from "./close_all.ts";
import type { BackingLink, ImageDetails, SnapshotStore } from "./capabilities.ts";
import type { DriverContext } from "./driver.ts";
import type { NodeAccess } from "./mode.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits, Preallocation, ZeroFlags } from "./node.ts";
import { outerDetails } from "./outer_details.ts";
import { requireWritable } from "./range.ts";

/**
 * What filters have in common: requests go on to the node below, whose size, limits, backing file and
 * snapshots are theirs. What else the node below can do is for each of them to offer. As files do, they
 * take requests behind the end, which formats above them make.
 */
export abstract class FilterNode implements BlockNode {
  abstract readonly driver: string;
  readonly readOnly: boolean;
  readonly children: readonly NodeChild[];
  readonly filtered: BlockNode;
  readonly lock?: (access: NodeAccess) => Promise<void>;
  readonly backing?: BackingLink;
  readonly snapshots?: SnapshotStore;
  readonly fixedLength?: boolean;
  readonly #context: DriverContext;

  /** A node on `file`, which is closed with it; `others` are more children, the last attached first. */
  constructor(file: BlockNode, context: DriverContext, others: readonly NodeChild[] = []) {
    this.#context = context;
    this.filtered = file;
    this.children = [...others, { name: "file", node: file }];
    this.readOnly = file.readOnly || !context.mode.writable;
    if (file.lock !== undefined) this.lock = (access) => file.lock!(access);
    if (file.backing !== undefined) this.backing = file.backing;
    if (file.fixedLength !== undefined) this.fixedLength = file.fixedLength;
    // Only to read a snapshot the disk itself has to be asked.
    if (file.snapshots !== undefined) {
      const { select: _, ...store } = file.snapshots;
      this.snapshots = store;
    }
  }

  /** It is known for good only once the node is open. */
  get filename(): string {
    return this.#context.filename;
  }

  get length(): number {
    return this.filtered.length;
  }

  get limits(): NodeLimits {
    return this.filtered.limits;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.filtered.read(offset, into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    await this.filtered.write(offset, from);
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    await this.filtered.writeZeroes(offset, length, flags);
  }

  async discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    await this.filtered.discard(offset, length);
  }

  extent(offset: number, length: number): Promise<Extent> {
    return this.filtered.extent(offset, length);
  }

  /**
   * `locate` of a filter that has to see all that is read: what backing files have is to be read here,
   * and not from them.
   */
  protected async locateAll(offset: number, length: number): Promise<Extent> {
    const extent = await this.extent(offset, length);
    if (extent.state !== "unallocated") return extent;
    const { length: run, depth } = await this.levelBehind(offset, extent.length);
    return {
      length: run,
      state: depth === undefined ? "unallocated" : "data",
      compressed: false,
    };
  }

  /** Which backing file has the first run at `offset`: 1 for the first, `undefined` if none has. */
  protected async levelBehind(
    offset: number,
    length: number,
  ): Promise<{ readonly length: number; readonly depth: number | undefined }> {
    let run = length;
    let depth = 1;
    for (let node = this.backing?.node ?? null; node !== null && offset < node.length;) {
      const extent = await node.extent(offset, Math.min(run, node.length - offset));
      run = extent.length;
      if (extent.state !== "unallocated") return { length: run, depth };
      depth++;
      node = node.backing?.node ?? null;
    }
    return { length: run, depth: undefined };
  }

  flush(): Promise<void> {
    return this.filtered.flush();
  }

  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    await this.filtered.resize(length, how);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.filtered.allocatedSize();
  }

  /** Clusters, and whether it was closed well: all that the reference asks the node below for. */
  details(): Promise<ImageDetails> {
    return outerDetails(this.filtered);
  }

  readsZeroWhenNew(): Promise<boolean> {
    return this.filtered.readsZeroWhenNew?.() ?? Promise.resolve(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeAll(this.children.map(({ node }) => () => node[Symbol.asyncDispose]()));
  }
}
