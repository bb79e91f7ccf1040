/**
 * Changing an image's options in place (section 17 of the format's reference).
 *
 * What can be refused is refused before anything is changed. Every operation
 * on its own leaves the image as it was or as it is to be, whenever it ends;
 * of several, those done so far stay.
 *
 * @module
 */
import type { AmendRequest } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { requireDiskLength } from "../../lib/block/range.ts";
import { Autoclear, Compatible } from "./_layout.ts";
import { ENCRYPTION_PREFIX } from "./amend_options.ts";
import { AmendProgress } from "./amend_progress.ts";
import { changeRefcountWidth } from "./amend_refcounts.ts";
import { assertDowngradable, downgrade, REFCOUNT_ORDER_V2, upgrade } from "./amend_version.ts";
import type { Bitmaps } from "./bitmaps.ts";
import type { Qcow2Header } from "./header.ts";
import { writeHeader } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";
import { markClean } from "./lazy.ts";
import { refcountOrderOf } from "./options.ts";
import { assertResizable, resizeImage } from "./resize.ts";

/** What an image shall be like afterwards. */
interface Plan {
  /** 2 or 3. */
  readonly version: number;
  /** log2 of refcount bits. */
  readonly refcountOrder: number;
  /** Refcounts may reach the file late. */
  readonly lazyRefcounts: boolean;
  /** The name of the data file; `undefined` for none. */
  readonly dataFile: string | undefined;
  /** The data file alone is a faithful raw image. */
  readonly dataFileRaw: boolean;
  /** Bytes of the disk; `undefined`: as it is. */
  readonly size: number | undefined;
  /** Key slots change. */
  readonly encryption: boolean;
}

/**
 * Gives an image other options.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function amendImage(
  image: Qcow2Image,
  bitmaps: Bitmaps,
  options: OptionSet,
  { force, onProgress }: AmendRequest,
): Promise<void> {
  const { header } = image;
  image.assertUsable();
  const plan = planOf(image, options);
  await assertPossible(image, bitmaps, options, plan);
  const changesWidth = plan.refcountOrder !== header.refcountOrder;
  const progress = new AmendProgress(
    Number(plan.version !== header.version) + Number(changesWidth) + Number(plan.encryption),
    onProgress,
  );

  if (plan.version > header.version) await upgrade(image, progress.operation());
  if (plan.encryption) {
    const { amendEncryption } = await import("./encryption_amend.ts");
    await amendEncryption(image, options, force);
  }
  if (changesWidth) {
    await changeRefcountWidth(image, plan.refcountOrder, progress.operation());
  }
  await nameDataFile(image, plan);
  await setLazyRefcounts(image, plan.lazyRefcounts);
  if (plan.size !== undefined) await resizeImage(image, plan.size, "off", bitmaps);
  if (plan.version < header.version) await downgrade(image, bitmaps, progress.operation());
}

function refuse(field: string, message: string, hint?: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field, hint });
}

/** The options' values, each looked at by itself. */
function planOf({ header, hasDataFile }: Qcow2Image, options: OptionSet): Plan {
  const encryption = options.specs.some(({ name }) =>
    name.startsWith(ENCRYPTION_PREFIX) && options.has(name)
  );
  if (encryption && header.cryptMethod === 0) {
    throw refuse("encrypt", "Can't amend encryption options - encryption not present");
  }
  if (encryption && header.cryptMethod !== 2) {
    throw refuse("encrypt", "Only LUKS encryption options can be amended");
  }
  const version = options.has("compat") ? versionOf(options.string("compat")!) : header.version;
  const dataFile = options.string("data_file");
  if (dataFile !== undefined && !hasDataFile) {
    throw refuse(
      "data_file",
      "data-file can only be set for images that use an external data file",
    );
  }
  const isRaw = (header.autoclear & BigInt(Autoclear.dataFileRaw)) !== 0n;
  const dataFileRaw = options.has("data_file_raw") ? options.flag("data_file_raw") : isRaw;
  if (dataFileRaw && !isRaw) {
    throw refuse("data_file_raw", "data-file-raw cannot be set on existing images");
  }
  const lazy = (header.compatible & BigInt(Compatible.lazyRefcounts)) !== 0n;
  const bits = options.exact("refcount_bits");
  // None, as an option that is not there.
  const size = options.exact("size") || undefined;
  return {
    version,
    refcountOrder: bits === undefined ? header.refcountOrder : refcountOrderOf(Number(bits)),
    lazyRefcounts: options.has("lazy_refcounts") ? options.flag("lazy_refcounts") : lazy,
    dataFile: dataFile === undefined ? header.dataFile : dataFile || undefined,
    dataFileRaw,
    size: size === undefined ? undefined : lengthOf(size),
    encryption,
  };
}

function versionOf(compat: string): number {
  if (compat === "0.10" || compat === "v2") return 2;
  if (compat === "1.1" || compat === "v3") return 3;
  throw refuse("compat", `Unknown compatibility level ${compat}`);
}

/** A size as a number. One above 2^53 is only refused later, for which its nearest even neighbour will do. */
function lengthOf(size: bigint): number {
  const signed = BigInt.asIntN(64, size);
  requireDiskLength(signed);
  if (signed % 512n !== 0n) throw refuse("size", "The new size must be a multiple of 512");
  return Number(signed);
}

/** What the options are together, and with the image, in the order in which the reference finds out. */
async function assertPossible(
  image: Qcow2Image,
  bitmaps: Bitmaps,
  options: OptionSet,
  plan: Plan,
): Promise<void> {
  const { header } = image;
  const sinceVersion3 = "compatibility level 1.1";
  const { refcountOrder } = plan;
  if (
    plan.version < 3 && refcountOrder !== header.refcountOrder &&
    refcountOrder !== REFCOUNT_ORDER_V2
  ) {
    throw refuse(
      "refcount_bits",
      `Refcount widths other than 16 bits require ${sinceVersion3} or above ` +
        "(use compat=1.1 or greater)",
    );
  }
  if (changesBacking(header, options)) {
    throw refuse(
      "backing_file",
      "Cannot amend the backing file",
      "You can use 'qemu-img rebase' instead.",
    );
  }
  const lazy = (header.compatible & BigInt(Compatible.lazyRefcounts)) !== 0n;
  if (plan.lazyRefcounts && !lazy && plan.version < 3) {
    throw refuse(
      "lazy_refcounts",
      `Lazy refcounts only supported with ${sinceVersion3} and above ` +
        "(use compat=1.1 or greater)",
    );
  }
  if (plan.size !== undefined) {
    // An upgrade comes before the other changes, a downgrade after them.
    assertResizable(image, plan.size, bitmaps, Math.max(plan.version, header.version));
  }
  if (plan.version < header.version) {
    await assertDowngradable(image, {
      refcountOrder,
      size: plan.size ?? header.size,
    });
  }
}

/** Whether the backing options, if any are given, say something else than the header, both taken together. */
function changesBacking(header: Qcow2Header, options: OptionSet): boolean {
  const name = options.string("backing_file");
  const format = options.string("backing_fmt");
  if (name === undefined && format === undefined) return false;
  return name !== (header.backingFile || undefined) || format !== header.backingFormat;
}

/** Stores a change of the data file's name and kind; brings the rest of the header up to date, too. */
async function nameDataFile(image: Qcow2Image, plan: Plan): Promise<void> {
  const { header } = image;
  await changeHeader(image, () => {
    header.dataFile = plan.dataFile;
    const raw = BigInt(Autoclear.dataFileRaw);
    if (plan.dataFileRaw) header.autoclear |= raw;
    else header.autoclear &= ~raw;
  });
}

async function setLazyRefcounts(image: Qcow2Image, on: boolean): Promise<void> {
  const { header } = image;
  const bit = BigInt(Compatible.lazyRefcounts);
  if (on === ((header.compatible & bit) !== 0n)) return;
  if (!on) await image.lock.run(() => markClean(image));
  await changeHeader(image, () => {
    if (on) header.compatible |= bit;
    else header.compatible &= ~bit;
  });
  image.lazyRefcounts = on;
}

/** Changes header fields in memory, then on disk; in neither if the latter fails. */
async function changeHeader(image: Qcow2Image, change: () => void): Promise<void> {
  const { header } = image;
  const { dataFile, autoclear, compatible } = header;
  change();
  try {
    await writeHeader(image);
    await image.barrier();
  } catch (error) {
    Object.assign(header, { dataFile, autoclear, compatible });
    throw ImageError.from(error).prefixed("Failed to update the image header: ");
  }
}
