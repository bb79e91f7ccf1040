import { ImageError } from "../../lib/block/error.ts";
import { MAX_FILE_LENGTH, MAX_L1_BYTES } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { ImageFacts } from "./image.ts";
import type { Snapshot } from "./snapshots.ts";
import { EntryTable } from "./table.ts";

/**
 * Checks where a snapshot says that its L1 table lies.
 *
 * @throws {ImageError} `Snapshot L1 table too large`, `Snapshot L1 table offset invalid`
 */
export function requireL1({ context, geometry }: ImageFacts, snapshot: Snapshot): void {
  const refuse = (message: string, errno: "EFBIG" | "EINVAL") =>
    new ImageError(message, {
      errno,
      file: context.filename,
      field: `snapshot ${snapshot.id}, L1 table`,
    });
  const bytes = snapshot.l1Size * 8;
  if (bytes > MAX_L1_BYTES) throw refuse("Snapshot L1 table too large", "EFBIG");
  const { l1Offset } = snapshot.exact;
  const end = l1Offset + BigInt(bytes);
  if (end >= BigInt(MAX_FILE_LENGTH) || l1Offset % BigInt(geometry.clusterSize) !== 0n) {
    throw refuse("Snapshot L1 table offset invalid", "EINVAL");
  }
}

/**
 * The L1 table of a snapshot, with as many entries behind it as make it
 * `entries` long.
 *
 * @throws {ImageError} if it cannot be read. {@linkcode requireL1} has to come first.
 */
export async function readSnapshotL1(
  image: ImageFacts,
  snapshot: Snapshot,
  entries = 0,
): Promise<EntryTable> {
  const bytes = new Uint8Array(Math.max(snapshot.l1Size, entries) * 8);
  await readPadded(image.file, snapshot.l1Offset, bytes.subarray(0, snapshot.l1Size * 8));
  return new EntryTable(bytes);
}
