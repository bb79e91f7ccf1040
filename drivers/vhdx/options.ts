import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { isPowerOfTwo } from "../../lib/bytes/align.ts";
import { MAX_BLOCK, MIB } from "./_layout.ts";

/** What `create -o` takes, in the order of the "Formatting" line. */
export const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size, at most 64 TiB" },
  {
    name: "log_size",
    type: "size",
    help: "Size of the log, whole MiB",
    default: String(MIB),
  },
  {
    name: "block_size",
    type: "size",
    help: "Size of a block, 1 MiB to 256 MiB; 0 for one that suits the size of the disk",
    default: "0",
  },
  {
    name: "subformat",
    type: "str",
    help: "Kind of image: dynamic (default) or fixed",
  },
  {
    name: "block_state_zero",
    type: "bool",
    help:
      "Blocks that were never written are marked as zeros (default); without it they are marked as " +
      "not there, or, in fixed images, as there",
  },
];

const GIB = 2 ** 30;
const TIB = 2 ** 40;

/** Longest disk, bytes. */
const MAX_DISK = 64n * BigInt(TIB);

/** Longest log, bytes. */
const LOG_LIMIT = 4n * BigInt(GIB);

/** Create options with their values checked. All in bytes. */
export interface CreateParameters {
  /** Virtual size, a multiple of 512. */
  readonly length: number;
  /** Size of the log, whole MiB. */
  readonly logLength: number;
  /** Size of a block. */
  readonly blockSize: number;
  /** All blocks have their space from the start. */
  readonly isFixed: boolean;
  /** Entries of blocks that were never written say that they are zeros. */
  readonly zeroState: boolean;
}

/**
 * Checks the values of create options.
 *
 * @throws {ImageError} with the reference's texts.
 */
export function createParameters(options: OptionSet): CreateParameters {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", field });
  const mib = BigInt(MIB);
  const roundUp = (value: bigint, unit: bigint) => (value + unit - 1n) / unit * unit;
  const size = roundUp(options.exact("size") ?? 0n, 512n);
  const log = roundUp(options.exact("log_size")!, mib);
  const block = roundUp(options.exact("block_size")!, mib);
  const subformat = options.string("subformat") ?? "dynamic";
  if (subformat !== "dynamic" && subformat !== "fixed") {
    throw refuse(`Parameter 'subformat' does not accept value '${subformat}'`, "subformat");
  }
  if (size > MAX_DISK) throw refuse("Image size too large; max of 64TB", "size");
  if (log === 0n) throw refuse("Log size must be a multiple of 1 MB", "log_size");
  if (log >= LOG_LIMIT) throw refuse("Log size must be smaller than 4 GB", "log_size");
  const length = Number(size);
  const blockSize = block === 0n
    ? suitingBlockSize(length)
    : Number(block > BigInt(MAX_BLOCK) ? BigInt(MAX_BLOCK) : block);
  if (!isPowerOfTwo(blockSize)) throw refuse("Block size must be a power of two", "block_size");
  return {
    length,
    logLength: Number(log),
    blockSize,
    isFixed: subformat === "fixed",
    zeroState: !options.has("block_state_zero") || options.flag("block_state_zero"),
  };
}

function suitingBlockSize(length: number): number {
  if (length > 32 * TIB) return 64 * MIB;
  if (length > 100 * GIB) return 32 * MIB;
  return length > GIB ? 16 * MIB : 8 * MIB;
}
