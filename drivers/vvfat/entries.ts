/**
 * Entries of directories.
 *
 * @module
 */
import { readU16LE, readU32LE, writeU16LE, writeU32LE } from "../../lib/bytes/endian.ts";
import { ENTRY } from "./layout.ts";

/** What an entry is for. */
export const ATTRIBUTE = { label: 0x08, folder: 0x10, archive: 0x20 } as const;

/** The three times of a file; what the host does not know is all zeros. */
export interface FileTimes {
  /** Of the last change of the file's description, where others have the time of its making. */
  readonly changed: Date | null;
  /** Of the last use. */
  readonly accessed: Date | null;
  /** Of the last change of its content. */
  readonly modified: Date | null;
}

/** The entry of a file or folder. Its first cluster and its size are still to be set. */
export function makeEntry(
  shortName: Uint8Array,
  attributes: number,
  times?: FileTimes,
): Uint8Array {
  const entry = new Uint8Array(ENTRY);
  entry.set(shortName);
  entry[11] = attributes;
  if (times !== undefined) setTimes(entry, times);
  return entry;
}

/** Sets the times of an entry. */
export function setTimes(entry: Uint8Array, { changed, accessed, modified }: FileTimes): void {
  writeU16LE(entry, 14, packTime(changed));
  writeU16LE(entry, 16, packDate(changed));
  writeU16LE(entry, 18, packDate(accessed));
  writeU16LE(entry, 22, packTime(modified));
  writeU16LE(entry, 24, packDate(modified));
}

/** Sets where a file begins. */
export function setFirstCluster(entry: Uint8Array, cluster: number): void {
  writeU16LE(entry, 26, cluster & 0xffff);
  writeU16LE(entry, 20, cluster >>> 16);
}

/** Sets a file's length in bytes. */
export function setSize(entry: Uint8Array, size: number): void {
  writeU32LE(entry, 28, size);
}

/** What an entry says. */
export interface EntryFields {
  /** Bits of {@linkcode ATTRIBUTE}. */
  readonly attributes: number;
  /** 0 where there is none. */
  readonly first: number;
  /** Bytes. */
  readonly size: number;
  /** Date and time of the last change, as they are stored. */
  readonly modified: number;
}

/** Reads an entry's fields. Numbers of clusters have 16 bits here. */
export function readEntry(entry: Uint8Array): EntryFields {
  return {
    attributes: entry[11]!,
    first: readU16LE(entry, 26),
    size: readU32LE(entry, 28),
    modified: readU32LE(entry, 22),
  };
}

/** The moment that a stored date and time mean, in local time as they are; `undefined` if there is none such. */
export function unpackModified(modified: number): Date | undefined {
  const [time, date] = [modified & 0xffff, modified >>> 16];
  const [month, day] = [date >> 5 & 0xf, date & 0x1f];
  if (month < 1 || month > 12 || day < 1) return undefined;
  const moment = new Date(
    1980 + (date >> 9),
    month - 1,
    day,
    time >> 11,
    time >> 5 & 0x3f,
    (time & 0x1f) * 2,
  );
  return moment.getDate() === day ? moment : undefined;
}

function packDate(date: Date | null): number {
  if (date === null) return 0;
  return (date.getFullYear() - 1980 << 9 | date.getMonth() + 1 << 5 | date.getDate()) & 0xffff;
}

function packTime(date: Date | null): number {
  if (date === null) return 0;
  return date.getSeconds() >> 1 | date.getMinutes() << 5 | date.getHours() << 11;
}
