import { ImageError } from "../../lib/block/error.ts";
import { MAX_L1_BYTES } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { Qcow2Image } from "./image.ts";
import { EntryTable } from "./table.ts";

/** Where the header says where the L1 table is: entries (4 bytes), offset (8). */
const HEADER_FIELD = 36;

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
  await file.write(offset, l1.bytes.subarray(index * 8, index * 8 + 8));
  await image.barrier();
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
  const { file, header, l1: old, refcounts, overlap } = image;
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
  const offset = await refcounts.allocate(table.bytes.length);
  try {
    await refcounts.flush();
    await overlap.check(offset, table.bytes.length);
    await file.write(offset, table.bytes);
    await image.barrier();
  } catch (error) {
    if (!image.broken) await refcounts.free(offset, table.bytes.length, "other");
    throw error;
  }
  const field = new DataView(new ArrayBuffer(12));
  field.setUint32(0, wanted);
  field.setBigUint64(4, BigInt(offset));
  await file.write(HEADER_FIELD, new Uint8Array(field.buffer));
  // From here on the file names the new table, whether or not it can be flushed.
  const replaced = { offset: header.l1Offset, length: old.bytes.length };
  header.l1Offset = offset;
  header.l1Size = wanted;
  image.l1 = table;
  await image.barrier();
  await refcounts.free(replaced.offset, replaced.length, "other");
}
