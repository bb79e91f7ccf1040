/**
 * What an open image consists of, and where guest bytes are in it (section 3 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { divideUp } from "../../lib/bytes/align.ts";
import { CodecError, loadCodec } from "../../lib/codec/mod.ts";
import { type QcowHeader, SECTOR } from "./header.ts";
import { Tables } from "./tables.ts";

const COMPRESSED = 0x80000000;

/** A run of guest bytes with one state. */
export type Run =
  & {
    /** Bytes, from where the run was asked for. */
    readonly length: number;
  }
  & (
    /** `damaged`: there is an entry that leads to no sector. */
    | { readonly kind: "absent" | "damaged" }
    /** `position`: of the first byte, in the file. */
    | { readonly kind: "plain"; readonly position: number }
    /** A part of one cluster; `position`: of its stream of at most `packedLength` bytes. */
    | { readonly kind: "packed"; readonly position: number; readonly packedLength: number }
  );

/** An open image. */
export class QcowImage {
  /** The file that holds it. */
  readonly file: BlockNode;
  /** Its header. */
  readonly header: QcowHeader;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** Its tables. */
  readonly tables: Tables;
  /** The encryption of guest data, `undefined` if there is none, or no key. */
  readonly encryption: DataEncryption | undefined;
  /** The open backing file. */
  backing: BlockNode | null = null;
  #inflated: { readonly position: number; readonly bytes: Uint8Array } | undefined;
  /** Grows with all that is written, so that nothing older is remembered. */
  #generation = 0;

  /** An image in `file`. */
  constructor(
    file: BlockNode,
    header: QcowHeader,
    context: DriverContext,
    encryption: DataEncryption | undefined,
  ) {
    this.file = file;
    this.header = header;
    this.context = context;
    this.encryption = encryption;
    this.tables = new Tables(file, header);
  }

  /** Flushes the file, unless flushes are not wanted (`cache.no-flush`). */
  async barrier(): Promise<void> {
    if (!this.context.mode.cache.noFlush) await this.file.flush();
  }

  /** The first run at a guest offset. A promise where a table has to be read. */
  runAt(offset: number, length: number): Run | Promise<Run> {
    return this.#peekRun(offset, length) ?? this.#loadRun(offset, length);
  }

  /**
   * Reads guest bytes, through the backing file where nothing is stored.
   *
   * @throws {ImageError} `EIO` for damaged entries and streams.
   */
  async read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length;) {
      const at = offset + done;
      const run = await this.runAt(at, into.length - done);
      const part = into.subarray(done, done + run.length);
      switch (run.kind) {
        case "absent":
          await this.#readBehind(at, part);
          break;
        case "damaged":
          throw this.damaged("L2 table");
        case "packed":
          await this.#readPacked(run.position, run.packedLength, at, part);
          break;
        case "plain":
          if (this.encryption === undefined) await readPadded(this.file, run.position, part);
          else await this.encryption.read(this.file, { host: run.position, guest: at }, part);
      }
      done += run.length;
    }
  }

  /** The first run at a guest offset as others see it. */
  extent(offset: number, length: number): Promise<Extent> {
    try {
      const run = this.runAt(offset, length);
      return run instanceof Promise
        ? run.then((run) => this.#extentOf(run, offset))
        : Promise.resolve(this.#extentOf(run, offset));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Whether a range is known to read as zeros because nothing is stored for it anywhere. */
  isEmptyBehind(offset: number): boolean {
    return this.backing === null || offset >= this.backing.length;
  }

  /** Forgets what was inflated: it may be another one by now. */
  forget(): void {
    this.#inflated = undefined;
    this.#generation++;
  }

  /** The error for damage in a structure. */
  damaged(field: string, cause?: unknown): ImageError {
    return ImageError.fromErrno("EIO", { file: this.context.filename, field, cause });
  }

  #extentOf(run: Run, offset: number): Extent {
    const { length } = run;
    switch (run.kind) {
      case "absent":
        return { length, state: "unallocated", compressed: false };
      case "damaged":
        return { length, state: "data", compressed: false };
      case "packed": {
        const { clusterSize } = this.header;
        const extent = { length, state: "data", compressed: true } as const;
        if (run.packedLength === 0) return extent;
        return {
          ...extent,
          packed: {
            file: this.file,
            offset: run.position,
            length: run.packedLength,
            codec: "deflate",
            size: clusterSize,
            skip: offset % clusterSize,
          },
        };
      }
      case "plain": {
        const extent = { length, state: "data", compressed: false } as const;
        if (this.header.isEncrypted) return extent;
        return { ...extent, file: this.file, offset: run.position };
      }
    }
  }

  async #loadRun(offset: number, length: number): Promise<Run> {
    for (;;) {
      const { clusterSize, l2Entries } = this.header;
      await this.tables.load(Math.floor(offset / (clusterSize * l2Entries)));
      const run = this.#peekRun(offset, length);
      if (run !== undefined) return run;
    }
  }

  #peekRun(offset: number, most: number): Run | undefined {
    const { clusterBits, clusterSize, l2Entries } = this.header;
    const span = clusterSize * l2Entries;
    const index = Math.floor(offset / span);
    const table = this.tables.peek(index);
    if (table === undefined) return undefined;
    if (table === null) {
      const end = (index + this.tables.countEmpty(index)) * span;
      return { kind: "absent", length: Math.min(end - offset, most) };
    }
    const { entries } = table;
    const first = Math.floor(offset % span / clusterSize);
    const skip = offset % clusterSize;
    const [high, low] = [entries.getUint32(first * 8), entries.getUint32(first * 8 + 4)];
    const one = Math.min(clusterSize - skip, most);
    if (high >= COMPRESSED) {
      // The length has as many bits as offsets within a cluster, right below the flag.
      const bits = 31 - clusterBits;
      return {
        kind: "packed",
        length: one,
        position: (high & (1 << bits) - 1) * 2 ** 32 + low,
        packedLength: high >>> bits & clusterSize - 1,
      };
    }
    const position = high * 2 ** 32 + low;
    if (position % SECTOR !== 0) return { kind: "damaged", length: one };
    const end = Math.min(first + divideUp(skip + most, clusterSize), l2Entries);
    const step = position === 0 ? 0 : clusterSize;
    let next = position;
    let entry = first + 1;
    for (; entry < end; entry++) {
      next += step;
      const isNext = entries.getUint32(entry * 8 + 4) === next % 2 ** 32 &&
        entries.getUint32(entry * 8) === Math.floor(next / 2 ** 32);
      if (!isNext) break;
    }
    const length = Math.min((entry - first) * clusterSize - skip, most);
    return position === 0
      ? { kind: "absent", length }
      : { kind: "plain", length, position: position + skip };
  }

  async #readBehind(offset: number, into: Uint8Array): Promise<void> {
    const { backing } = this;
    const available = backing === null
      ? 0
      : Math.min(Math.max(backing.length - offset, 0), into.length);
    if (available > 0) await backing!.read(offset, into.subarray(0, available));
    into.fill(0, available);
  }

  /** Reads a part of a compressed cluster, and keeps the cluster: who reads little reads what follows next. */
  async #readPacked(
    position: number,
    length: number,
    offset: number,
    into: Uint8Array,
  ): Promise<void> {
    const { clusterSize } = this.header;
    const skip = offset % clusterSize;
    let bytes = this.#inflated?.position === position ? this.#inflated.bytes : undefined;
    if (bytes === undefined) {
      const generation = this.#generation;
      const packed = new Uint8Array(length);
      await readPadded(this.file, position, packed);
      const codec = await loadCodec("deflate");
      bytes = new Uint8Array(clusterSize);
      try {
        codec.unpack(packed, bytes);
      } catch (error) {
        if (!(error instanceof CodecError)) throw error;
        throw this.damaged("compressed cluster", error);
      }
      if (generation === this.#generation) this.#inflated = { position, bytes };
    }
    into.set(bytes.subarray(skip, skip + into.length));
  }
}
