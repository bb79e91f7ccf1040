import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { requireDiskLength } from "../../lib/block/range.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import {
  GRAIN_SECTORS,
  MAX_DIRECTORY,
  MAX_EXTENTS,
  SECTOR,
  SPLIT_SECTORS,
  TABLE_ENTRIES,
} from "./_layout.ts";

/** What `create -o` takes, in the order of the "Formatting" line. */
export const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  {
    name: "adapter_type",
    type: "str",
    help: "Disk controller: ide (default), lsilogic, buslogic or legacyESX",
  },
  { name: "backing_file", type: "str", help: "Image that shows where this one has no data" },
  { name: "backing_fmt", type: "str", help: "Format of the backing file: vmdk" },
  {
    name: "compat6",
    type: "bool",
    help: "Virtual hardware version 6",
    default: "off",
  },
  {
    name: "hwversion",
    type: "str",
    help: "Virtual hardware version",
    default: "undefined",
  },
  { name: "toolsversion", type: "str", help: "Version of the guest tools" },
  {
    name: "subformat",
    type: "str",
    help: "Kind of image: monolithicSparse (default), monolithicFlat, twoGbMaxExtentSparse, " +
      "twoGbMaxExtentFlat or streamOptimized",
  },
  {
    name: "zeroed_grain",
    type: "bool",
    help: "Zeros take no space, with tables that say so",
  },
];

const ADAPTERS = ["ide", "lsilogic", "buslogic", "legacyESX"];

const SUBFORMATS = {
  monolithicSparse: { flat: false, split: false, stream: false },
  monolithicFlat: { flat: true, split: false, stream: false },
  twoGbMaxExtentSparse: { flat: false, split: true, stream: false },
  twoGbMaxExtentFlat: { flat: true, split: true, stream: false },
  streamOptimized: { flat: false, split: false, stream: true },
} as const;

/** Create options with their values checked. */
export interface CreateParameters {
  /** Virtual size, bytes, a multiple of 512. */
  readonly size: number;
  /** Kind of image. */
  readonly subformat: string;
  /** Extents are plain bytes. */
  readonly flat: boolean;
  /** Extents are of 2 GiB each. */
  readonly split: boolean;
  /** Grains are compressed. */
  readonly stream: boolean;
  /** Disk controller. */
  readonly adapterType: string;
  /** Virtual hardware version. */
  readonly hardwareVersion: string;
  /** Version of the guest tools. */
  readonly toolsVersion: string;
  /** Tables may say "zeros". */
  readonly zeroGrains: boolean;
  /** Backing file name as it will be stored, `""` for none. */
  readonly backingFile: string;
}

/**
 * Checks create options together (section 8 of the format's reference).
 *
 * @throws {ImageError} with the reference's texts, in its order.
 */
export function createParameters(options: OptionSet): CreateParameters {
  const refuse = (message: string, field: string, errno: ImageError["errno"] = "EINVAL") =>
    new ImageError(message, { errno, field });
  const backingFile = options.string("backing_file") ?? "";
  const backingFormat = options.string("backing_fmt");
  if (backingFormat !== undefined && backingFormat !== "vmdk") {
    throw refuse("backing_file must be a vmdk image", "backing_fmt");
  }
  const version = options.string("hwversion")!;
  const isUnset = version === "undefined";
  if (options.flag("compat6") && !isUnset) {
    throw refuse("compat6 cannot be enabled with hwversion set", "compat6");
  }
  const adapterType = options.string("adapter_type") ?? "ide";
  if (!ADAPTERS.includes(adapterType)) {
    throw refuse(`invalid parameter value: ${adapterType}`, "adapter_type");
  }
  const subformat = options.string("subformat") ?? "monolithicSparse";
  if (!Object.hasOwn(SUBFORMATS, subformat)) {
    throw refuse(`invalid parameter value: ${subformat}`, "subformat");
  }
  const kind = SUBFORMATS[subformat as keyof typeof SUBFORMATS];
  const zeroGrains = options.flag("zeroed_grain");
  if (kind.flat && backingFile !== "") {
    throw refuse("Flat image can't have backing file", "backing_file", "ENOTSUP");
  }
  if (kind.flat && zeroGrains) {
    throw refuse("Flat image can't enable zeroed grain", "zeroed_grain", "ENOTSUP");
  }
  return {
    size: sizeOf(options.exact("size") ?? 0n, kind),
    subformat,
    ...kind,
    adapterType,
    hardwareVersion: options.flag("compat6") ? "6" : isUnset ? "4" : version,
    toolsVersion: options.string("toolsversion") ?? "2147483647",
    zeroGrains,
    backingFile,
  };
}

/** Most bytes that one sparse extent can have: more directory entries are not opened. */
const MAX_SPARSE = MAX_DIRECTORY * TABLE_ENTRIES * GRAIN_SECTORS * SECTOR;
/** Most bytes that an image of many files can have. */
const MAX_SPLIT = MAX_EXTENTS * SPLIT_SECTORS * SECTOR;

/** Rounds up to sectors. */
function sizeOf(size: bigint, { flat, split }: { flat: boolean; split: boolean }): number {
  requireDiskLength(size);
  const limit = split ? MAX_SPLIT : flat ? Number.MAX_SAFE_INTEGER - SECTOR : MAX_SPARSE;
  if (size > BigInt(limit)) throw ImageError.fromErrno("EFBIG", { field: "size" });
  return alignUp(Number(size), SECTOR);
}
