/**
 * The table of internal snapshots (section 12 of the format's reference):
 * reading, listing and replacing it.
 *
 * @module
 */
import type { SnapshotInfo } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { UNTRUSTED } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { Qcow2Header } from "./header.ts";
import type { Qcow2Image } from "./image.ts";

/** Where the header says where the table is: entries (4 bytes), offset (8). */
const HEADER_FIELD = 60;
/** Bytes of an entry's fixed part. */
const FIXED = 40;
/** Bytes of extra data that this driver knows: VM state size, disk size, instruction count. */
const KNOWN_EXTRA = 24;
/** Most extra data of an entry, bytes. */
export const MAX_EXTRA = 1024;
/** Largest table, bytes. */
export const MAX_SNAPSHOT_TABLE_BYTES = 64 * 1024 * 1024;
/** How far into the file a table may reach with `repair`, when it may hold more than is kept of it. */
const MAX_REACH = 2 ** 31 - 1;
/** An instruction count that was not recorded. */
const NO_ICOUNT = 0xffff_ffff_ffff_ffffn;

/** An entry of the snapshot table. */
export interface Snapshot extends SnapshotInfo {
  /** Where its L1 table lies, bytes, as stored: neither checked nor, above 2^53, exact. */
  readonly l1Offset: number;
  /** Entries of its L1 table, as stored, not checked. */
  readonly l1Size: number;
  /** Bytes of the virtual disk; where the table does not tell, those of the disk as it is now. */
  readonly diskSize: number;
  /** The exact values of fields that are numbers here, for writing the table again. */
  readonly exact: {
    /** `l1Offset`. */
    readonly l1Offset: bigint;
    /** `vmStateSize`. */
    readonly vmStateSize: bigint;
    /** `diskSize`. */
    readonly diskSize: bigint;
  };
  /** Bytes of extra data in the table. */
  readonly extraSize: number;
  /** The extra data that this driver does not know, kept. */
  readonly unknownExtra: Uint8Array;
  /** The id as stored, up to a NUL; need not be UTF-8. */
  readonly idBytes: Uint8Array;
  /** The name as stored, up to a NUL; need not be UTF-8. */
  readonly nameBytes: Uint8Array;
}

/** The snapshot table of an open image. */
export interface SnapshotTable {
  /** The entries, in the order of the table. */
  readonly entries: readonly Snapshot[];
  /** Bytes of the table on disk. */
  readonly size: number;
  /** Entries left out because the table would be too big (only with `repair`). */
  readonly discarded: number;
  /** Entries whose extra data was cut (only with `repair`). */
  readonly extraDropped: number;
}

/** An image without snapshots. */
export const NO_SNAPSHOTS: SnapshotTable = { entries: [], size: 0, discarded: 0, extraDropped: 0 };

/** What is needed to read a snapshot table. */
export interface SnapshotSource {
  /** The file. */
  readonly file: BlockNode;
  /** Its header; `snapshotCount` and `snapshotsOffset` have passed their checks. */
  readonly header: Qcow2Header;
  /** Services. */
  readonly context: Pick<DriverContext, "filename" | "untrusted" | "report">;
}

/**
 * Reads the table. With `repair` what is too much is cut off and reported
 * instead of refused; the caller then writes the table anew.
 *
 * @throws {ImageError} for a table that breaks the limits of section 12.
 */
export async function readSnapshotTable(
  source: SnapshotSource,
  repair = false,
): Promise<SnapshotTable> {
  const { file, header, context } = source;
  const count = header.snapshotCount;
  if (count === 0) return NO_SNAPSHOTS;
  const limit = context.untrusted && !repair
    ? UNTRUSTED.snapshotTableBytes
    : MAX_SNAPSHOT_TABLE_BYTES;
  const entries: Snapshot[] = [];
  let size = 0;
  // What the table would take without the extra data that is cut off.
  let keptSize = 0;
  let extraDropped = 0;
  for (let index = 0; index < count; index++) {
    const start = alignEntry(size);
    const at = header.snapshotsOffset + start;
    const fixed = await readView(file, at, FIXED);
    const extraSize = fixed.getUint32(36);
    if (extraSize > MAX_EXTRA) {
      if (!repair) {
        throw new ImageError(`Too much extra metadata in snapshot table entry ${index}`, {
          errno: "EFBIG",
          file: context.filename,
          field: `snapshot table entry ${index}`,
          hint: "You can force-remove this extra metadata with qemu-img check -r all",
        });
      }
      context.report(
        `Discarding too much extra metadata in snapshot table entry ${index} (${extraSize} > ${MAX_EXTRA})`,
      );
      extraDropped++;
    }
    const names = fixed.getUint16(12) + fixed.getUint16(14);
    const end = start + FIXED + extraSize + names;
    const keptEnd = alignEntry(keptSize) + FIXED + Math.min(extraSize, MAX_EXTRA) + names;
    if (keptEnd > limit || end > MAX_REACH) {
      const discarded = count - index;
      if (!repair) {
        throw new ImageError("Snapshot table is too big", {
          errno: "EFBIG",
          file: context.filename,
          field: "snapshot table",
          hint: `You can force-remove all ${discarded} overhanging snapshots with ` +
            "qemu-img check -r all",
        });
      }
      context.report(`Discarding ${discarded} overhanging snapshots (snapshot table is too big)`);
      return { entries, size, discarded, extraDropped };
    }
    entries.push(await readEntry(source, fixed, at));
    size = end;
    keptSize = keptEnd;
  }
  return { entries, size, discarded: 0, extraDropped };
}

async function readEntry(
  { file, header }: SnapshotSource,
  fixed: DataView,
  at: number,
): Promise<Snapshot> {
  const stored = fixed.getUint32(36);
  const extraSize = Math.min(stored, MAX_EXTRA);
  const extra = await readView(file, at + FIXED, extraSize);
  const idLength = fixed.getUint16(12);
  const names = await readView(file, at + FIXED + stored, idLength + fixed.getUint16(14));
  const idBytes = untilNul(new Uint8Array(names.buffer, 0, idLength));
  const nameBytes = untilNul(new Uint8Array(names.buffer, idLength));
  const decoder = new TextDecoder();
  const icount = extraSize >= 24 ? extra.getBigUint64(16) : NO_ICOUNT;
  const exact = {
    l1Offset: fixed.getBigUint64(0),
    vmStateSize: extraSize >= 8 ? extra.getBigUint64(0) : BigInt(fixed.getUint32(32)),
    diskSize: extraSize >= 16 ? extra.getBigUint64(8) : BigInt(header.size),
  };
  return {
    id: decoder.decode(idBytes),
    name: decoder.decode(nameBytes),
    dateSeconds: fixed.getUint32(16),
    dateNanoseconds: fixed.getUint32(20),
    vmClock: fixed.getBigUint64(24),
    vmStateSize: Number(exact.vmStateSize),
    ...(icount === NO_ICOUNT ? {} : { icount }),
    l1Offset: Number(exact.l1Offset),
    l1Size: fixed.getUint32(8),
    diskSize: Number(exact.diskSize),
    exact,
    extraSize,
    unknownExtra: new Uint8Array(extra.buffer).slice(KNOWN_EXTRA),
    idBytes,
    nameBytes,
  };
}

/** Ids and names are not supposed to hold a NUL; where they do, nobody sees more of them. */
function untilNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

async function readView(file: BlockNode, offset: number, length: number): Promise<DataView> {
  const bytes = new Uint8Array(length);
  await readPadded(file, offset, bytes);
  return new DataView(bytes.buffer);
}

function alignEntry(offset: number): number {
  return Math.ceil(offset / 8) * 8;
}

/** A table's bytes; entries get the extra data that version 3 asks for. */
export function encodeSnapshotTable(entries: readonly Snapshot[]): Uint8Array<ArrayBuffer> {
  let size = 0;
  for (const entry of entries) size = alignEntry(size) + entrySize(entry);
  const table = new Uint8Array(size);
  const view = new DataView(table.buffer);
  let at = 0;
  for (const entry of entries) {
    at = alignEntry(at);
    const extraSize = Math.max(KNOWN_EXTRA, entry.extraSize);
    const { l1Offset, vmStateSize: state, diskSize } = entry.exact;
    view.setBigUint64(at, l1Offset);
    view.setUint32(at + 8, entry.l1Size);
    view.setUint16(at + 12, entry.idBytes.length);
    view.setUint16(at + 14, entry.nameBytes.length);
    view.setUint32(at + 16, entry.dateSeconds);
    view.setUint32(at + 20, entry.dateNanoseconds);
    view.setBigUint64(at + 24, entry.vmClock);
    view.setUint32(at + 32, state > 0xffff_ffffn ? 0 : Number(state));
    view.setUint32(at + 36, extraSize);
    view.setBigUint64(at + 40, state);
    view.setBigUint64(at + 48, diskSize);
    view.setBigUint64(at + 56, entry.icount ?? NO_ICOUNT);
    table.set(entry.unknownExtra, at + FIXED + KNOWN_EXTRA);
    table.set(entry.idBytes, at + FIXED + extraSize);
    table.set(entry.nameBytes, at + FIXED + extraSize + entry.idBytes.length);
    at += entrySize(entry);
  }
  return table;
}

function entrySize(entry: Snapshot): number {
  return FIXED + Math.max(KNOWN_EXTRA, entry.extraSize) + entry.idBytes.length +
    entry.nameBytes.length;
}

/** A snapshot table on disk that the header does not name yet. */
export interface PreparedTable {
  /** Where it lies, bytes; 0 if it is empty. */
  readonly offset: number;
  /** The table. */
  readonly table: SnapshotTable;
}

/**
 * Stores a table beside the one that is used, flushed. On failure nothing is
 * allocated. The caller holds the image's lock.
 *
 * @throws {ImageError} `EFBIG` for a table above 64 MiB.
 */
export async function prepareSnapshotTable(
  image: Qcow2Image,
  entries: readonly Snapshot[],
): Promise<PreparedTable> {
  const { file, refcounts } = image;
  const bytes = encodeSnapshotTable(entries);
  if (bytes.length > MAX_SNAPSHOT_TABLE_BYTES) {
    throw ImageError.fromErrno("EFBIG", {
      file: image.context.filename,
      field: "snapshot table",
    });
  }
  const table = { entries: [...entries], size: bytes.length, discarded: 0, extraDropped: 0 };
  if (bytes.length === 0) return { offset: 0, table };
  const offset = await refcounts.allocate(bytes.length);
  try {
    await refcounts.flush();
    await image.overlap.check(offset, bytes.length);
    await file.write(offset, bytes);
    await image.barrier();
  } catch (error) {
    if (!image.broken) await refcounts.free(offset, bytes.length, "always");
    throw error;
  }
  return { offset, table };
}

/**
 * Lets the header name a table that was prepared, and frees the one before.
 * When this fails, nobody knows which of the two it names: both stay allocated.
 */
export async function publishSnapshotTable(
  image: Qcow2Image,
  { offset, table }: PreparedTable,
): Promise<void> {
  const { file, header, refcounts } = image;
  const pointer = new DataView(new ArrayBuffer(12));
  pointer.setUint32(0, table.entries.length);
  pointer.setBigUint64(4, BigInt(offset));
  await image.barrier();
  await file.write(HEADER_FIELD, new Uint8Array(pointer.buffer));
  const old = { offset: header.snapshotsOffset, length: image.snapshots.size };
  header.snapshotsOffset = offset;
  header.snapshotCount = table.entries.length;
  image.snapshots = table;
  await image.barrier();
  if (old.length > 0) await refcounts.free(old.offset, old.length, "snapshot");
}

/**
 * Replaces the table: the new one is complete on disk before the header names
 * it, and only then the old one is freed. The caller holds the image's lock.
 *
 * @throws {ImageError} `EFBIG` for a table above 64 MiB.
 */
export async function writeSnapshotTable(
  image: Qcow2Image,
  entries: readonly Snapshot[],
): Promise<void> {
  await publishSnapshotTable(image, await prepareSnapshotTable(image, entries));
}
