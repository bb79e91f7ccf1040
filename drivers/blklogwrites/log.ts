/**
 * The log of writes: a superblock and one entry a request, each in sectors of the log, the data behind its
 * entry. The layout is that of Linux's `dm-log-writes`, version 1; all numbers are little-endian.
 *
 * | superblock | entry |
 * |---|---|
 * | 0: magic, 8 bytes | 0: first sector, 8 bytes |
 * | 8: version, 8 bytes | 8: number of sectors, 8 bytes |
 * | 16: number of entries, 8 bytes | 16: flags, 8 bytes |
 * | 24: bytes of a sector, 4 bytes | 24: 0, 8 bytes |
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { alignUp, isPowerOfTwo } from "../../lib/bytes/align.ts";
import { readU32LE, readU64LE, writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";

const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
const HEADER = 32;
const MIN_SECTOR = 32;
const MAX_SECTOR = 1 << 23;

/** What an entry is beside a write. */
export const FLUSH = 1n;
/** Sectors that are of no use any more; there are no data. */
export const DISCARD = 4n;

/** A request. All in bytes, whole sectors of the log. */
export interface LogEntry {
  /** Where it begins. */
  readonly offset: number;
  /** How long it is. */
  readonly length: number;
  /** `FLUSH`, `DISCARD` or nothing. */
  readonly flags?: bigint;
  /** What is written; absent for zeros. */
  readonly bytes?: Uint8Array;
}

/** How a log is kept. */
export interface LogSettings {
  /** Bytes of a sector. */
  readonly sectorSize: number;
  /** The superblock is written after as many entries. */
  readonly interval: number;
}

/** Where a log goes on. */
interface Position {
  /** Bytes, a multiple of the sector size. */
  readonly end: number;
  readonly entries: bigint;
}

/** A log that is being written. */
export class WriteLog {
  /** Bytes of a sector. */
  readonly sectorSize: number;
  readonly #file: BlockNode;
  readonly #interval: bigint;
  /** Two superblocks at once might end in the wrong order. */
  readonly #superblock = new Mutex();
  #end: number;
  #entries: bigint;
  /** Entries that the superblock knows of. */
  #told: bigint;

  private constructor(file: BlockNode, settings: LogSettings, { end, entries }: Position) {
    this.#file = file;
    this.sectorSize = settings.sectorSize;
    this.#interval = BigInt(settings.interval);
    this.#end = end;
    this.#entries = entries;
    this.#told = entries;
  }

  /**
   * Begins a log. Nothing is written before the first entry.
   *
   * @throws {ImageError} `Invalid log sector size …`
   */
  static begin(file: BlockNode, settings: LogSettings): WriteLog {
    requireSectorSize(settings.sectorSize, file);
    return new WriteLog(file, settings, { end: settings.sectorSize, entries: 0n });
  }

  /**
   * Goes on with a log; one without a byte is begun with sectors of `sectorSize` bytes.
   *
   * @throws {ImageError} for what is no log.
   */
  static async resume(file: BlockNode, settings: LogSettings): Promise<WriteLog> {
    if (file.length === 0) return WriteLog.begin(file, settings);
    const head = new Uint8Array(HEADER);
    await file.read(0, head);
    if (readU64LE(head, 0) !== MAGIC) throw invalid("Invalid log superblock magic", file);
    const version = readU64LE(head, 8);
    if (version !== VERSION) throw invalid(`Unsupported log version ${version}`, file);
    const sectorSize = readU32LE(head, 24);
    requireSectorSize(sectorSize, file);
    const entries = readU64LE(head, 16);
    const end = await findEnd(file, sectorSize, entries);
    return new WriteLog(file, { ...settings, sectorSize }, { end, entries });
  }

  /** Adds an entry with its data. */
  async add({ offset, length, flags = 0n, bytes }: LogEntry): Promise<void> {
    const { sectorSize } = this;
    const at = this.#end;
    const stored = flags === 0n ? length : 0;
    this.#end = at + sectorSize + stored;
    const entries = ++this.#entries;
    const entry = new Uint8Array(sectorSize + (bytes === undefined ? 0 : stored));
    writeU64LE(entry, 0, offset / sectorSize);
    writeU64LE(entry, 8, length / sectorSize);
    writeU64LE(entry, 16, flags);
    if (bytes !== undefined) entry.set(bytes, sectorSize);
    await this.#file.write(at, entry);
    if (bytes === undefined && stored > 0) {
      await this.#file.writeZeroes(at + sectorSize, stored, { unmap: false });
    }
    if (flags === FLUSH || entries % this.#interval === 0n) await this.#tell();
    if (flags === FLUSH) await this.#file.flush();
  }

  /** Writes the superblock if there are entries that it does not know of. */
  async finish(): Promise<void> {
    if (this.#told !== this.#entries) await this.#tell();
  }

  #tell(): Promise<void> {
    return this.#superblock.run(async () => {
      const entries = this.#entries;
      const sector = new Uint8Array(this.sectorSize);
      writeU64LE(sector, 0, MAGIC);
      writeU64LE(sector, 8, VERSION);
      writeU64LE(sector, 16, entries);
      writeU32LE(sector, 24, this.sectorSize);
      await this.#file.write(0, sector);
      this.#told = entries;
    });
  }
}

/** Goes through all entries to the end of the last one's data. */
async function findEnd(file: BlockNode, sectorSize: number, entries: bigint): Promise<number> {
  const entry = new Uint8Array(HEADER);
  let end = sectorSize;
  for (let i = 0n; i < entries; i++) {
    // What lies behind the end of the file is not there, whatever the superblock says.
    if (end + HEADER > file.length) {
      throw invalid(`The log ends after ${i} of its ${entries} entries`, file);
    }
    await file.read(end, entry);
    const sectors = readU64LE(entry, 8);
    end += sectorSize;
    if ((readU64LE(entry, 16) & DISCARD) !== 0n) continue;
    const behind = BigInt(end) + sectors * BigInt(sectorSize);
    if (behind > BigInt(alignUp(file.length, sectorSize))) {
      throw invalid(`Entry ${i} of the log has data behind the end of the file`, file);
    }
    end = Number(behind);
  }
  return end;
}

function requireSectorSize(size: number, file: BlockNode): void {
  const isRight = isPowerOfTwo(size) && size >= MIN_SECTOR && size <= MAX_SECTOR;
  if (!isRight) throw invalid(`Invalid log sector size ${size}`, file);
}

function invalid(message: string, file: BlockNode): ImageError {
  return new ImageError(message, { errno: "EINVAL", file: file.filename, field: "log" });
}
