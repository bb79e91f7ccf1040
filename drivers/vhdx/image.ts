/**
 * Opening an image (section 2 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { divideUp } from "../../lib/bytes/align.ts";
import { hasSignature, invalid, MAX_TABLE_UNTRUSTED } from "./_layout.ts";
import { BlockTable, ENTRY_SIZE } from "./block_table.ts";
import { checkEntries } from "./check.ts";
import { Headers } from "./headers.ts";
import { type Metadata, readMetadata, tableEntries } from "./metadata.ts";
import { SIGNATURE } from "./probe.ts";
import { readRegions, Regions } from "./regions.ts";

/** An open image: what all modules of this driver share. */
export interface VhdxImage {
  /** The file that holds it. */
  readonly file: BlockNode;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** The headers. */
  readonly headers: Headers;
  /** What is known of the disk. */
  readonly metadata: Metadata;
  /** The block allocation table. */
  readonly table: BlockTable;
  /** How many entries it has, those of sector bitmaps included. */
  readonly entries: number;
  /** How many blocks the disk has. */
  readonly blocks: number;
  /** What of the file is taken by other things than blocks. */
  readonly regions: Regions;
  /** The log had to be replayed. */
  readonly wasReplayed: boolean;
}

/**
 * Opens an image, and replays its log if there is one.
 *
 * @throws {ImageError} with the reference's texts, which mostly are those of an errno; `field` says more.
 */
export async function openVhdx(file: BlockNode, context: DriverContext): Promise<VhdxImage> {
  const head = new Uint8Array(SIGNATURE.length);
  await readPadded(file, 0, head);
  if (!hasSignature(head, SIGNATURE)) throw invalid(file, "signature");
  const headers = await Headers.read(file);
  const wasReplayed = headers.hasLog && await replay(file, headers, context);
  const regions = new Regions();
  regions.add({ offset: headers.logOffset, length: headers.logLength });
  const { table: range, metadata: metadataRange } = await readRegions(
    file,
    regions,
    (line) => context.report(line, true),
  );
  const metadata = await readMetadata(file, metadataRange);
  const hasParent = metadata.parent !== undefined;
  if (hasParent && context.mode.writable) {
    throw new ImageError("Differencing VHDX images can only be read", {
      errno: "ENOTSUP",
      file: file.filename,
    });
  }
  const entries = tableEntries({ ...metadata, hasParent });
  const needed = entries * ENTRY_SIZE;
  if (needed > range.length) throw invalid(file, "block allocation table: length");
  if (context.untrusted && needed > MAX_TABLE_UNTRUSTED) {
    throw new ImageError(`block allocation table of ${entries} entries in an untrusted image`, {
      errno: "EFBIG",
      file: file.filename,
      field: "block allocation table",
    });
  }
  const image: VhdxImage = {
    file,
    context,
    headers,
    metadata,
    table: new BlockTable(file, range.offset, metadata.chunkRatio),
    entries,
    blocks: divideUp(metadata.length, metadata.blockSize),
    regions,
    wasReplayed,
  };
  if (!context.mode.checking) {
    await checkEntries(image, (line) => {
      context.report(line, true);
      throw invalid(file, "block allocation table");
    });
  }
  return image;
}

/** Whether there was something to replay. */
async function replay(
  file: BlockNode,
  headers: Headers,
  { filename, mode }: DriverContext,
): Promise<boolean> {
  const { findActiveSequence } = await import("./log.ts");
  const sequence = await findActiveSequence(file, headers);
  if (sequence.length === 0) return false;
  if (!mode.writable) {
    throw new ImageError(
      `VHDX image file '${filename}' opened read-only, but contains a log that needs to be replayed`,
      {
        errno: "EPERM",
        file: filename,
        field: "log",
        hint: `To replay the log, run:\nqemu-img check -r all '${filename}'`,
      },
    );
  }
  const { replaySequence } = await import("./log_replay.ts");
  await replaySequence(file, headers, sequence);
  return true;
}
