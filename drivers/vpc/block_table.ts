/**
 * The block allocation table (sections 1 and 3 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { viewOf } from "../../lib/bytes/endian.ts";
import { FOOTER_SIZE, HEADER_SIZE, SECTOR } from "./_layout.ts";
import type { DynamicHeader } from "./dynamic_header.ts";

/** The entry of a block that is not there. */
const UNALLOCATED = 0xffffffff;

/** Bytes of the table that an image may have that nobody vouches for. */
const MAX_TABLE_UNTRUSTED = 16 << 20;

/**
 * The table of an open image. Changes are kept in memory until they are stored. Positions are where blocks
 * begin in the file, with their sector bitmaps, in bytes.
 */
export class BlockTable {
  readonly #file: BlockNode;
  readonly #header: DynamicHeader;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Bytes that a block takes in the file. */
  readonly #stride: number;
  /** Behind all blocks. */
  #end: number;
  /** Blocks that were taken and given back. */
  readonly #returned: number[] = [];
  /** Numbers of the table's sectors that were changed. */
  readonly #changed = new Set<number>();

  private constructor(file: BlockNode, header: DynamicHeader, bytes: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#stride = header.bitmapSize + header.blockSize;
    this.#end = this.#endOfBlocks();
    if (this.#end > file.length) throw truncated(file);
    // Unlike the reference, new blocks are kept off a header that lies behind everything else.
    this.#end = Math.max(this.#end, alignUp(header.offset + HEADER_SIZE, SECTOR));
  }

  /**
   * Reads the table.
   *
   * @throws {ImageError} if the file ends before the last block, or before the table does.
   */
  static async load(
    file: BlockNode,
    header: DynamicHeader,
    untrusted: boolean,
  ): Promise<BlockTable> {
    const { tableOffset, entries } = header;
    // Before anything is allocated for it: a table is never longer than the file.
    if (alignUp(entries * 4, SECTOR) + tableOffset > file.length) throw truncated(file);
    if (untrusted && entries * 4 > MAX_TABLE_UNTRUSTED) {
      throw new ImageError(`Block allocation table of ${entries} entries in an untrusted image`, {
        errno: "EINVAL",
        file: file.filename,
        field: "max table entries",
      });
    }
    const bytes = new Uint8Array(entries * 4);
    if (bytes.length > 0) await file.read(tableOffset, bytes);
    return new BlockTable(file, header, bytes);
  }

  /** Where a block begins, or `undefined` if it is not there. */
  position(index: number): number | undefined {
    if (index >= this.#header.entries) return undefined;
    const entry = this.#view.getUint32(index * 4);
    return entry === UNALLOCATED ? undefined : entry * SECTOR;
  }

  /** Where the last block ends: what the footer follows. */
  get end(): number {
    return this.#end;
  }

  /**
   * Takes room for a block.
   *
   * @throws {ImageError} `EFBIG` if an entry cannot say where it is, `EIO` if the table lies on top of the
   * headers, as damaged ones do.
   */
  take(): number {
    const { offset, tableOffset, entries } = this.#header;
    const table = { start: tableOffset, length: entries * 4 };
    if (overlap(table, LEADING_FOOTER) || overlap(table, { start: offset, length: HEADER_SIZE })) {
      throw ImageError.fromErrno("EIO", { file: this.#file.filename, field: "table offset" });
    }
    const returned = this.#returned.pop();
    if (returned !== undefined) return returned;
    const position = this.#end;
    if (position / SECTOR >= UNALLOCATED) {
      throw ImageError.fromErrno("EFBIG", { file: this.#file.filename, field: "BAT" });
    }
    this.#end += this.#stride;
    return position;
  }

  /** Gives back room that no entry names. */
  giveBack(position: number): void {
    this.#returned.push(position);
  }

  /** Sets an entry to what {@linkcode take} gave. */
  set(index: number, position: number): void {
    this.#view.setUint32(index * 4, position / SECTOR);
    this.#changed.add(Math.floor(index * 4 / SECTOR));
  }

  /**
   * Makes sure that a block does not lie on top of the headers or the table, as damaged ones do.
   *
   * @throws {ImageError} `EIO` if it does.
   */
  requireApart(position: number): void {
    const { offset, tableOffset, entries } = this.#header;
    const metadata = [
      LEADING_FOOTER,
      { start: offset, length: HEADER_SIZE },
      { start: tableOffset, length: entries * 4 },
    ];
    const block = { start: position, length: this.#stride };
    if (!metadata.some((range) => overlap(range, block))) return;
    throw ImageError.fromErrno("EIO", { file: this.#file.filename, field: "BAT" });
  }

  /** Whether there is anything to store. */
  get isChanged(): boolean {
    return this.#changed.size > 0;
  }

  /** Brings changes into the file. What entries name has to be safe before. */
  async store(): Promise<void> {
    const sectors = [...this.#changed].sort((a, b) => a - b);
    for (let at = 0; at < sectors.length;) {
      let next = at + 1;
      while (sectors[next] === sectors[next - 1]! + 1) next++;
      const start = sectors[at]! * SECTOR;
      const part = this.#bytes.slice(start, (sectors[next - 1]! + 1) * SECTOR);
      await this.#file.write(this.#header.tableOffset + start, part);
      for (; at < next; at++) this.#changed.delete(sectors[at]!);
    }
  }

  #endOfBlocks(): number {
    const { tableOffset, entries } = this.#header;
    let end = alignUp(tableOffset + entries * 4, SECTOR);
    for (let index = 0; index < entries; index++) {
      const position = this.position(index);
      if (position !== undefined) end = Math.max(end, position + this.#stride);
    }
    return end;
  }
}

/** Bytes of the file. */
interface FileRange {
  readonly start: number;
  readonly length: number;
}

const LEADING_FOOTER: FileRange = { start: 0, length: FOOTER_SIZE };

function overlap(a: FileRange, b: FileRange): boolean {
  return a.start < b.start + b.length && b.start < a.start + a.length;
}

function truncated(file: BlockNode): ImageError {
  return new ImageError(
    "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.",
    { errno: "EINVAL", file: file.filename, field: "BAT" },
  );
}
