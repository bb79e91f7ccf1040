/**
 * How large an image would be (section 18 of the format's reference).
 *
 * @module
 */
import type { DriverContext, MeasureResult } from "../../lib/block/driver.ts";
import { during, ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { MAX_L1_BYTES } from "./_layout.ts";
import { encryptionHeaderBytes, planEncryption } from "./encryption_create.ts";
import { checkEncryption } from "./encryption_options.ts";
import { clusterBitsOf, refcountOrderOf } from "./options.ts";
import { refcountStructures } from "./refcount_table.ts";

/**
 * Says how large an image with `options` would be that holds the content of
 * `source`, or a new disk of the size in the options.
 *
 * @throws {ImageError} for bad options, and for a disk that does not fit the format.
 */
export async function measureImage(
  options: OptionSet,
  source: BlockNode | undefined,
  secret: DriverContext["secret"] = noSecret,
): Promise<MeasureResult> {
  const target = targetOf(options);
  const encryption = await encryptionSize(options, secret);
  const clusterSize = 2 ** target.clusterBits;
  const size = roundUp(source?.length ?? target.size, clusterSize);
  const metadata = roundUp(encryption, clusterSize) + metadataSize(size, {
    clusterSize,
    entrySize: target.extendedL2 ? 16 : 8,
    refcountBits: 2 ** target.refcountOrder,
  });
  // With another backing file than the source's, anything may differ.
  const data = target.preallocated || (source !== undefined && target.hasBacking)
    ? size
    : source === undefined
    ? 0
    : await dataSize(source, clusterSize);
  const bitmaps = target.version >= 3 && source?.bitmaps !== undefined
    ? bitmapsSize(source, clusterSize)
    : undefined;
  return {
    required: metadata + data,
    fullyAllocated: metadata + size,
    ...(bitmaps === undefined ? {} : { bitmaps }),
  };
}

/** What of the target's options decides its size. The rest may be anything here, as in the reference. */
interface MeasuredTarget {
  readonly version: 2 | 3;
  readonly size: number;
  readonly clusterBits: number;
  readonly extendedL2: boolean;
  readonly hasBacking: boolean;
  readonly preallocated: boolean;
  readonly refcountOrder: number;
}

function targetOf(options: OptionSet): MeasuredTarget {
  const refuse = (field: string, message: string) =>
    new ImageError(message, { errno: "EINVAL", field });
  const extendedL2 = options.flag("extended_l2");
  const clusterBits = clusterBitsOf(options, extendedL2);
  const preallocation = options.string("preallocation") ?? "off";
  if (!["off", "metadata", "falloc", "full"].includes(preallocation)) {
    throw refuse("preallocation", `invalid parameter value: ${preallocation}`);
  }
  const compat = options.string("compat") ?? "1.1";
  if (compat !== "0.10" && compat !== "1.1") {
    throw refuse("compat", `Invalid compatibility level: '${compat}'`);
  }
  const version = compat === "1.1" ? 3 : 2;
  const refcountOrder = refcountOrderOf(options.number("refcount_bits")!);
  if (version < 3 && refcountOrder !== 4) {
    throw refuse(
      "refcount_bits",
      "Different refcount widths than 16 bits require compatibility level 1.1 or above " +
        "(use compat=1.1 or greater)",
    );
  }
  return {
    version,
    size: options.number("size") ?? 0,
    clusterBits,
    extendedL2,
    hasBacking: options.has("backing_file"),
    preallocated: preallocation === "falloc" || preallocation === "full",
    refcountOrder,
  };
}

/** Where there are no secrets. */
function noSecret(id: string): never {
  throw new ImageError(`No secret with id '${id}'`, { errno: "EINVAL", field: "key-secret" });
}

/** Bytes of a LUKS header; other encryption takes no space. */
async function encryptionSize(
  options: OptionSet,
  secret: DriverContext["secret"],
): Promise<number> {
  if (options.string("encrypt.format") !== "luks") return 0;
  const plan = await planEncryption(checkEncryption(options)!, { filename: "", secret });
  return encryptionHeaderBytes(plan);
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Header, L1, L2 and refcounts of an image with `size` bytes of data. */
function metadataSize(
  size: number,
  { clusterSize, entrySize, refcountBits }: {
    clusterSize: number;
    entrySize: number;
    refcountBits: number;
  },
): number {
  const l2Entries = roundUp(size / clusterSize, clusterSize / entrySize);
  const l2Bytes = l2Entries * entrySize;
  const l1Entries = l2Bytes / clusterSize;
  if (l1Entries * 8 > MAX_L1_BYTES) {
    throw new ImageError("The image size is too large (try using a larger cluster size)", {
      errno: "EFBIG",
      field: "size",
    });
  }
  const l1Bytes = roundUp(l1Entries, clusterSize / 8) * 8;
  const counted = (clusterSize + l2Bytes + l1Bytes + size) / clusterSize;
  const perBlock = clusterSize * 8 / refcountBits;
  const { blocks, tableClusters } = refcountStructures(counted, { clusterSize, perBlock });
  return clusterSize + l2Bytes + l1Bytes + (blocks + tableClusters) * clusterSize;
}

/** Bytes of the source's clusters (of the target's size) that hold data. */
async function dataSize(source: BlockNode, clusterSize: number): Promise<number> {
  let total = 0;
  for (let offset = 0; offset < source.length;) {
    const { state, length } = await during(
      "Unable to get block status",
      () => visibleExtent(source, offset, source.length - offset),
    );
    if (state === "zero") {
      offset += length;
      continue;
    }
    // A cluster that holds some data is stored whole; the next look is behind it.
    const end = roundUp(offset + length, clusterSize);
    total += end - (offset - offset % clusterSize);
    offset = end;
  }
  return total;
}

/** What a reader of the whole chain finds at `offset`. */
async function visibleExtent(
  top: BlockNode,
  offset: number,
  length: number,
): Promise<{ readonly state: "data" | "zero"; readonly length: number }> {
  let node: BlockNode | null = top;
  let most = length;
  while (node !== null) {
    // Behind the end of a shorter backing file there are zeros.
    if (offset >= node.length) break;
    const extent = await node.extent(offset, Math.min(most, node.length - offset));
    most = extent.length;
    if (extent.state === "zero" || extent.hole === true) return { state: "zero", length: most };
    if (extent.state === "data") return { state: "data", length: most };
    node = node.backing?.node ?? null;
  }
  return { state: "zero", length: most };
}

/** Bytes that copies of the source's bitmaps may take, fully allocated. */
function bitmapsSize(source: BlockNode, clusterSize: number): number {
  let total = 0;
  let directory = 0;
  for (const { name, granularity } of source.bitmaps!.list()) {
    const bytes = Math.ceil(Math.ceil(source.length / granularity) / 8);
    const clusters = Math.ceil(bytes / clusterSize);
    total += clusters * clusterSize + roundUp(clusters * 8, clusterSize);
    directory += roundUp(24 + new TextEncoder().encode(name).length, 8);
  }
  return total + roundUp(directory, clusterSize);
}
