/**
 * The format extension: dirty bitmaps (section 5 of the format's reference).
 *
 * @module
 */
import type { BitmapInfo, BitmapStore } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { during, ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp, divideUp, isPowerOfTwo } from "../../lib/bytes/align.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { readU32LE, readU64LE } from "../../lib/bytes/endian.ts";
import { type ParallelsHeader, SECTOR } from "./header.ts";
import { type StoredBitmap, visitDirty } from "./stored_bitmap.ts";

const MAGIC = 0xab234cef23dcea87n;
const BITMAP = 0x20385fae252cb34an;
/** Bytes of the extension's header, of a feature's, and of a bitmap's before its table. */
const [EXTENSION_HEADER, FEATURE_HEADER, BITMAP_HEADER] = [24, 24, 32];
/** The first byte that the checksum covers. */
const CHECKED_FROM = 24;
/** Bytes of a bitmap are counted in words of so many bits. */
const WORD_BITS = 64;
const STEP = 1 << 20;
/** Tables of bitmaps in an image that nobody vouches for, bytes. */
const MAX_TABLE_UNTRUSTED = 1 << 20;

/**
 * Reads the extension of an image.
 *
 * @throws {ImageError} for an extension that breaks a rule.
 */
export async function readExtension(
  file: BlockNode,
  header: ParallelsHeader,
  context: DriverContext,
): Promise<BitmapStore> {
  return new Bitmaps(file, await new ExtensionReader(file, header, context).read());
}

/** What the extension of an open image holds. It cannot be changed. */
class Bitmaps implements BitmapStore {
  readonly #file: BlockNode;
  readonly #bitmaps: readonly StoredBitmap[];

  constructor(file: BlockNode, bitmaps: readonly StoredBitmap[]) {
    this.#file = file;
    this.#bitmaps = bitmaps;
  }

  list(): readonly BitmapInfo[] {
    return this.#bitmaps.map(({ name, granularity }) => ({
      name,
      granularity,
      flags: [],
      enabled: false,
      consistent: true,
    }));
  }

  async visitDirty(
    name: string,
    visit: (offset: number, length: number) => void,
  ): Promise<void> {
    const bitmap = this.#bitmaps.find((bitmap) => bitmap.name === name);
    if (bitmap === undefined) {
      throw new ImageError(`Dirty bitmap '${name}' not found`, { errno: "ENOENT", field: name });
    }
    await visitDirty(this.#file, bitmap, visit);
  }
}

class ExtensionReader {
  readonly #file: BlockNode;
  readonly #header: ParallelsHeader;
  readonly #context: DriverContext;

  constructor(file: BlockNode, header: ParallelsHeader, context: DriverContext) {
    this.#file = file;
    this.#header = header;
    this.#context = context;
  }

  async read(): Promise<StoredBitmap[]> {
    const { extension, clusterSize } = this.#header;
    const start = await this.#bytes(0, EXTENSION_HEADER);
    const magic = readU64LE(start, 0);
    if (magic !== MAGIC) {
      throw this.#error(
        `Wrong parallels Format Extension magic: 0x${magic.toString(16)}, ` +
          `expected: 0x${MAGIC.toString(16)}`,
        "magic",
      );
    }
    // What the file does not have to its end cannot have been checked by anybody.
    const isWhole = extension + clusterSize <= this.#file.length;
    if (!isWhole || !equalBytes(await this.#checksum(), start.subarray(8, 24))) {
      throw this.#error(
        "Wrong checksum in Format Extension header. Format extension is corrupted.",
        "checksum",
      );
    }
    const bitmaps: StoredBitmap[] = [];
    const names = new Set<string>();
    for (let at = EXTENSION_HEADER;;) {
      const left = clusterSize - at;
      if (left < FEATURE_HEADER) {
        throw this.#error(
          `Can not read feature header, as remaining bytes (${left}) in Format Extension ` +
            `is less than Feature header size (${FEATURE_HEADER})`,
          "feature header",
        );
      }
      const feature = await this.#bytes(at, FEATURE_HEADER);
      const kind = readU64LE(feature, 0);
      if (kind === 0n) return bitmaps;
      if (readU64LE(feature, 8) !== 0n) {
        throw this.#error("Flags for extension feature are unsupported", "feature flags");
      }
      const size = readU32LE(feature, 16);
      at += FEATURE_HEADER;
      if (size > clusterSize - at) {
        throw this.#error(
          "Feature data_size exceedes Format Extension cluster",
          "feature data size",
        );
      }
      if (kind !== BITMAP) throw this.#error(`Unknown feature: 0x${kind.toString(16)}`, "feature");
      const bitmap = await this.#readBitmap(at, size);
      if (names.has(bitmap.name)) {
        throw this.#error(`Bitmap already exists: ${bitmap.name}`, "bitmap id");
      }
      names.add(bitmap.name);
      bitmaps.push(bitmap);
      at = alignUp(at + size, 8);
    }
  }

  async #readBitmap(at: number, size: number): Promise<StoredBitmap> {
    if (size < BITMAP_HEADER) {
      throw this.#error(
        `Too small Bitmap Feature area in Parallels Format Extension: ${size} bytes, ` +
          `expected at least ${BITMAP_HEADER} bytes`,
        "bitmap",
      );
    }
    const head = await this.#bytes(at, BITMAP_HEADER);
    const { length, clusterSize } = this.#header;
    const sectors = readU64LE(head, 0);
    if (sectors !== BigInt(length / SECTOR)) {
      throw this.#error(
        `Bitmap size (in sectors) ${sectors} differs from disk size in sectors ${length / SECTOR}`,
        "bitmap size",
      );
    }
    const entries = readU32LE(head, 28);
    if (entries * 8 > size - BITMAP_HEADER) {
      throw this.#error("Bitmaps feature corrupted: l1 table exceeds extension data_size", "L1");
    }
    const granularity = readU32LE(head, 24) * SECTOR;
    if (!isPowerOfTwo(granularity) || granularity >= 2 ** 32) {
      throw this.#error(
        `Bitmaps feature corrupted: granularity of ${granularity} bytes`,
        "bitmap granularity",
      );
    }
    const bytes = divideUp(divideUp(length, granularity), WORD_BITS) * (WORD_BITS / 8);
    const expected = divideUp(bytes, clusterSize);
    if (entries !== expected) {
      throw this.#error(
        `Bitmap table size ${entries} does not correspond to bitmap size and cluster size. ` +
          `Expected ${expected}`,
        "L1",
      );
    }
    if (this.#context.untrusted && entries * 8 > MAX_TABLE_UNTRUSTED) {
      throw this.#error(`Bitmap table of ${entries} entries in an untrusted image`, "L1");
    }
    return {
      name: uuidText(head.subarray(8, 24)),
      granularity,
      diskLength: length,
      clusterSize,
      table: await this.#bytes(at + BITMAP_HEADER, entries * 8),
    };
  }

  /** MD5 of all behind it, a piece at a time. */
  async #checksum(): Promise<Uint8Array> {
    // Its only use here; those who open other images need not load it.
    const { createHash } = await import("node:crypto");
    const hash = createHash("md5");
    const { clusterSize } = this.#header;
    for (let at = CHECKED_FROM; at < clusterSize; at += STEP) {
      hash.update(await this.#bytes(at, Math.min(STEP, clusterSize - at)));
    }
    return new Uint8Array(hash.digest());
  }

  /** A part of the extension's cluster. */
  async #bytes(at: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await during(
      "Failed to read Format Extension cluster",
      () => readPadded(this.#file, this.#header.extension + at, bytes),
    );
    return bytes;
  }

  #error(message: string, field: string): ImageError {
    return new ImageError(message, { errno: "EINVAL", file: this.#context.filename, field });
  }
}

/** Bytes of a UUID as text, in their order. */
function uuidText(bytes: Uint8Array): string {
  const hex = bytes.toHex();
  return [[0, 8], [8, 12], [12, 16], [16, 20], [20, 32]]
    .map(([from, to]) => hex.slice(from, to)).join("-");
}
