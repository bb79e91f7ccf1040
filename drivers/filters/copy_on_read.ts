/**
 * The filter that stores what is read from a backing file in the image in front of it.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { FilterNode } from "../../lib/block/filter_node.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode, Extent, ZeroFlags } from "../../lib/block/node.ts";
import { alignDown, alignUp } from "../../lib/bytes/align.ts";
import { isZero } from "../../lib/bytes/zero_scan.ts";

/** Bytes that are copied at once at most. */
const MAX_COPY = 1 << 20;

/** The driver. */
export const copyOnRead: FormatDriver = {
  name: "copy-on-read",
  transparent: true,
  openOptions: [
    {
      name: "bottom",
      type: "str",
      help: "Name of the lowest node of the backing chain whose data are copied",
    },
  ],
  open(file, options, context) {
    try {
      return Promise.resolve(openNode(file, options.string("bottom"), context));
    } catch (error) {
      return Promise.reject(error);
    }
  },
};

function openNode(
  file: BlockNode,
  bottom: string | undefined,
  context: DriverContext,
): CopyOnReadNode {
  // It writes also when nobody else does.
  if (file.readOnly) {
    throw new ImageError("Block node is read-only", { errno: "EACCES", file: context.filename });
  }
  return new CopyOnReadNode(file, context, bottom === undefined ? undefined : find(bottom, file));
}

/** How far down a chain a node of this name is: 1 for the first backing file. */
function find(name: string, top: BlockNode): number {
  let depth = 0;
  for (let node: BlockNode | null = top; node !== null; node = node.backing?.node ?? null) {
    if (node.nodeName === name) {
      if (node.filtered === undefined) return depth;
      throw new ImageError("Bottom node is a filter", { errno: "EINVAL", field: "bottom" });
    }
    depth++;
  }
  throw new ImageError(`Bottom node '${name}' not found`, { errno: "EINVAL", field: "bottom" });
}

class CopyOnReadNode extends FilterNode {
  readonly driver = "copy-on-read";
  /** Nothing may be written while what was there is on its way into the image. */
  readonly #lock = new Mutex();
  /** How many backing files are copied from. */
  readonly #depth: number;
  /** What is allocated nowhere is copied as well, as zeros; not with a lowest node. */
  readonly #copiesNothing: boolean;

  constructor(file: BlockNode, context: DriverContext, depth: number | undefined) {
    super(file, context);
    this.#depth = depth ?? Infinity;
    this.#copiesNothing = depth === undefined;
  }

  override async read(offset: number, into: Uint8Array): Promise<void> {
    for (let at = offset; at < offset + into.length;) {
      const run = await this.#run(at, offset + into.length - at);
      if (run.isCopied) await this.#lock.run(() => this.#copy(at, at + run.length));
      at += run.length;
    }
    await super.read(offset, into);
  }

  override async write(offset: number, from: Uint8Array): Promise<void> {
    await this.#lock.run(() => super.write(offset, from));
  }

  override async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    await this.#lock.run(() => super.writeZeroes(offset, length, flags));
  }

  override async discard(offset: number, length: number): Promise<void> {
    await this.#lock.run(() => super.discard(offset, length));
  }

  locate(offset: number, length: number): Promise<Extent> {
    return this.locateAll(offset, length);
  }

  /** The first run that is read in one way. */
  async #run(offset: number, length: number): Promise<{ length: number; isCopied: boolean }> {
    const extent = await this.filtered.extent(offset, length);
    if (extent.state !== "unallocated") return { length: extent.length, isCopied: false };
    const { length: run, depth } = await this.levelBehind(offset, extent.length);
    const isCopied = depth === undefined ? this.#copiesNothing : depth <= this.#depth;
    return { length: run, isCopied };
  }

  /** Copies what is not yet allocated of the clusters that a range touches. */
  async #copy(begin: number, end: number): Promise<void> {
    const { zeroAlignment, clusterSize } = this.limits;
    const unit = zeroAlignment || clusterSize || 1;
    const last = Math.min(alignUp(end, unit), this.length);
    for (let at = alignDown(begin, unit); at < last;) {
      const extent = await this.filtered.extent(at, Math.min(last - at, MAX_COPY));
      if (extent.state === "unallocated") {
        const bytes = new Uint8Array(extent.length);
        await this.filtered.read(at, bytes);
        if (isZero(bytes)) await this.filtered.writeZeroes(at, bytes.length, { unmap: false });
        else await this.filtered.write(at, bytes);
      }
      at += extent.length;
    }
  }
}
