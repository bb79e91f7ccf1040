/**
 * Writing guest bytes: which extent they go to, and how.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { ZeroFlags } from "../../lib/block/node.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";
import type { DiskExtent } from "./extent.ts";
import { GrainWriter } from "./grain_writer.ts";
import type { VmdkImage } from "./image.ts";
import { StreamWriter } from "./stream_writer.ts";

/** Writes to all extents of an image. */
export class DiskWriter {
  /** Writes to the one extent of an image that is compressed. */
  readonly stream: StreamWriter | undefined;
  readonly #image: VmdkImage;
  readonly #grains = new Map<DiskExtent, GrainWriter>();

  /** A writer for an image that was opened for writing. */
  constructor(image: VmdkImage) {
    this.#image = image;
    const { extents } = image.facts;
    const [first] = extents;
    if (extents.length === 1 && first?.kind === "grains" && first.packed && first.header) {
      this.stream = new StreamWriter(image, first, first.header);
      return;
    }
    for (const extent of extents) {
      if (extent.kind === "grains" && extent.packed === undefined) {
        this.#grains.set(extent, new GrainWriter(image, extent));
      }
    }
  }

  /** Writes guest bytes. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    if (this.stream !== undefined) return await this.stream.write(offset, from);
    for (let done = 0; done < from.length;) {
      const { extent, at, length } = this.#part(offset + done, from.length - done);
      const bytes = from.subarray(done, done + length);
      if (extent.kind === "flat") {
        await this.#image.markWritten();
        await extent.file.write(extent.offset + at, bytes);
      } else await this.#grainWriter(extent).write(at, bytes);
      done += length;
    }
  }

  /**
   * Makes a guest range zero: whole grains by their entries where tables can say so, the rest by zeros that
   * are written.
   *
   * @throws {ImageError} `ENOTSUP` with `flags.noFallback` where zeros would have to be written.
   */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    for (let done = 0; done < length;) {
      const { extent, at, length: part } = this.#part(offset + done, length - done);
      await this.#zeroPart(extent, at, part, flags);
      done += part;
    }
  }

  /** Space for a prefix of a guest range. */
  async allocate(offset: number, length: number): Promise<Allocation> {
    const { extent, at, length: part } = this.#part(offset, length);
    if (extent.kind === "grains") return await this.#grainWriter(extent).allocate(at, part);
    await this.#image.markWritten();
    return {
      length: part,
      file: extent.file,
      offset: extent.offset + at,
      publish: () => Promise.resolve(),
      abandon: () => Promise.resolve(),
    };
  }

  /** Brings everything into the files. */
  async flush(): Promise<void> {
    if (this.stream !== undefined) return await this.stream.commit();
    for (const writer of this.#grains.values()) await writer.flush();
    for (const { kind, file } of this.#image.facts.extents) {
      if (kind === "flat") await this.#image.barrier(file);
    }
  }

  /** After every write, where writes go through to the disk. A stream ends only when it is told to. */
  async flushThrough(): Promise<void> {
    if (this.stream === undefined) await this.flush();
  }

  #part(offset: number, length: number): { extent: DiskExtent; at: number; length: number } {
    const extent = this.#image.extentAt(offset);
    const at = offset - extent.start;
    return { extent, at, length: Math.min(length, extent.length - at) };
  }

  #grainWriter(extent: DiskExtent): GrainWriter {
    const writer = this.#grains.get(extent);
    if (writer !== undefined) return writer;
    // A compressed extent among others.
    throw ImageError.fromErrno("EINVAL", { file: extent.file.filename, field: "grain" });
  }

  async #zeroPart(
    extent: DiskExtent,
    at: number,
    length: number,
    flags: ZeroFlags,
  ): Promise<void> {
    if (extent.kind === "flat") {
      await this.#image.markWritten();
      await extent.file.writeZeroes(extent.offset + at, length, { ...flags, unmap: false });
      return;
    }
    const { grainSize, zeroGrains } = extent;
    const writer = this.#grains.get(extent);
    const first = Math.ceil(at / grainSize) * grainSize;
    const end = Math.floor((at + length) / grainSize) * grainSize;
    const isByEntry = zeroGrains && writer !== undefined && first < end &&
      !writer.isPending(first, end - first);
    if (!isByEntry) return await this.#writeZeros(extent, at, length, flags);
    if (at < first) await this.#writeZeros(extent, at, first - at, flags);
    await writer.zero(first, end - first);
    if (end < at + length) await this.#writeZeros(extent, end, at + length - end, flags);
  }

  async #writeZeros(
    { start, file }: DiskExtent,
    at: number,
    length: number,
    flags: ZeroFlags,
  ): Promise<void> {
    await writeZeroData(
      file,
      start + at,
      length,
      flags,
      (offset, zeros) => this.write(offset, zeros),
    );
  }
}
