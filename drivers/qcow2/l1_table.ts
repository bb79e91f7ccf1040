import { ImageError } from "../../lib/block/error.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { MAX_L1_BYTES } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { Qcow2Image } from "./image.ts";
import { EntryTable } from "./table.ts";

/** Where the header says the virtual size (8 bytes); the method of encryption (4) and `HEADER_FIELD` follow. */
const SIZE_FIELD = 24;
/** Where the header says where the L1 table is: entries (4 bytes), offset (8). */
const HEADER_FIELD = 36;
/** What the host writes wholly or not at all, bytes. */
const SECTOR = 512;

/** Reads the active L1 table that the header names into `image.l1`. */
export async function loadL1(image: Qcow2Image): Promise<void> {
  const { file, header } = image;
  const bytes = new Uint8Array(header.l1Size * 8);
  await readPadded(file, header.l1Offset, bytes);
  image.l1 = new EntryTable(bytes);
  image.overlap.reset();
}

/** Stores one L1 entry as it is in `image.l1`, and flushes. */
export async function writeL1Entry(image: Qcow2Image, index: number): Promise<void> {
  const { file, header, l1, overlap } = image;
  const offset = header.l1Offset + index * 8;
  await overlap.check(offset, 8, "active L1 table");
  image.event("l1_update");
  await file.write(offset, l1.bytes.subarray(index * 8, index * 8 + 8));
  await image.barrier();
}

/** Stores the active L1 table as it is in `image.l1`, in its place: for changes of flags. Does not flush. */
export async function writeL1(image: Qcow2Image): Promise<void> {
  const { file, header, l1, overlap } = image;
  if (l1.length === 0) return;
  await overlap.check(header.l1Offset, l1.bytes.length, "active L1 table");
  await file.write(header.l1Offset, l1.bytes);
}

/**
 * Stores a table that the header does not name yet, flushed: where it lies. On
 * failure nothing is allocated.
 */
async function storeTable(image: Qcow2Image, table: EntryTable): Promise<number> {
  const { file, refcounts, overlap } = image;
  image.event("l1_grow_alloc_table");
  const offset = await refcounts.allocate(table.bytes.length);
  try {
    await refcounts.flush();
    await overlap.check(offset, table.bytes.length);
    image.event("l1_grow_write_table");
    await file.write(offset, table.bytes);
    await image.barrier();
  } catch (error) {
    if (!image.broken) await refcounts.free(offset, table.bytes.length, "other");
    throw error;
  }
  return offset;
}

/**
 * Makes another table the active one, of a disk of `length` bytes, by one write
 * to one sector: the disk is the old one before and the new one after it. In
 * place where one sector of the table makes the difference, else the header
 * comes to name the new table and size together.
 *
 * The caller has counted what `table` refers to, and frees what the old one did.
 *
 * @throws {ImageError} if it fails; in the write that counts, it makes the image unusable.
 */
export async function switchL1(
  image: Qcow2Image,
  table: EntryTable,
  length: number,
): Promise<void> {
  const { file, header, l1: old, refcounts, overlap } = image;
  const changed = changedSectors(old.bytes, table.bytes);
  const inPlace = length === header.size && table.length === old.length && changed.length <= 1;
  const offset = inPlace ? header.l1Offset : await storeTable(image, table);
  if (inPlace) {
    for (const at of changed) {
      const sector = table.bytes.subarray(at, at + SECTOR);
      await overlap.check(offset + at, sector.length, "active L1 table");
      await surely(image, () => file.write(offset + at, sector));
    }
  } else {
    const fields = new DataView(new ArrayBuffer(24));
    fields.setBigUint64(0, BigInt(length));
    fields.setUint32(8, header.cryptMethod);
    fields.setUint32(12, table.length);
    fields.setBigUint64(16, BigInt(offset));
    await surely(image, () => file.write(SIZE_FIELD, new Uint8Array(fields.buffer)));
  }
  const replaced = header.l1Offset;
  image.l1 = table;
  header.size = length;
  header.l1Size = table.length;
  header.l1Offset = offset;
  overlap.reset();
  await image.barrier();
  if (offset !== replaced) await refcounts.free(replaced, old.bytes.length, "other");
}

/** Does what decides which of two tables is the active one: after a failure nobody knows. */
async function surely(image: Qcow2Image, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    image.broken = true;
    throw error;
  }
}

/** Where, in sectors of the first of two tables, the two differ: offsets in bytes. */
function changedSectors(one: Uint8Array, other: Uint8Array): number[] {
  const changed: number[] = [];
  for (let at = 0; at < one.length; at += SECTOR) {
    const end = Math.min(at + SECTOR, one.length);
    if (!equalBytes(one.subarray(at, end), other.subarray(at, end))) changed.push(at);
  }
  return changed;
}

/**
 * A larger active L1 table (section 10): exactly `entries` entries, or half
 * as many more at a time. Nothing happens if there are enough.
 *
 * @throws {ImageError} `EFBIG` above the format's limit.
 */
export async function growL1(
  image: Qcow2Image,
  entries: number,
  size: "exact" | "generous",
): Promise<void> {
  const { file, header, l1: old, refcounts } = image;
  if (entries <= header.l1Size) return;
  let wanted = entries;
  if (size === "generous") {
    wanted = Math.max(header.l1Size, 1);
    // The first sum above the limit is refused below.
    while (wanted < entries && wanted * 8 <= MAX_L1_BYTES) wanted = Math.ceil(wanted * 3 / 2);
  }
  if (wanted * 8 > MAX_L1_BYTES || wanted < entries) {
    throw ImageError.fromErrno("EFBIG", { file: image.context.filename, field: "l1_size" });
  }

  const table = new EntryTable(new Uint8Array(wanted * 8));
  table.bytes.set(old.bytes);
  const offset = await storeTable(image, table);
  const field = new DataView(new ArrayBuffer(12));
  field.setUint32(0, wanted);
  field.setBigUint64(4, BigInt(offset));
  image.event("l1_grow_activate_table");
  await file.write(HEADER_FIELD, new Uint8Array(field.buffer));
  // From here on the file names the new table, whether or not it can be flushed.
  const replaced = { offset: header.l1Offset, length: old.bytes.length };
  header.l1Offset = offset;
  header.l1Size = wanted;
  image.l1 = table;
  await image.barrier();
  await refcounts.free(replaced.offset, replaced.length, "other");
}
