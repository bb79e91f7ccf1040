/**
 * Finding what of the log has to be replayed (section 4 of the format's reference).
 *
 * The log is a ring. Entries follow one another, their numbers grow by one, and the last one says with
 * which of them a replay begins.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { isAligned } from "../../lib/bytes/align.ts";
import { crc32c } from "../../lib/bytes/crc32c.ts";
import { readU32LE, readU64LE } from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { hasSignature, headSum } from "./_layout.ts";
import { GUID_SIZE } from "./guid.ts";
import type { Headers } from "./headers.ts";

/** Unit of the log, bytes. */
export const LOG_SECTOR = 4096;

/** Signatures of what is in the log. */
export const LogSignature = {
  entry: "loge",
  data: "data",
  dataDescriptor: "desc",
  zeroDescriptor: "zero",
} as const;

/** Where an entry's fields are. */
export const ENTRY_AT = {
  length: 8,
  tail: 12,
  sequence: 16,
  descriptors: 24,
  logGuid: 32,
  flushedOffset: 48,
  lastOffset: 56,
  firstDescriptor: 64,
} as const;

/** Bytes of a descriptor. */
export const DESCRIPTOR_SIZE = 32;

/** Bytes that are summed at a time. */
const STEP = 1 << 18;

/** Bytes of entries with a wrong checksum that are looked at; no crash leaves more than a few. */
const MAX_TORN = 256 << 20;

/** An entry that is whole. All in bytes, except where it counts. */
export interface LogEntry {
  /** Where in the log it begins. */
  readonly position: number;
  /** How long it is. */
  readonly length: number;
  /** Its number. */
  readonly sequence: bigint;
  /** Where in the log a replay begins that ends with this entry. */
  readonly tail: number;
  /** How many descriptors it has. */
  readonly descriptors: number;
  /** The file is at least so long. */
  readonly flushedOffset: bigint;
  /** The file has to be so long at least. */
  readonly lastOffset: bigint;
}

/** A descriptor: what an entry does to the file. All in bytes. */
export type LogDescriptor =
  /** 4096 bytes, of which a data sector has all but the first eight and the last four. */
  | {
    readonly kind: "data";
    readonly offset: bigint;
    readonly leading: Uint8Array;
    readonly trailing: Uint8Array;
  }
  /** Zeros. */
  | { readonly kind: "zero"; readonly offset: bigint; readonly length: bigint };

/** The ring of sectors. */
export class LogRing {
  /** Bytes. */
  readonly length: number;
  readonly #file: BlockNode;
  readonly #offset: number;

  /** The log of an image. */
  constructor(file: BlockNode, { logOffset, logLength }: Headers) {
    this.#file = file;
    this.#offset = logOffset;
    this.length = logLength;
  }

  /** Reads, around the end if need be. */
  async read(position: number, into: Uint8Array): Promise<void> {
    const at = position % this.length;
    const first = Math.min(into.length, this.length - at);
    await readPadded(this.#file, this.#offset + at, into.subarray(0, first));
    if (first < into.length) {
      await readPadded(this.#file, this.#offset, into.subarray(first));
    }
  }

  /** How many bytes from `position` up to the end of the ring are in no file: zeros. */
  async emptyBytes(position: number): Promise<number> {
    const rest = this.length - position;
    const offset = this.#offset + position;
    if (offset >= this.#file.length) return rest;
    const below = await this.#file.extent(offset, Math.min(rest, this.#file.length - offset));
    const isEmpty = below.state !== "data" || below.hole === true;
    return isEmpty ? below.length : 0;
  }
}

/** Bytes of an entry's sectors with descriptors. */
export function descriptorBytes(descriptors: number): number {
  const perSector = LOG_SECTOR / DESCRIPTOR_SIZE;
  // The header takes the place of two.
  return Math.ceil((descriptors + ENTRY_AT.firstDescriptor / DESCRIPTOR_SIZE) / perSector) *
    LOG_SECTOR;
}

/**
 * The entries that have to be replayed, in their order; none if there is no whole one: then nothing that
 * the log is about has been done to the file.
 *
 * @throws {ImageError} `EINVAL` for a log of nothing but damaged entries.
 */
export async function findActiveSequence(
  file: BlockNode,
  headers: Headers,
): Promise<readonly LogEntry[]> {
  const ring = new LogRing(file, headers);
  const reader = new EntryReader(file, ring, headers.logGuid);
  let best: Candidate | undefined;
  for (let tail = 0; tail < ring.length;) {
    const run = await readRun(ring, reader, tail);
    const last = run.at(-1);
    if (last === undefined) {
      const empty = await ring.emptyBytes(tail);
      tail += Math.max(empty - empty % LOG_SECTOR, LOG_SECTOR);
    } else {
      const candidate = candidateOf(run, last);
      if (best === undefined || isBetter(candidate, best)) best = candidate;
      // Beyond the end of the log all was looked at.
      tail += run.reduce((sum, { length }) => sum + length, 0);
    }
  }
  return best?.entries ?? [];
}

interface Candidate {
  readonly entries: readonly LogEntry[];
  /** The number of the last entry. */
  readonly sequence: bigint;
  /** All is there that the last entry says has to be. */
  readonly isComplete: boolean;
}

function candidateOf(run: readonly LogEntry[], last: LogEntry): Candidate {
  const first = run.findIndex(({ position }) => position === last.tail);
  return {
    entries: first < 0 ? run : run.slice(first),
    sequence: last.sequence,
    isComplete: first >= 0,
  };
}

function isBetter(candidate: Candidate, than: Candidate): boolean {
  if (candidate.isComplete !== than.isComplete) return candidate.isComplete;
  return candidate.sequence > than.sequence;
}

/** The entries that follow one another from a position on. */
async function readRun(
  ring: LogRing,
  reader: EntryReader,
  position: number,
): Promise<LogEntry[]> {
  const run: LogEntry[] = [];
  for (let room = ring.length; room > 0;) {
    const entry = await reader.read((position + ring.length - room) % ring.length);
    const last = run.at(-1);
    if (entry === undefined || entry.length > room) break;
    if (last !== undefined && entry.sequence !== last.sequence + 1n) break;
    run.push(entry);
    room -= entry.length;
  }
  return run;
}

/** Reads entries, and tells whether they are whole. */
class EntryReader {
  readonly #file: BlockNode;
  readonly #ring: LogRing;
  readonly #guid: Uint8Array;
  readonly #head = new Uint8Array(ENTRY_AT.firstDescriptor);
  readonly #buffer = new Uint8Array(STEP);
  /** Bytes that were summed in vain. */
  #torn = 0;

  constructor(file: BlockNode, ring: LogRing, guid: Uint8Array) {
    this.#file = file;
    this.#ring = ring;
    this.#guid = guid;
  }

  /** The entry at a position, if there is a whole one. */
  async read(position: number): Promise<LogEntry | undefined> {
    const head = this.#head;
    await this.#ring.read(position, head);
    if (!hasSignature(head, LogSignature.entry)) return undefined;
    const entry: LogEntry = {
      position,
      length: readU32LE(head, ENTRY_AT.length),
      sequence: readU64LE(head, ENTRY_AT.sequence),
      tail: readU32LE(head, ENTRY_AT.tail),
      descriptors: readU32LE(head, ENTRY_AT.descriptors),
      flushedOffset: readU64LE(head, ENTRY_AT.flushedOffset),
      lastOffset: readU64LE(head, ENTRY_AT.lastOffset),
    };
    const { length, sequence, descriptors } = entry;
    const guid = head.subarray(ENTRY_AT.logGuid, ENTRY_AT.logGuid + GUID_SIZE);
    if (
      length === 0 || length > this.#ring.length || !isAligned(length, LOG_SECTOR) ||
      sequence === 0n || !equalBytes(guid, this.#guid) || descriptorBytes(descriptors) > length
    ) return undefined;
    if (!await this.#isSummed(entry)) {
      this.#torn += length;
      if (this.#torn > MAX_TORN) {
        throw ImageError.fromErrno("EINVAL", { file: this.#file.filename, field: "log" });
      }
      return undefined;
    }
    return await this.#hasDescriptors(entry) ? entry : undefined;
  }

  async #isSummed({ position, length }: LogEntry): Promise<boolean> {
    const stored = readU32LE(this.#head, 4);
    let sum = headSum(this.#head);
    for (let at = this.#head.length; at < length;) {
      const part = this.#buffer.subarray(0, Math.min(STEP, length - at));
      await this.#ring.read(position + at, part);
      sum = crc32c(part, sum);
      at += part.length;
    }
    return sum === stored;
  }

  /** Whether all descriptors are such, and have their data. */
  async #hasDescriptors(entry: LogEntry): Promise<boolean> {
    let sectors = 0;
    for await (const descriptor of readDescriptors(this.#ring, entry)) {
      if (descriptor === undefined) return false;
      if (descriptor.kind === "data") sectors++;
    }
    return descriptorBytes(entry.descriptors) + sectors * LOG_SECTOR <= entry.length;
  }
}

/** The descriptors of an entry; `undefined` for what is none. */
export async function* readDescriptors(
  ring: LogRing,
  { position, descriptors, sequence }: LogEntry,
): AsyncGenerator<LogDescriptor | undefined, void, undefined> {
  const sector = new Uint8Array(LOG_SECTOR);
  let at: number = ENTRY_AT.firstDescriptor;
  for (let i = 0; i < descriptors; i++, at += DESCRIPTOR_SIZE) {
    if (i === 0 || isAligned(at, LOG_SECTOR)) {
      await ring.read(position + at - at % LOG_SECTOR, sector);
    }
    const from = at % LOG_SECTOR;
    yield decodeDescriptor(sector.subarray(from, from + DESCRIPTOR_SIZE), sequence);
  }
}

function decodeDescriptor(bytes: Uint8Array, sequence: bigint): LogDescriptor | undefined {
  const offset = readU64LE(bytes, 16);
  const unit = BigInt(LOG_SECTOR);
  if (readU64LE(bytes, 24) !== sequence || offset % unit !== 0n) return undefined;
  if (hasSignature(bytes, LogSignature.dataDescriptor)) {
    return {
      kind: "data",
      offset,
      trailing: bytes.slice(4, 8),
      leading: bytes.slice(8, 16),
    };
  }
  const length = readU64LE(bytes, 8);
  if (!hasSignature(bytes, LogSignature.zeroDescriptor) || length % unit !== 0n) return undefined;
  return { kind: "zero", offset, length };
}
