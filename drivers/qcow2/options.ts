import { backingFormatOf } from "../../lib/block/backing_format.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { Preallocation } from "../../lib/block/node.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { requireDiskLength } from "../../lib/block/range.ts";
import {
  checkEncryption,
  ENCRYPTION_OPTIONS,
  type EncryptionRequest,
} from "./encryption_options.ts";

/** What `create -o` takes, in the order of the "Formatting" line. */
export const CREATE_OPTIONS: readonly OptionSpec[] = [
  ...ENCRYPTION_OPTIONS,
  {
    name: "cluster_size",
    type: "size",
    help: "Unit of allocation: a power of two from 512 to 2M",
    default: "65536",
  },
  {
    name: "extended_l2",
    type: "bool",
    help: "Split every cluster into 32 subclusters",
    default: "off",
  },
  {
    name: "preallocation",
    type: "str",
    help: "Space taken in advance: off, metadata, falloc or full",
  },
  {
    name: "compression_type",
    type: "str",
    help: "How compressed clusters are packed: zlib or zstd",
    default: "zlib",
  },
  { name: "size", type: "size", help: "Size of the virtual disk" },
  { name: "compat", type: "str", help: "Format version: 0.10 (v2) or 1.1 (v3)" },
  { name: "backing_file", type: "str", help: "Image that shows where this one has no data" },
  { name: "backing_fmt", type: "str", help: "Format of the backing file" },
  { name: "data_file", type: "str", help: "File that holds the guest's data" },
  {
    name: "data_file_raw",
    type: "bool",
    help: "Keep the data file readable as a raw image",
  },
  {
    name: "lazy_refcounts",
    type: "bool",
    help: "Write reference counts late, repair them after a crash",
    default: "off",
  },
  {
    name: "refcount_bits",
    type: "num",
    help: "Bits of a reference count: 1, 2, 4, 8, 16, 32 or 64",
    default: "16",
  },
];

/** Create options with their values checked. */
export interface CreateParameters {
  /** 2 or 3. */
  readonly version: 2 | 3;
  /** Virtual size, bytes, a multiple of 512. */
  readonly size: number;
  /** log2 of the cluster size. */
  readonly clusterBits: number;
  /** 16-byte L2 entries with 32 subclusters. */
  readonly extendedL2: boolean;
  /** How space is provided. */
  readonly preallocation: Preallocation;
  /** 0 deflate, 1 zstd. */
  readonly compressionType: 0 | 1;
  /** Backing file name as it will be stored, `""` for none. */
  readonly backingFile: string;
  /** Its format. */
  readonly backingFormat: string | undefined;
  /** Name of the data file as given. */
  readonly dataFile: string | undefined;
  /** The data file alone is a faithful raw image. */
  readonly dataFileRaw: boolean;
  /** Refcounts may reach the file late. */
  readonly lazyRefcounts: boolean;
  /** log2 of refcount bits. */
  readonly refcountOrder: number;
  /** How guest data is encrypted. */
  readonly encryption: EncryptionRequest | undefined;
}

function refuse(field: string, message: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

function choice<T>(options: OptionSet, key: string, shown: string, values: Record<string, T>): T {
  const text = options.string(key) ?? Object.keys(values)[0]!;
  if (!Object.hasOwn(values, text)) {
    throw refuse(key, `Parameter '${shown}' does not accept value '${text}'`);
  }
  return values[text]!;
}

/**
 * Checks create options together (sections 9 and 11 of the format's reference).
 *
 * @throws {ImageError} with the reference's texts, in its order.
 */
export function createParameters(options: OptionSet): CreateParameters {
  const version = choice<2 | 3>(options, "compat", "version", {
    "1.1": 3,
    "v3": 3,
    "0.10": 2,
    "v2": 2,
  });
  const backingFile = options.string("backing_file") ?? "";
  const backingFormat = backingFormatOf(options);
  const encryption = checkEncryption(options);
  const preallocation = choice<Preallocation>(options, "preallocation", "preallocation", {
    off: "off",
    metadata: "metadata",
    falloc: "falloc",
    full: "full",
  });
  const compressionType = choice<0 | 1>(options, "compression_type", "compression-type", {
    zlib: 0,
    zstd: 1,
  });
  const dataFile = options.string("data_file");
  const dataFileRaw = options.flag("data_file_raw");
  const lazyRefcounts = options.flag("lazy_refcounts");
  const extendedL2 = options.flag("extended_l2");
  const refcountBits = options.integer("refcount_bits", "refcount-bits")!;
  const needsVersion3 = (key: string, what: string, and = "and") =>
    refuse(key, `${what} compatibility level 1.1 ${and} above (use version=v3 or greater)`);

  const clusterBits = clusterBitsOf(options, extendedL2);
  if (extendedL2 && version < 3) {
    throw needsVersion3("extended_l2", "Extended L2 entries are only supported with");
  }
  if (backingFile !== "" && preallocation !== "off" && !extendedL2) {
    throw refuse(
      "preallocation",
      "Backing file and preallocation can only be used at the same time if extended_l2 is on",
    );
  }
  if (backingFormat !== undefined && backingFile === "") {
    throw refuse("backing_fmt", "Backing format cannot be used without backing file");
  }
  if (lazyRefcounts && version < 3) {
    throw needsVersion3("lazy_refcounts", "Lazy refcounts only supported with");
  }
  const refcountOrder = refcountOrderOf(refcountBits);
  if (refcountBits !== 16 && version < 3) {
    throw needsVersion3(
      "refcount_bits",
      "Different refcount widths than 16 bits require",
      "or",
    );
  }
  if (dataFileRaw) {
    if (dataFile === undefined) throw refuse("data_file_raw", "data-file-raw requires data-file");
    if (backingFile !== "") {
      throw refuse(
        "data_file_raw",
        "Backing file and data-file-raw cannot be used at the same time",
      );
    }
  }
  if (dataFile !== undefined && version < 3) {
    throw needsVersion3("data_file", "External data files are only supported with");
  }
  if (compressionType !== 0 && version < 3) {
    throw needsVersion3("compression_type", "Non-zlib compression type is only supported with");
  }
  return {
    version,
    size: roundedSize(options.exact("size") ?? 0n),
    clusterBits,
    extendedL2,
    // A raw data file is no raw image where the tables say "zeros".
    preallocation: dataFileRaw && preallocation === "off" ? "metadata" : preallocation,
    compressionType,
    backingFile,
    backingFormat,
    dataFile,
    dataFileRaw,
    lazyRefcounts,
    refcountOrder,
    encryption,
  };
}

/** log2 of the `cluster_size` option, which must suit extended L2 entries if there are any. */
export function clusterBitsOf(options: OptionSet, extendedL2: boolean): number {
  const bits = Math.log2(options.number("cluster_size")!);
  if (!Number.isInteger(bits) || bits < 9 || bits > 21) {
    throw refuse("cluster_size", "Cluster size must be a power of two between 512 and 2048k");
  }
  if (extendedL2 && bits < 14) {
    throw refuse(
      "extended_l2",
      "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
    );
  }
  return bits;
}

/** log2 of a refcount width in bits. */
export function refcountOrderOf(bits: number): number {
  const order = Math.log2(bits);
  if (!Number.isInteger(order) || order < 0 || order > 6) {
    throw refuse(
      "refcount_bits",
      "Refcount width must be a power of two and may not exceed 64 bits",
    );
  }
  return order;
}

/** Rounds up to sectors. What no disk can have is refused in the words of whoever sets the size. */
function roundedSize(size: bigint): number {
  const rounded = BigInt.asIntN(64, (size + 511n) / 512n * 512n);
  try {
    requireDiskLength(rounded);
  } catch (error) {
    throw ImageError.from(error).prefixed("Could not resize image: ");
  }
  if (rounded > Number.MAX_SAFE_INTEGER) throw ImageError.fromErrno("EFBIG", { field: "size" });
  return Number(rounded);
}
