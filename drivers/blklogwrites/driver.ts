/**
 * The filter that keeps a log of all writes, to replay them up to any point. Command-line reference,
 * section 4.3.
 *
 * @module
 */
import { closeAll } from "../../lib/block/close_all.ts";
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { FilterNode } from "../../lib/block/filter_node.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode, Extent, NodeLimits, ZeroFlags } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { padWrite } from "../../lib/block/pad_write.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { alignDown, alignUp } from "../../lib/bytes/align.ts";
import { DISCARD, FLUSH, type LogEntry, WriteLog } from "./log.ts";

const APPEND = "log-append";
const SECTOR_SIZE = "log-sector-size";
const INTERVAL = "log-super-update-interval";
const DEFAULT_SECTOR_SIZE = 512;
const DEFAULT_INTERVAL = 4096;

/** The driver. */
export const blklogwrites: FormatDriver = {
  name: "blklogwrites",
  transparent: true,
  openOptions: [
    { name: APPEND, type: "bool", help: "Go on with a log that is there", strong: true },
    { name: SECTOR_SIZE, type: "size", help: "Sector size of the log", strong: true },
    { name: INTERVAL, type: "num", help: "Entries after which the superblock is written" },
  ],
  open: openBlklogwrites,
};

async function openBlklogwrites(
  file: BlockNode,
  options: OptionSet,
  context: DriverContext,
): Promise<BlockNode> {
  options.settled();
  const log = await context.requireChild!({ name: "log", as: "file" });
  try {
    return new BlklogwritesNode(file, log, await openLog(log, options), context);
  } catch (error) {
    await log[Symbol.asyncDispose]();
    throw error;
  }
}

async function openLog(log: BlockNode, options: OptionSet): Promise<WriteLog> {
  const append = options.flag(APPEND);
  if (append && options.has(SECTOR_SIZE)) {
    throw invalid("log-append and log-sector-size are mutually exclusive", SECTOR_SIZE);
  }
  const interval = options.number(INTERVAL) ?? DEFAULT_INTERVAL;
  const sectorSize = options.number(SECTOR_SIZE) ?? DEFAULT_SECTOR_SIZE;
  const opened = append
    ? await WriteLog.resume(log, { sectorSize, interval })
    : WriteLog.begin(log, { sectorSize, interval });
  if (interval === 0) throw invalid("Invalid log superblock update interval 0", INTERVAL);
  return opened;
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

/** A node whose writes are logged, in whole sectors of the log. Nobody gets at the file but through it. */
export class BlklogwritesNode extends FilterNode {
  readonly driver = "blklogwrites";
  readonly #log: WriteLog;
  readonly #logFile: BlockNode;
  readonly #context: DriverContext;
  /** The log has to have the writes in the order in which they change the disk. */
  readonly #writes = new Mutex();
  /** Nothing was logged since the last flush. */
  #flushed = true;
  #closed = false;

  /** A node on `file` whose log is in `logFile`; both are closed with it. */
  constructor(file: BlockNode, logFile: BlockNode, log: WriteLog, context: DriverContext) {
    super(file, context, [{ name: "log", node: logFile }]);
    this.#log = log;
    this.#logFile = logFile;
    this.#context = context;
  }

  override get limits(): NodeLimits {
    return { ...this.filtered.limits, requestAlignment: this.#log.sectorSize };
  }

  override async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    await this.#writes.run(() => this.#write(offset, from));
  }

  override async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    if (length === 0) return;
    await this.#writes.run(async () => {
      const { first, last } = this.#wholeSectors(offset, length);
      // Parts of sectors are written as data, so that what is beside them stays.
      if (last <= first) return await this.#write(offset, new Uint8Array(length));
      if (first > offset) await this.#write(offset, new Uint8Array(first - offset));
      await this.#add({ offset: first, length: last - first });
      // The log has no word for space that is given back with it.
      await this.filtered.writeZeroes(first, last - first, { ...flags, unmap: false });
      const rest = offset + length - last;
      if (rest > 0) await this.#write(last, new Uint8Array(rest));
    });
  }

  override async discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    if (!this.#context.mode.unmap) return;
    await this.#writes.run(async () => {
      const { first, last } = this.#wholeSectors(offset, length);
      if (last <= first) return;
      await this.#add({ offset: first, length: last - first, flags: DISCARD });
      await this.filtered.discard(first, last - first);
    });
  }

  override async flush(): Promise<void> {
    if (this.readOnly || this.#context.mode.cache.noFlush) return await this.filtered.flush();
    await this.#writes.run(async () => {
      await this.#log.add({ offset: 0, length: 0, flags: FLUSH });
      this.#flushed = true;
      await this.filtered.flush();
    });
  }

  /** As the node below has it: nothing is lost by reading past this one. */
  override extent(offset: number, length: number): Promise<Extent> {
    return this.filtered.extent(offset, length);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await closeAll([
      () => this.#flushed ? undefined : this.flush(),
      () => this.#log.finish(),
      () => this.#logFile[Symbol.asyncDispose](),
      () => this.filtered[Symbol.asyncDispose](),
    ]);
  }

  async #write(offset: number, from: Uint8Array): Promise<void> {
    const { sectorSize } = this.#log;
    const { offset: first, bytes } = await padWrite(offset, from, {
      unit: sectorSize,
      end: alignUp(this.length, sectorSize),
      read: (at, into) => this.#readSectors(at, into),
    });
    await this.#add({ offset: first, length: bytes.length, bytes });
    // A disk need not end with a sector of the log.
    const end = Math.max(offset + from.length, this.length);
    await this.filtered.write(first, bytes.subarray(0, end - first));
  }

  async #add(entry: LogEntry): Promise<void> {
    this.#flushed = false;
    await this.#log.add(entry);
  }

  /** What lies behind the end reads as zeros. */
  async #readSectors(offset: number, into: Uint8Array): Promise<void> {
    const length = Math.max(Math.min(into.length, this.length - offset), 0);
    if (length > 0) await this.filtered.read(offset, into.subarray(0, length));
  }

  #wholeSectors(offset: number, length: number): { first: number; last: number } {
    const { sectorSize } = this.#log;
    return {
      first: alignUp(offset, sectorSize),
      last: alignDown(offset + length, sectorSize),
    };
  }
}
