import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import { alignDown, alignUp } from "../../lib/bytes/align.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { applyChanges } from "./apply.ts";
import { findChanges } from "./changes.ts";
import type { DiskRun, FolderDisk } from "./folder_disk.ts";
import { CLUSTER, type Layout, SECTOR, VOLUME_FLAGS } from "./layout.ts";
import { Overlay } from "./overlay.ts";
import { parseDisk } from "./parse.ts";

/**
 * The changes of a disk: kept apart as they are written, and made in its folder once the file system is
 * whole.
 */
export class WriteBack {
  readonly #disk: FolderDisk;
  readonly #layout: Layout;
  readonly #context: DriverContext;
  readonly #overlay: Overlay;
  readonly #mutex = new Mutex();
  /** Clusters that were written since the folder was like the disk. */
  readonly #changed = new Set<number>();
  #dirty = false;
  /** The folder could not be made like the disk, and somebody knows. */
  #failed = false;

  /** Takes the changes of `disk`. Opens a temporary file. */
  constructor(disk: FolderDisk, layout: Layout, context: DriverContext) {
    this.#disk = disk;
    this.#layout = layout;
    this.#context = context;
    this.#overlay = new Overlay(layout.length);
  }

  /** Fills `into` from `offset`, as it was written last. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    // Files change their names meanwhile.
    if (this.#mutex.busy) await this.#mutex.run(() => this.#read(offset, into));
    else await this.#read(offset, into);
  }

  async #read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length;) {
      const run = this.#overlay.run(offset + done, into.length - done);
      const part = into.subarray(done, done + run.length);
      if (run.written) this.#overlay.read(offset + done, part);
      else await this.#disk.read(offset + done, part);
      done += run.length;
    }
  }

  /** The first run at `offset`, of `length` bytes at most, of which all or nothing is there. */
  run(offset: number, length: number): DiskRun {
    const { written, length: same } = this.#overlay.run(offset, length);
    return written ? { free: false, length: same } : this.#disk.run(offset, same);
  }

  /**
   * Writes what may be written: all but the partition table and the boot sector.
   *
   * @throws {ImageError} `EPERM`
   */
  async write(offset: number, from: Uint8Array): Promise<void> {
    await this.#mutex.run(async () => {
      const begin = alignDown(offset, SECTOR);
      const end = alignUp(offset + from.length, SECTOR);
      let whole = from;
      if (begin !== offset || end !== offset + from.length) {
        whole = new Uint8Array(end - begin);
        await this.#read(begin, whole);
        whole.set(from, offset - begin);
      }
      await this.#requireSameHead(begin, whole);
      this.#overlay.write(begin, whole);
      const { root } = this.#layout;
      const first = Math.max(Math.floor((begin - root) / CLUSTER), 0);
      for (let cluster = first; root + cluster * CLUSTER < end; cluster++) {
        this.#changed.add(cluster);
      }
      this.#dirty = true;
      this.#failed = false;
    });
  }

  /** What says where everything is stays as it is. A volume may be marked as in use. */
  async #requireSameHead(offset: number, bytes: Uint8Array): Promise<void> {
    const { boot, fat } = this.#layout;
    const length = Math.min(fat - offset, bytes.length);
    if (length <= 0) return;
    const before = new Uint8Array(length);
    await this.#read(offset, before);
    const flags = boot + VOLUME_FLAGS - offset;
    if (flags >= 0 && flags < length) before[flags] = bytes[flags]!;
    if (equalBytes(before, bytes.subarray(0, length))) return;
    this.#context.report("Tried to write to protected bootsector");
    throw ImageError.fromErrno("EPERM", { file: this.#context.filename });
  }

  /**
   * Makes the folder like the disk. If it throws the folder is as it was, and the changes are still there.
   *
   * @throws {ImageError} for a file system that is not whole, and for what cannot or must not be done.
   */
  async commit(): Promise<void> {
    await this.#mutex.run(async () => {
      if (!this.#dirty) return;
      try {
        const read = (offset: number, into: Uint8Array) => this.#read(offset, into);
        const parsed = await parseDisk({ read }, this.#layout);
        const changes = await findChanges(this.#disk, parsed, {
          changed: this.#changed,
          read,
          clusterOffset: (cluster) => this.#layout.root + cluster * CLUSTER,
        });
        this.#disk.tree = await applyChanges(changes, this.#context);
      } catch (error) {
        this.#failed = true;
        throw ImageError.from(error, { file: this.#context.filename }).prefixed(
          `Could not write changes back to '${this.#disk.tree.top.path}': `,
        );
      }
      this.#changed.clear();
      this.#dirty = false;
    });
  }

  /** Makes the folder like the disk, if nobody has been told yet that it cannot be, and lets go of it. */
  async close(): Promise<void> {
    try {
      if (!this.#failed) await this.commit();
    } finally {
      this.#overlay.close();
      this.#dirty = false;
    }
  }
}
