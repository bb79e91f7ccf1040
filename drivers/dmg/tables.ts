/**
 * The tables of chunks: in a property list as text, in older images in a resource fork (sections 1 and 2
 * of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32BE, readU64BE } from "../../lib/bytes/endian.ts";
import { type Chunk, ChunkTable } from "./chunks.ts";
import { dataOf } from "./plist.ts";
import type { Trailer } from "./trailer.ts";

/** The largest property list, bytes: a disk of some 80 GiB in chunks of 256 KiB. */
const MAX_PLIST = 16 << 20;
/** The largest resources, bytes. The reference knows no limit. */
const MAX_RESOURCES = 32 << 20;

/** "mish". */
const MAGIC = 0x6d697368;
/** Bytes of a table before its chunks. */
const HEADER = 204;
/** Bytes of a chunk in a table. */
const ENTRY = 40;

/** The largest chunk: 64 MiB of the disk. */
const MAX_SECTORS = 131072;
/** The most that a chunk may take in the file, bytes. */
const MAX_LENGTH = 64 << 20;

/** Types of chunks that hold sectors. */
const STORED: ReadonlyMap<number, Chunk["stored"]> = new Map([
  [0x00000000, undefined],
  [0x00000001, "plain"],
  [0x00000002, undefined],
  [0x80000004, "adc"],
  [0x80000005, "zlib-exact"],
  [0x80000006, "bzip2"],
  [0x80000007, "lzfse"],
]);
/** Types that hold none: a comment, and the end of a table. */
const EMPTY: ReadonlySet<number> = new Set([0x7ffffffe, 0xffffffff]);

/**
 * Reads all tables of an image.
 *
 * @throws {ImageError} `EINVAL` for tables that are damaged, or of chunks that are too large.
 */
export async function readTable(
  file: BlockNode,
  { dataOffset, tables, layout }: Trailer,
  context: DriverContext,
): Promise<ChunkTable> {
  const invalid = (field: string) =>
    ImageError.fromErrno("EINVAL", { file: context.filename, field });
  const isPlist = layout === "plist";
  const read = async (offset: number, length: number) => {
    if (length > (isPlist ? MAX_PLIST : MAX_RESOURCES)) throw invalid(layout);
    const bytes = new Uint8Array(length);
    await readPadded(file, offset, bytes);
    return bytes;
  };
  let blobs: Iterable<Uint8Array>;
  if (isPlist) blobs = dataOf(await read(tables.offset, tables.length), () => invalid("plist"));
  else {
    const header = await read(tables.offset, 12);
    const [start, length] = [readU32BE(header, 0), readU32BE(header, 8)];
    if (length === 0 || start + length > tables.length) throw invalid("resource fork");
    const resources = await read(tables.offset + start, length + OVERHANG);
    blobs = resourcesOf(resources, length, () => invalid("resource fork"));
  }
  const parser = new Parser(dataOffset, context);
  for (const blob of blobs) parser.add(blob);
  return new ChunkTable(parser.chunks);
}

/** What the reference takes for the last resource, and its length, may reach beyond the end of all. */
const OVERHANG = 8;

/** Resources one behind the other, each after its length, in the first `end` bytes. */
function* resourcesOf(
  bytes: Uint8Array,
  end: number,
  invalid: () => ImageError,
): Generator<Uint8Array> {
  for (let at = 0; at < end;) {
    const size = readU32BE(bytes, at);
    if (size === 0 || size > end - at) throw invalid();
    yield bytes.subarray(at + 4, at + 4 + size);
    at += 4 + size;
  }
}

/** Warnings were given through these. */
const warned = new WeakSet<DriverContext["warn"]>();

/** Gathers the chunks of tables. */
class Parser {
  readonly chunks: Chunk[] = [];
  readonly #dataOffset: number;
  readonly #context: DriverContext;

  /** For tables whose offsets are counted from `dataOffset`. */
  constructor(dataOffset: number, context: DriverContext) {
    this.#dataOffset = dataOffset;
    this.#context = context;
  }

  /** Adds what a table says. Other things that stand between tables are passed over. */
  add(blob: Uint8Array): void {
    if (blob.length < HEADER + ENTRY || readU32BE(blob, 0) !== MAGIC) return;
    const firstSector = readU64BE(blob, 0x08);
    const offset = BigInt(this.#dataOffset) + readU64BE(blob, 0x18);
    // How many there are is also said in the header, but the reference does not look there.
    for (let at = HEADER; at + ENTRY <= blob.length; at += ENTRY) {
      const type = readU32BE(blob, at);
      if (!STORED.has(type)) {
        if (!EMPTY.has(type)) this.#warn(type);
        continue;
      }
      const stored = STORED.get(type);
      const count = readU64BE(blob, at + 16);
      const length = readU64BE(blob, at + 32);
      if (stored !== undefined && count > MAX_SECTORS) {
        throw this.#tooLarge(`sector count ${count}`, MAX_SECTORS);
      }
      if (length > MAX_LENGTH) throw this.#tooLarge(`length ${length}`, MAX_LENGTH);
      this.chunks.push({
        stored,
        // As the reference counts: in 64 bits. What lies beyond all disks and files need not be exact.
        first: Number(BigInt.asUintN(64, firstSector + readU64BE(blob, at + 8))),
        count: Number(count),
        offset: Number(BigInt.asUintN(64, offset + readU64BE(blob, at + 24))),
        length: Number(length),
      });
    }
  }

  #tooLarge(what: string, most: number): ImageError {
    const { report, filename } = this.#context;
    report(`${what} for chunk ${this.chunks.length} is larger than max (${most})`, true);
    return ImageError.fromErrno("EINVAL", { file: filename, field: "chunk" });
  }

  /** Once is enough, as the reference has it. */
  #warn(type: number): void {
    const { warn } = this.#context;
    if (warned.has(warn)) return;
    warned.add(warn);
    warn(
      `Image contains chunks of unknown type ${type.toString(16).padStart(8, "0")}, ` +
        "accessing them will result in I/O errors",
    );
  }
}
