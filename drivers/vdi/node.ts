/**
 * The node of an open image.
 *
 * @module
 */
import type { Checker, ImageDetails } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { hostHole } from "../../lib/block/host_hole.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits, ZeroFlags } from "../../lib/block/node.ts";
import type { Allocation, Allocator } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { writeAllocated } from "../../lib/block/write_allocated.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";
import { BlockMap } from "./block_map.ts";
import { BLOCK_SIZE, readHeader, SECTOR, type VdiHeader } from "./header.ts";

const ZEROS = new Uint8Array(BLOCK_SIZE / 4);

/** Opens an image. On failure `file` is left to the caller. */
export async function openNode(file: BlockNode, context: DriverContext): Promise<BlockNode> {
  const header = await readHeader(file, context);
  return new VdiNode(file, context, header, await BlockMap.load(file, header));
}

/** A block that was taken for a part of the disk, until its first bytes are in the file. */
interface PendingBlock {
  readonly block: number;
  /** Allocations in it that have not ended. */
  users: number;
}

class VdiNode implements BlockNode {
  readonly driver = "vdi";
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits = {
    requestAlignment: SECTOR,
    clusterSize: BLOCK_SIZE,
    zeroAlignment: 0,
    statusSpan: BLOCK_SIZE,
  };
  readonly children: readonly NodeChild[];
  readonly allocator?: Allocator;
  readonly checker: Checker;
  readonly #file: BlockNode;
  readonly #context: DriverContext;
  readonly #header: VdiHeader;
  readonly #map: BlockMap;
  readonly #lock = new Mutex();
  readonly #pending = new Map<number, PendingBlock>();
  #closed = false;

  constructor(file: BlockNode, context: DriverContext, header: VdiHeader, map: BlockMap) {
    this.#file = file;
    this.#context = context;
    this.#header = header;
    this.#map = map;
    this.readOnly = !context.mode.writable;
    this.length = header.length;
    this.children = [{ name: "file", node: file }];
    if (!this.readOnly) {
      this.allocator = { allocate: (offset, length) => this.#allocate(offset, length) };
    }
    this.checker = {
      check: async (repair, report) => {
        const { checkMap } = await import("./check.ts");
        return checkMap(header, map, repair, report);
      },
    };
  }

  /** Known for good only once the image is open. */
  get filename(): string {
    return this.#context.filename;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    for (let done = 0; done < into.length;) {
      const { length, position } = this.#run(offset + done, into.length - done);
      const part = into.subarray(done, done + length);
      if (position === undefined) part.fill(0);
      else await readPadded(this.#file, position, part);
      done += length;
    }
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    await writeAllocated((at, length) => this.#allocate(at, length), offset, from);
    if (this.#context.mode.cache.writethrough) await this.flush();
  }

  /** Nothing in the format says "zero": they are written. */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    await writeZeroData(this, offset, length, flags, (at, zeros) => this.write(at, zeros));
  }

  /** Blocks stay where they are. */
  discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    return Promise.resolve();
  }

  async extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    const { length: run, position } = this.#run(offset, length);
    if (position === undefined) return { length: run, state: "zero", compressed: false };
    const extent = {
      length: run,
      state: "data",
      compressed: false,
      file: this.#file,
      offset: position,
    } as const;
    // Only there holes are of any interest to the reference.
    if (!this.#header.isStatic) return extent;
    return { ...extent, ...await hostHole(this.#file, position, run) };
  }

  async flush(): Promise<void> {
    if (this.readOnly) return;
    await this.#lock.run(() => this.#store());
    await this.#barrier();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#file.allocatedSize();
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve({ clusterSize: BLOCK_SIZE, dirty: false });
  }

  readsZeroWhenNew(): Promise<boolean> {
    if (!this.#header.isStatic) return Promise.resolve(true);
    return this.#file.readsZeroWhenNew?.() ?? Promise.resolve(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      if (!this.readOnly) await this.flush();
    } finally {
      await this.#file[Symbol.asyncDispose]();
    }
  }

  /** How far the disk goes on like at `offset`, and where that is in the file. */
  #run(offset: number, most: number): { length: number; position: number | undefined } {
    const first = Math.floor(offset / BLOCK_SIZE);
    const skip = offset % BLOCK_SIZE;
    const isStored = this.#map.has(first);
    const block = this.#map.get(first);
    let length = BLOCK_SIZE - skip;
    for (let index = first + 1; length < most; index++) {
      const goesOn = isStored
        ? this.#map.get(index) === block + index - first
        : !this.#map.has(index);
      if (!goesOn) break;
      length += BLOCK_SIZE;
    }
    const position = isStored ? this.#position(block) + skip : undefined;
    return { length: Math.min(length, most), position };
  }

  #position(block: number): number {
    return this.#header.dataOffset + block * BLOCK_SIZE;
  }

  /** Space for a prefix of a range, within one block or blocks that there are already. */
  #allocate(offset: number, most: number): Promise<Allocation> {
    return this.#lock.run(async () => {
      requireRange(this, offset, most);
      const known = this.#run(offset, most);
      if (known.position !== undefined) {
        return {
          length: known.length,
          file: this.#file,
          offset: known.position,
          publish: () => Promise.resolve(),
          abandon: () => Promise.resolve(),
        };
      }
      const index = Math.floor(offset / BLOCK_SIZE);
      const skip = offset % BLOCK_SIZE;
      const length = Math.min(BLOCK_SIZE - skip, most);
      let pending = this.#pending.get(index);
      if (pending === undefined) {
        pending = { block: this.#map.take(), users: 0 };
        try {
          await this.#fillAround(this.#position(pending.block), skip, length);
        } catch (error) {
          this.#map.giveBack(pending.block);
          throw error;
        }
        this.#pending.set(index, pending);
      }
      pending.users++;
      return {
        length,
        file: this.#file,
        offset: this.#position(pending.block) + skip,
        publish: () => this.#lock.run(() => this.#end(index, pending, true)),
        abandon: () => this.#lock.run(() => this.#end(index, pending, false)),
      };
    });
  }

  /** Ends one use of a new block; the first that is published makes it a part of the disk. */
  #end(index: number, pending: PendingBlock, isFilled: boolean): void {
    if (isFilled && this.#map.get(index) !== pending.block) this.#map.set(index, pending.block);
    if (--pending.users > 0) return;
    this.#pending.delete(index);
    if (this.#map.get(index) !== pending.block) this.#map.giveBack(pending.block);
  }

  /** A block is always written whole, and its place may have held something else. */
  async #fillAround(position: number, skip: number, length: number): Promise<void> {
    const zero = async (from: number, to: number) => {
      for (let at = from; at < to; at += ZEROS.length) {
        await this.#file.write(position + at, ZEROS.subarray(0, to - at));
      }
    };
    await zero(0, skip);
    await zero(skip + length, BLOCK_SIZE);
  }

  /** What entries name has to be safe before they are. */
  async #store(): Promise<void> {
    if (!this.#map.isChanged) return;
    await this.#barrier();
    await this.#map.store(() => this.#barrier());
  }

  async #barrier(): Promise<void> {
    await this.#file.flush();
  }
}
