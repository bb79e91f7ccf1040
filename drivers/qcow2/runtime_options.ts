/**
 * What runtime options make of an image that is being opened (cli.md, 4.3).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { requireEncryption } from "../../lib/block/passphrase.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { Compatible } from "./_layout.ts";
import type { Qcow2Header } from "./header.ts";
import type { DiscardPolicy, Geometry } from "./image.ts";
import { overlapStructures, type Structure } from "./overlap_options.ts";

/** What the options say. */
export interface RuntimeSettings {
  /** What writes are kept off. */
  readonly structures: ReadonlySet<Structure>;
  /** Refcounts may reach the file late. */
  readonly lazyRefcounts: boolean;
  /** What becomes of freed clusters. */
  readonly discards: Readonly<DiscardPolicy>;
}

/** Entries of a cache, and the seconds of its interval, are counted in so many bits. */
const MAX_ENTRIES = 2 ** 31 - 1;
const MAX_INTERVAL = 2n ** 32n - 1n;

const SECTOR = 512;
/** Refcount blocks that are always in memory. */
const MIN_REFCOUNT_TABLES = 4;
const DEFAULT_ENTRY_SIZE = 65536;

/**
 * Reads the options, in the order in which the reference finds fault with them.
 *
 * @throws {ImageError} for a value that is none, and for what contradicts itself or the image.
 */
export function readRuntimeOptions(
  options: OptionSet,
  header: Qcow2Header,
  geometry: Geometry,
  context: DriverContext,
): RuntimeSettings {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: context.filename, field });
  options.settled();
  checkCacheSizes(options, header, geometry, refuse);
  if ((options.exact("cache-clean-interval") ?? 0n) > MAX_INTERVAL) {
    throw refuse("Cache clean interval too big", "cache-clean-interval");
  }
  const flag = (key: string, otherwise: boolean) =>
    options.has(key) ? options.flag(key) : otherwise;
  const lazyRefcounts = flag(
    "lazy-refcounts",
    (header.compatible & BigInt(Compatible.lazyRefcounts)) !== 0n,
  );
  if (lazyRefcounts && header.version < 3) {
    throw refuse(
      "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
      "lazy-refcounts",
    );
  }
  const structures = overlapStructures(options);
  const keepReferences = flag("discard-no-unref", false);
  if (keepReferences && header.version < 3) {
    throw refuse(
      "discard-no-unref is only supported since qcow2 version 3",
      "discard-no-unref",
    );
  }
  requireEncryption([undefined, "aes", "luks"][header.cryptMethod], options, context);
  return {
    structures,
    lazyRefcounts,
    discards: {
      request: flag("pass-discard-request", context.mode.unmap),
      snapshot: flag("pass-discard-snapshot", true),
      other: flag("pass-discard-other", false),
      keepReferences,
    },
  };
}

/** The caches here have their own bounds: sizes are checked as if they were used. */
function checkCacheSizes(
  options: OptionSet,
  header: Qcow2Header,
  { clusterSize, entrySize }: Geometry,
  refuse: (message: string, field: string) => ImageError,
): void {
  const both = options.number("cache-size");
  const l2 = options.number("l2-cache-size");
  const refcounts = options.number("refcount-cache-size");
  if (both !== undefined) {
    if (l2 !== undefined && refcounts !== undefined) {
      throw refuse(
        "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time",
        "cache-size",
      );
    }
    if ((l2 ?? 0) > both) throw refuse("l2-cache-size may not exceed cache-size", "l2-cache-size");
    if ((refcounts ?? 0) > both) {
      throw refuse("refcount-cache-size may not exceed cache-size", "refcount-cache-size");
    }
  }
  const entry = options.number("l2-cache-entry-size") ?? Math.min(clusterSize, DEFAULT_ENTRY_SIZE);
  if (entry < SECTOR || entry > clusterSize || !Number.isInteger(Math.log2(entry))) {
    throw refuse(
      "L2 cache entry size must be a power of two between " +
        `${SECTOR} and the cluster size (${clusterSize})`,
      "l2-cache-entry-size",
    );
  }
  // No more is taken for the L2 tables than there are.
  const tables = Math.ceil(Math.ceil(header.size / clusterSize) * entrySize / entry) * entry;
  const forRefcounts = refcounts ??
    (both === undefined ? 0 : both - Math.min(l2 ?? tables, tables, both));
  const blocks = Math.max(Math.floor(forRefcounts / clusterSize), MIN_REFCOUNT_TABLES);
  if (blocks > MAX_ENTRIES) throw refuse("Refcount cache size too big", "refcount-cache-size");
}
