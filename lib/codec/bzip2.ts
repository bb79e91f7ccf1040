/**
 * bzip2, for reading: one stream of blocks, each sorted by Burrows and Wheeler's transform, with up to
 * 900,000 bytes in it.
 *
 * @module
 */
import { CodecError, type Unpacker } from "./_codec.ts";

/** The first 48 bits of a block: the digits of pi. */
const BLOCK = [0x314159, 0x265359] as const;
/** The first 48 bits behind the last block: those of its root. */
const END = [0x177245, 0x385090] as const;

/** Symbols that share a code table before the next is selected. */
const GROUP = 50;
const MAX_CODE = 20;
const MAX_TABLES = 6;
const LEVEL_SIZE = 100_000;
/** Two symbols for the lengths of runs, up to 255 others, one for the end. */
const MAX_SYMBOLS = 258;

/** bzip2. */
export function createBzip2(): Unpacker {
  const decoder = new Decoder();
  return { name: "bzip2", unpack: (packed, out) => decoder.unpack(packed, out) };
}

/** Reads from the highest bit of each byte to the lowest. */
class BitReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #held = 0;
  #count = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** The next `count` bits, at most 24. */
  read(count: number): number {
    const bits = this.peek(count);
    this.skip(count);
    return bits;
  }

  /** The same without moving on; behind the end of the bytes come zeros. At most 24. */
  peek(count: number): number {
    while (this.#count < count) {
      // The bits above those that count are of no interest, and fall out.
      this.#held = this.#held << 8 | (this.#bytes[this.#at] ?? 0);
      this.#at++;
      this.#count += 8;
    }
    return this.#held >>> this.#count - count & (1 << count) - 1;
  }

  /** Moves on by bits that were looked at. */
  skip(count: number): void {
    this.#count -= count;
    if (this.#at - (this.#count >> 3) > this.#bytes.length) {
      throw new CodecError("bzip2 data end too early");
    }
  }

  bit(): number {
    return this.read(1);
  }

  u32(): number {
    return (this.read(16) << 16 | this.read(16)) >>> 0;
  }
}

/** A prefix code whose codes of one length follow one another. */
class CodeTable {
  /** For each length the first number behind its codes, in as many bits as the longest code has. */
  readonly #limits = new Int32Array(MAX_CODE + 2);
  /** What to take off a code to get its place among all symbols. */
  readonly #bases = new Int32Array(MAX_CODE + 2);
  readonly #symbols = new Uint16Array(MAX_SYMBOLS);
  #shortest = 0;
  #longest = 0;

  /** Makes the code with these lengths. */
  assign(lengths: Uint8Array): void {
    let place = 0;
    let code = 0;
    this.#shortest = MAX_CODE;
    this.#longest = 1;
    for (const length of lengths) {
      this.#shortest = Math.min(this.#shortest, length);
      this.#longest = Math.max(this.#longest, length);
    }
    for (let length = this.#shortest; length <= this.#longest; length++) {
      this.#bases[length] = code - place;
      for (let symbol = 0; symbol < lengths.length; symbol++) {
        if (lengths[symbol] !== length) continue;
        this.#symbols[place++] = symbol;
        code++;
      }
      if (code > 1 << length) throw new CodecError("bzip2 code has too many symbols");
      this.#limits[length] = code << this.#longest - length;
      code <<= 1;
    }
  }

  /** The next symbol. */
  read(bits: BitReader): number {
    const longest = this.#longest;
    const code = bits.peek(longest);
    for (let length = this.#shortest; length <= longest; length++) {
      if (code < this.#limits[length]!) {
        bits.skip(length);
        return this.#symbols[(code >>> longest - length) - this.#bases[length]!]!;
      }
    }
    throw new CodecError("bzip2 code that stands for nothing");
  }
}

/** What a block says before its symbols. */
interface BlockHeader {
  readonly checksum: number;
  /** Where the first byte of the block went when it was sorted. */
  readonly origin: number;
  /** The bytes that occur. */
  readonly alphabet: Uint8Array;
  readonly tables: readonly CodeTable[];
  readonly selectors: Uint8Array;
}

class Decoder {
  readonly #tables = Array.from({ length: MAX_TABLES }, () => new CodeTable());
  /** The sorted block, later with the way through it above the lowest eight bits. */
  #block = new Uint32Array(0);

  unpack(packed: Uint8Array, out: Uint8Array): void {
    const bits = new BitReader(packed);
    const level = bits.read(24) === 0x425a68 ? bits.read(8) - 0x30 : 0;
    if (level < 1 || level > 9) throw new CodecError("no bzip2 data");
    const blockSize = level * LEVEL_SIZE;
    if (this.#block.length < blockSize) this.#block = new Uint32Array(blockSize);
    let written = 0;
    let checksum = 0;
    for (;;) {
      const magic = [bits.read(24), bits.read(24)];
      if (magic[0] === END[0] && magic[1] === END[1]) break;
      if (magic[0] !== BLOCK[0] || magic[1] !== BLOCK[1]) {
        throw new CodecError("no bzip2 block where one should begin");
      }
      const header = this.#readHeader(bits);
      const length = this.#readSymbols(bits, header, blockSize);
      const end = this.#unsort(header.origin, length, out, written);
      const sum = checksumOf(out, written, end);
      if (sum !== header.checksum) throw new CodecError("a bzip2 block has another checksum");
      checksum = ((checksum << 1 | checksum >>> 31) ^ sum) >>> 0;
      written = end;
    }
    if (bits.u32() !== checksum) throw new CodecError("bzip2 data have another checksum");
    if (written < out.length) {
      throw new CodecError(`bzip2 data end after ${written} of ${out.length} bytes`);
    }
  }

  #readHeader(bits: BitReader): BlockHeader {
    const checksum = bits.u32();
    if (bits.bit() !== 0) throw new CodecError("bzip2 block of a version before 0.9.5");
    const origin = bits.read(24);
    const alphabet = readAlphabet(bits);
    const count = bits.read(3);
    if (count < 2 || count > MAX_TABLES) throw new CodecError(`bzip2 block of ${count} codes`);
    const selectors = readSelectors(bits, count);
    const tables = this.#tables.slice(0, count);
    for (const table of tables) table.assign(readLengths(bits, alphabet.length + 2));
    return { checksum, origin, alphabet, tables, selectors };
  }

  /** Fills the block with what was sorted, and answers how much it is. */
  #readSymbols(
    bits: BitReader,
    { alphabet, tables, selectors }: BlockHeader,
    blockSize: number,
  ): number {
    const block = this.#block;
    const recent = alphabet.slice();
    const last = alphabet.length + 1;
    let length = 0;
    let run = 0;
    let weight = 1;
    for (const selector of selectors) {
      const table = tables[selector]!;
      for (let left = GROUP; left > 0; left--) {
        const symbol = table.read(bits);
        if (symbol < 2) {
          // Digits 1 and 2 of a number to the base 2, the lowest first.
          run += weight << symbol;
          weight *= 2;
          if (run > blockSize) throw new CodecError("bzip2 block is too long");
          continue;
        }
        if (run > 0) {
          if (run > blockSize - length) throw new CodecError("bzip2 block is too long");
          block.fill(recent[0]!, length, length + run);
          length += run;
          [run, weight] = [0, 1];
        }
        if (symbol === last) return length;
        if (length === blockSize) throw new CodecError("bzip2 block is too long");
        const place = symbol - 1;
        const byte = recent[place]!;
        recent.copyWithin(1, 0, place);
        recent[0] = byte;
        block[length++] = byte;
      }
    }
    throw new CodecError("bzip2 block without an end");
  }

  /** Undoes the sorting of `length` bytes and the packing of runs, and answers where `out` is filled to. */
  #unsort(origin: number, length: number, out: Uint8Array, start: number): number {
    if (length === 0) return start;
    if (origin >= length) throw new CodecError("bzip2 block begins outside of itself");
    const block = this.#block;
    const places = new Uint32Array(257);
    for (let at = 0; at < length; at++) places[(block[at]! & 0xff) + 1]!++;
    for (let byte = 1; byte < 257; byte++) places[byte]! += places[byte - 1]!;
    for (let at = 0; at < length; at++) block[places[block[at]! & 0xff]!++]! |= at << 8;

    let written = start;
    let place = block[origin]! >>> 8;
    let equal = 0;
    let last = -1;
    for (let left = length; left > 0; left--) {
      const entry = block[place]!;
      place = entry >>> 8;
      const byte = entry & 0xff;
      if (equal === 4) {
        // Four equal bytes are followed by the number of those that were left out.
        if (byte > out.length - written) throw tooLong(out);
        out.fill(last, written, written + byte);
        written += byte;
        equal = 0;
        last = -1;
        continue;
      }
      if (written === out.length) throw tooLong(out);
      out[written++] = byte;
      equal = byte === last ? equal + 1 : 1;
      last = byte;
    }
    return written;
  }
}

function tooLong(out: Uint8Array): CodecError {
  return new CodecError(`bzip2 data hold more than ${out.length} bytes`);
}

/** The bytes that occur: 16 bits say which rows of 16 do, then 16 for each of these. */
function readAlphabet(bits: BitReader): Uint8Array {
  const rows = bits.read(16);
  const bytes: number[] = [];
  for (let row = 0; row < 16; row++) {
    if ((rows >> 15 - row & 1) === 0) continue;
    const columns = bits.read(16);
    for (let column = 0; column < 16; column++) {
      if ((columns >> 15 - column & 1) === 1) bytes.push(row * 16 + column);
    }
  }
  if (bytes.length === 0) throw new CodecError("bzip2 block of no bytes");
  return Uint8Array.from(bytes);
}

/** Which of `count` codes each group of symbols has: as the place in a list of those used last. */
function readSelectors(bits: BitReader, count: number): Uint8Array {
  const length = bits.read(15);
  if (length === 0) throw new CodecError("bzip2 block without codes");
  const recent = Uint8Array.from({ length: count }, (_, index) => index);
  const selectors = new Uint8Array(length);
  for (let index = 0; index < length; index++) {
    let place = 0;
    while (bits.bit() === 1) {
      if (++place === count) throw new CodecError("bzip2 selector of no code");
    }
    const selector = recent[place]!;
    recent.copyWithin(1, 0, place);
    recent[0] = selector;
    selectors[index] = selector;
  }
  return selectors;
}

/** The lengths of a code's symbols, each as the difference to the one before. */
function readLengths(bits: BitReader, symbols: number): Uint8Array {
  const lengths = new Uint8Array(symbols);
  let length = bits.read(5);
  for (let symbol = 0; symbol < symbols; symbol++) {
    for (;;) {
      if (length < 1 || length > MAX_CODE) throw new CodecError("bzip2 code of no proper length");
      if (bits.bit() === 0) break;
      length += bits.bit() === 0 ? 1 : -1;
    }
    lengths[symbol] = length;
  }
  return lengths;
}

/** CRC-32 from the highest bit down, as bzip2 has it. */
const CHECKSUMS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte << 24;
  for (let bit = 0; bit < 8; bit++) sum = sum < 0 ? sum << 1 ^ 0x04c11db7 : sum << 1;
  return sum;
});

function checksumOf(bytes: Uint8Array, start: number, end: number): number {
  let sum = -1;
  for (let at = start; at < end; at++) sum = sum << 8 ^ CHECKSUMS[sum >>> 24 ^ bytes[at]!]!;
  return ~sum >>> 0;
}
