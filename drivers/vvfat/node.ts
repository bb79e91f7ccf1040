import type { DriverContext } from "../../lib/block/driver.ts";
import type { BlockNode, Extent, NodeAddress, NodeLimits } from "../../lib/block/node.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import type { FolderDisk } from "./folder_disk.ts";
import { type Layout, SECTOR } from "./layout.ts";
import type { WriteBack } from "./write_back.ts";

/** Zeros are written in pieces of this many bytes. */
const ZERO_PIECE = 1 << 20;

/** What is known of a node beside its disk. */
export interface NodeCircumstances {
  /** Names, mode. */
  readonly context: DriverContext;
  /** Places on the disk. */
  readonly layout: Layout;
  /** How to get at the disk again. */
  readonly address: NodeAddress;
}

/** A folder as a disk. */
export class FolderNode implements BlockNode {
  readonly driver = "vvfat";
  readonly length: number;
  readonly limits: NodeLimits = { requestAlignment: SECTOR, clusterSize: 0, zeroAlignment: 0 };
  readonly children: BlockNode["children"] = [];
  readonly address: NodeAddress;
  readonly #disk: FolderDisk;
  readonly #context: DriverContext;
  readonly #changes: WriteBack | undefined;

  /** A disk, and what takes its changes where it can be written. */
  constructor(disk: FolderDisk, shown: NodeCircumstances, changes: WriteBack | undefined) {
    this.length = shown.layout.length;
    this.address = shown.address;
    this.#disk = disk;
    this.#context = shown.context;
    this.#changes = changes;
  }

  get filename(): string {
    return this.#context.filename;
  }

  get readOnly(): boolean {
    return this.#changes === undefined;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await (this.#changes ?? this.#disk).read(offset, into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    await this.#changes!.write(offset, from);
    if (this.#context.mode.cache.writethrough) await this.flush();
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(length, ZERO_PIECE));
    for (let done = 0; done < length; done += ZERO_PIECE) {
      await this.write(offset + done, zeros.subarray(0, Math.min(length - done, ZERO_PIECE)));
    }
  }

  discard(): Promise<void> {
    // Deleted files go when the file system says so.
    return Promise.resolve();
  }

  extent(_offset: number, length: number): Promise<Extent> {
    return Promise.resolve({ length, state: "data", compressed: false });
  }

  locate(offset: number, length: number): Promise<Extent> {
    const run = (this.#changes ?? this.#disk).run(offset, length);
    return Promise.resolve({
      length: run.length,
      state: run.free ? "zero" : "data",
      compressed: false,
    });
  }

  async flush(): Promise<void> {
    if (!this.#context.mode.cache.noFlush) await this.#changes?.commit();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Makes the folder like the disk, and lets go of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#changes?.close();
    } finally {
      this.#disk.close();
    }
  }
}
