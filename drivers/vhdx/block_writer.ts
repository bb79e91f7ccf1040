/**
 * Space for blocks, and the entries that lead to them (section 3 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { BlockState, MIB } from "./_layout.ts";
import type { VhdxImage } from "./image.ts";
import { LogWriter } from "./log_writer.ts";

/** A block that was taken for a part of the disk, until an entry leads to it. */
interface PendingBlock {
  /** Where it is, bytes. */
  readonly position: number;
  /** Allocations in it that have not ended. */
  users: number;
  /** An entry leads to it. */
  isLinked: boolean;
  /** An entry may lead to it one day: what was wrong on the way cannot be told. */
  isLost: boolean;
}

/** Gives guest ranges of an image that was opened for writing their space. */
export class BlockWriter {
  readonly #image: VhdxImage;
  readonly #log: LogWriter;
  readonly #lock = new Mutex();
  readonly #pending = new Map<number, PendingBlock>();
  /** Blocks that were taken and given back, by their positions. What is in them is anything. */
  readonly #returned: number[] = [];
  #isMarked = false;

  /** A writer to an image without parent. */
  constructor(image: VhdxImage) {
    this.#image = image;
    this.#log = new LogWriter(image.file, image.headers);
  }

  /**
   * Space for a prefix of a range, within one block.
   *
   * @throws {ImageError} `EIO` for a block of a differencing image.
   */
  allocate(offset: number, most: number): Promise<Allocation> {
    return this.#lock.run(async () => {
      const { table, file, metadata: { blockSize } } = this.#image;
      const block = Math.floor(offset / blockSize);
      const skip = offset % blockSize;
      const length = Math.min(blockSize - skip, most);
      const entry = await table.entry(block);
      await this.#mark();
      switch (entry.state) {
        case BlockState.fullyPresent:
          return {
            length,
            file,
            offset: entry.offset + skip,
            publish: () => Promise.resolve(),
            abandon: () => Promise.resolve(),
          };
        case BlockState.notPresent:
        case BlockState.undefined:
        case BlockState.zero:
        case BlockState.unmapped:
        case BlockState.unmappedDraft:
          return await this.#allocateNew(block, skip, length);
        default:
          throw ImageError.fromErrno("EIO", {
            file: file.filename,
            field: `block allocation table: state ${entry.state}`,
          });
      }
    });
  }

  async #allocateNew(block: number, skip: number, length: number): Promise<Allocation> {
    const { file } = this.#image;
    let pending = this.#pending.get(block);
    if (pending === undefined) {
      pending = { position: await this.#take(), users: 0, isLinked: false, isLost: false };
      this.#pending.set(block, pending);
    }
    const found = pending;
    found.users++;
    const offset = found.position + skip;
    return {
      length,
      file,
      offset,
      publish: () => this.#lock.run(() => this.#publish(block, found)),
      abandon: () =>
        this.#lock.run(async () => {
          try {
            // Others may have the block become a part of the disk, in which this is zero.
            if (found.users > 1 || found.isLinked) {
              await file.writeZeroes(offset, length, { unmap: true });
            }
          } finally {
            await this.#leave(block, found);
          }
        }),
    };
  }

  /** Before the guest sees other data for the first time, the headers say that it will. */
  async #mark(): Promise<void> {
    if (this.#isMarked) return;
    await this.#image.headers.update({ data: true });
    this.#isMarked = true;
  }

  /** A block of zeros. */
  async #take(): Promise<number> {
    const { file, metadata: { blockSize } } = this.#image;
    const returned = this.#returned.at(-1);
    if (returned !== undefined) {
      await file.writeZeroes(returned, blockSize, { unmap: true });
      this.#returned.pop();
      return returned;
    }
    const position = alignUp(file.length, MIB);
    await file.resize(position + blockSize, "off");
    return position;
  }

  async #publish(block: number, pending: PendingBlock): Promise<void> {
    const { table } = this.#image;
    try {
      if (pending.isLinked) return;
      const entry = { state: BlockState.fullyPresent, offset: pending.position };
      const { position, bytes } = await table.changedSector(block, entry);
      pending.isLost = true;
      await this.#log.change(position, bytes);
      table.changed(position, bytes);
      [pending.isLinked, pending.isLost] = [true, false];
    } finally {
      await this.#leave(block, pending);
    }
  }

  async #leave(block: number, pending: PendingBlock): Promise<void> {
    const { file, metadata: { blockSize } } = this.#image;
    if (--pending.users > 0) return;
    this.#pending.delete(block);
    if (pending.isLinked || pending.isLost) return;
    const end = pending.position + blockSize;
    if (file.length === end) await file.resize(pending.position, "off");
    else this.#returned.push(pending.position);
  }
}
