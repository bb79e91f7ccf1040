/**
 * Opening an image: every check of section 3 of the format's reference, in its
 * order, and what a writable opening changes in the file.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { during, ImageError, reasonText } from "../../lib/block/error.ts";
import type { InfoValue } from "../../lib/block/capabilities.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { OptionSet } from "../../lib/block/options.ts";
import { Autoclear, Incompatible } from "./_layout.ts";
import { Bitmaps } from "./bitmaps.ts";
import { encryptionDetails, openEncryption } from "./encryption.ts";
import { hasFeature } from "./header.ts";
import { geometryOf, readHeader } from "./header_reader.ts";
import { writeHeader } from "./header_writer.ts";
import { Qcow2Image } from "./image.ts";
import { loadL1 } from "./l1_table.ts";
import { OPEN_OPTIONS } from "./open_options.ts";
import { readRuntimeOptions } from "./runtime_options.ts";
import { readSnapshotTable } from "./snapshots.ts";

/** An open image with what is loaded when it is opened. */
export interface OpenedImage {
  /** The image. */
  readonly image: Qcow2Image;
  /** Its bitmaps. */
  readonly bitmaps: Bitmaps;
  /** What `info` shows of its encryption. */
  readonly encrypt: InfoValue | undefined;
}

const KNOWN_AUTOCLEAR = BigInt(Autoclear.bitmaps | Autoclear.dataFileRaw);

/**
 * Opens the image in `file`. On failure everything that was opened on the way
 * is closed, `file` is left to the caller.
 *
 * `repair` is called for a dirty image that is to be written; it repairs the
 * refcounts and clears the dirty bit.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openImage(
  file: BlockNode,
  context: DriverContext,
  repair: (image: Qcow2Image) => Promise<void>,
  options: OptionSet = new OptionSet(OPEN_OPTIONS),
): Promise<OpenedImage> {
  const header = await readHeader(file, context);
  const geometry = geometryOf(header);
  const settings = readRuntimeOptions(options, header, geometry, context);
  const image = new Qcow2Image(file, header, geometry, context);
  image.overlap.structures = settings.structures;
  image.lazyRefcounts = settings.lazyRefcounts;
  Object.assign(image.discards, settings.discards);
  await during("Could not initialize refcount handling", () => image.refcounts.load());
  await during("Could not read L1 table", () => loadL1(image));
  try {
    await openDataFile(image);
    const encrypt = await encryptionDetails(file, header, context);
    image.encryption = await openEncryption(image, options);
    if (!context.mode.checking) image.snapshots = await readSnapshotTable(image);
    const bitmaps = await loadBitmaps(image);
    await repairDirty(image, repair);
    return { image, bitmaps, encrypt };
  } catch (error) {
    image.encryption?.[Symbol.dispose]();
    if (image.dataFile !== file) await image.dataFile[Symbol.asyncDispose]();
    throw error;
  }
}

/** Row 22. */
async function openDataFile(image: Qcow2Image): Promise<void> {
  const { header, context } = image;
  const refuse = (message: string) =>
    new ImageError(message, { errno: "EINVAL", file: context.filename, field: "data file" });
  const chosen = await context.openChild?.("data-file");
  if (image.hasDataFile) {
    if (chosen !== undefined) {
      image.dataFile = chosen;
      return;
    }
    if (header.dataFile === undefined) throw refuse("'data-file' is required for this image");
    image.dataFile = await context.openFile("data-file", header.dataFile);
    return;
  }
  if (chosen !== undefined) {
    await chosen[Symbol.asyncDispose]();
    throw refuse("'data-file' can only be set for images with an external data file");
  }
  if ((header.autoclear & BigInt(Autoclear.dataFileRaw)) !== 0n) {
    throw refuse("data-file-raw requires a data file");
  }
}

/**
 * Loads the bitmaps (row 26). Before a writable image is written to for the
 * first time its header loses what a driver that does not know it must clear:
 * unknown autoclear bits, and bitmaps that nobody kept up to date.
 */
async function loadBitmaps(image: Qcow2Image): Promise<Bitmaps> {
  const { header, context } = image;
  const unknown = (header.autoclear & ~KNOWN_AUTOCLEAR) !== 0n;
  if (context.mode.writable) header.autoclear &= KNOWN_AUTOCLEAR;
  const bitmaps = await Bitmaps.load(image);
  if (context.mode.writable && (unknown || header.staleBitmaps) && !bitmaps.tookOver) {
    await writeHeader(image);
    await image.barrier();
  }
  return bitmaps;
}

/** Row 27. */
async function repairDirty(
  image: Qcow2Image,
  repair: (image: Qcow2Image) => Promise<void>,
): Promise<void> {
  const { header, context } = image;
  if (!context.mode.writable || context.mode.checking) return;
  if (!hasFeature(header, Incompatible.dirty)) return;
  try {
    await repair(image);
  } catch (error) {
    const { errno } = ImageError.from(error);
    throw new ImageError(`Could not repair dirty image: ${reasonText(error)}`, {
      errno,
      file: context.filename,
      field: "dirty bit",
      cause: error,
    });
  }
}
