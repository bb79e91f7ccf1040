/**
 * LZFSE, for reading: streams of stored, LZVN and entropy-coded blocks (DMG reference, section 4).
 *
 * @module
 */
import { readU16LE, readU32LE, readU64LE } from "../bytes/endian.ts";
import { CodecError, type Unpacker } from "./_codec.ts";
import { copyBack } from "./_copy_back.ts";
import { BackwardBits, FseTable } from "./_fse.ts";
import { unpackLzvn } from "./lzvn.ts";

/** What a block begins with. */
const Magic = {
  end: 0x24787662,
  stored: 0x2d787662,
  plainTables: 0x31787662,
  packedTables: 0x32787662,
  lzvn: 0x6e787662,
} as const;

/** Frequencies in a header: of the symbols for lengths of literals, of matches, distances, literals. */
const SYMBOLS = [20, 20, 64, 256] as const;
const ALL_SYMBOLS = 360;
/** States of their tables. */
const STATES = [64, 64, 256, 1024] as const;

/** Bytes of a header without packed frequencies, and of one with plain ones. */
const PACKED_HEADER = 32;
const PLAIN_HEADER = 772;

/** Numbers that a symbol stands for: the lowest of them, and the bits that follow to tell which. */
interface Ranges {
  readonly bases: Uint32Array;
  readonly bits: Uint8Array;
}

const LITERAL_LENGTHS = rangesOf([...new Array<number>(16).fill(0), 2, 3, 5, 8]);
const MATCH_LENGTHS = rangesOf([...new Array<number>(16).fill(0), 3, 5, 8, 11]);
const DISTANCES = rangesOf(Array.from({ length: 64 }, (_, symbol) => symbol >> 2));

/** Ranges one behind the other. */
function rangesOf(bits: readonly number[]): Ranges {
  let next = 0;
  const bases = Uint32Array.from(bits, (count) => {
    const base = next;
    next += 1 << count;
    return base;
  });
  return { bases, bits: Uint8Array.from(bits) };
}

/** LZFSE. */
export function createLzfse(): Unpacker {
  const blocks = new EntropyBlocks();
  return { name: "lzfse", unpack: (packed, out) => unpack(blocks, packed, out) };
}

function unpack(blocks: EntropyBlocks, packed: Uint8Array, out: Uint8Array): void {
  let written = 0;
  for (let at = 0;;) {
    const magic = readU32LE(part(packed, at, 4), 0);
    if (magic === Magic.end) break;
    const size = readU32LE(part(packed, at + 4, 4), 0);
    const end = written + size;
    if (end > out.length) throw new CodecError(`LZFSE data hold more than ${out.length} bytes`);
    let got = end;
    switch (magic) {
      case Magic.stored:
        out.set(part(packed, at + 8, size), written);
        at += 8 + size;
        break;
      case Magic.lzvn: {
        const length = readU32LE(part(packed, at + 8, 4), 0);
        got = unpackLzvn(part(packed, at + 12, length), out.subarray(0, end), written);
        at += 12 + length;
        break;
      }
      case Magic.packedTables:
      case Magic.plainTables: {
        const header = magic === Magic.packedTables
          ? readPackedHeader(packed, at)
          : readPlainHeader(packed, at);
        const from = at + header.size;
        at = from + header.literalLength + header.matchLength;
        got = blocks.unpack(header, part(packed, from, at - from), out.subarray(0, end), written);
        break;
      }
      default:
        throw new CodecError("no LZFSE block where one should begin");
    }
    if (got !== end) throw new CodecError("LZFSE block of another length than it says");
    written = end;
  }
  if (written < out.length) {
    throw new CodecError(`LZFSE data end after ${written} of ${out.length} bytes`);
  }
}

/** Some bytes that have to be there. */
function part(packed: Uint8Array, at: number, length: number): Uint8Array {
  if (at + length > packed.length) throw new CodecError("LZFSE data end too early");
  return packed.subarray(at, at + length);
}

/** What stands before an entropy-coded block. Lengths are bytes. */
interface Header {
  readonly size: number;
  readonly literals: number;
  readonly matches: number;
  readonly literalLength: number;
  /** Added to the bits of the literals' bytes, -7 to 0. */
  readonly literalPad: number;
  /** The four states that take turns. */
  readonly literalStates: readonly number[];
  readonly matchLength: number;
  readonly matchPad: number;
  /** Of lengths of literals, of matches, and of distances. */
  readonly matchStates: readonly number[];
  /** Of all symbols, one kind behind the other. */
  readonly frequencies: Uint16Array;
}

function readPackedHeader(packed: Uint8Array, at: number): Header {
  const bytes = part(packed, at, PACKED_HEADER);
  const words = [readU64LE(bytes, 8), readU64LE(bytes, 16), readU64LE(bytes, 24)] as const;
  const field = (word: 0 | 1 | 2, from: number, count: number) =>
    Number(words[word] >> BigInt(from) & (1n << BigInt(count)) - 1n);
  const size = field(2, 0, 32);
  if (size < PACKED_HEADER) throw new CodecError("LZFSE header is too short");
  return {
    size,
    literals: field(0, 0, 20),
    literalLength: field(0, 20, 20),
    matches: field(0, 40, 20),
    literalPad: field(0, 60, 3) - 7,
    literalStates: [field(1, 0, 10), field(1, 10, 10), field(1, 20, 10), field(1, 30, 10)],
    matchLength: field(1, 40, 20),
    matchPad: field(1, 60, 3) - 7,
    matchStates: [field(2, 32, 10), field(2, 42, 10), field(2, 52, 10)],
    frequencies: readFrequencies(part(packed, at, size).subarray(PACKED_HEADER)),
  };
}

function readPlainHeader(packed: Uint8Array, at: number): Header {
  const bytes = part(packed, at, PLAIN_HEADER);
  const pad = (offset: number) => {
    const bits = readU32LE(bytes, offset) | 0;
    if (bits < -7 || bits > 0) throw new CodecError("LZFSE block of more bits than it has");
    return bits;
  };
  return {
    size: PLAIN_HEADER,
    literals: readU32LE(bytes, 12),
    matches: readU32LE(bytes, 16),
    literalLength: readU32LE(bytes, 20),
    matchLength: readU32LE(bytes, 24),
    literalPad: pad(28),
    literalStates: [32, 34, 36, 38].map((offset) => readU16LE(bytes, offset)),
    matchPad: pad(40),
    matchStates: [44, 46, 48].map((offset) => readU16LE(bytes, offset)),
    frequencies: Uint16Array.from(
      { length: ALL_SYMBOLS },
      (_, symbol) => readU16LE(bytes, 50 + 2 * symbol),
    ),
  };
}

/** How many bits stand for a frequency, by the lowest four of them. */
const FREQUENCY_BITS = [2, 3, 2, 5, 2, 3, 2, 8, 2, 3, 2, 5, 2, 3, 2, 14] as const;

function readFrequencies(bytes: Uint8Array): Uint16Array {
  const frequencies = new Uint16Array(ALL_SYMBOLS);
  let held = 0;
  let count = 0;
  let at = 0;
  for (let symbol = 0; symbol < ALL_SYMBOLS; symbol++) {
    for (; count < 14 && at < bytes.length; count += 8) held |= bytes[at++]! << count;
    const size = FREQUENCY_BITS[held & 15]!;
    if (size > count) throw new CodecError("LZFSE header ends too early");
    frequencies[symbol] = frequencyOf(held & (1 << size) - 1, size);
    held >>>= size;
    count -= size;
  }
  if (count >= 8 || at < bytes.length) throw new CodecError("LZFSE header is too long");
  return frequencies;
}

function frequencyOf(bits: number, size: number): number {
  switch (size) {
    case 2:
      return bits >> 1;
    case 3:
      return 2 + (bits >> 2);
    case 5:
      return 4 + (bits >> 3);
    case 8:
      return 8 + (bits >> 4);
    default:
      return 24 + (bits >> 4);
  }
}

/** Unpacks entropy-coded blocks, in memory that is used again and again. */
class EntropyBlocks {
  readonly #tables = STATES.map((states) => new FseTable(states));
  #literals = new Uint8Array(0);

  /** Unpacks a block to the end of `out`, unless it is too long or too short for that. */
  unpack(header: Header, packed: Uint8Array, out: Uint8Array, written: number): number {
    const room = out.length - written;
    // Literals are filled up to a multiple of four. A block that claims more would keep us busy with nothing.
    if (header.literals > room + 3 || header.matches > room + 1) {
      throw new CodecError("LZFSE block of more symbols than bytes");
    }
    let from = 0;
    this.#tables.forEach((table, kind) => {
      const to = from + SYMBOLS[kind]!;
      table.assign(header.frequencies.subarray(from, to));
      from = to;
    });
    const literals = this.#readLiterals(header, packed);
    const bits = new BackwardBits(packed.subarray(header.literalLength), header.matchPad);
    const [lengths, matches, distances] = this.#tables as [FseTable, FseTable, FseTable];
    let [l, m, d] = header.matchStates as [number, number, number];
    let next = 0;
    let distance = 0;
    for (let left = header.matches; left > 0; left--) {
      l = lengths.step(l, bits);
      const literal = lengths.symbol;
      const count = LITERAL_LENGTHS.bases[literal]! + bits.read(LITERAL_LENGTHS.bits[literal]!);
      m = matches.step(m, bits);
      const match = matches.symbol;
      const length = MATCH_LENGTHS.bases[match]! + bits.read(MATCH_LENGTHS.bits[match]!);
      d = distances.step(d, bits);
      const place = distances.symbol;
      const back = DISTANCES.bases[place]! + bits.read(DISTANCES.bits[place]!);
      if (back > 0) distance = back;

      const end = next + count;
      if (end > header.literals) throw new CodecError("LZFSE block of too few literals");
      if (count > out.length - written) throw new CodecError("LZFSE block is too long");
      while (next < end) out[written++] = literals[next++]!;
      if (length > 0) written = copyBack(out, written, distance, length);
    }
    return written;
  }

  #readLiterals(header: Header, packed: Uint8Array): Uint8Array {
    const { literals: count, literalLength, literalPad } = header;
    if (this.#literals.length < count) this.#literals = new Uint8Array(count);
    const bits = new BackwardBits(packed.subarray(0, literalLength), literalPad);
    const table = this.#tables[3]!;
    const states = header.literalStates.slice();
    const literals = this.#literals;
    for (let at = 0; at < count; at++) {
      states[at & 3] = table.step(states[at & 3]!, bits);
      literals[at] = table.symbol;
    }
    return literals;
  }
}
