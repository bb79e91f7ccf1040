/**
 * Encoders of formats that the project only reads. None is clever: what they make is there to be read, in
 * every way that the format has (LZFSE and LZVN: DMG reference, section 4).
 */
import { Random } from "../_random.ts";

/** Literals, and what of the bytes before them follows. */
interface Step {
  readonly literals: Uint8Array;
  /** 0 at the end. */
  readonly length: number;
  readonly distance: number;
}

/** Cuts bytes into steps. */
function stepsOf(
  bytes: Uint8Array,
  { window, shortest, longest }: { window: number; shortest: number; longest: number },
): Step[] {
  const steps: Step[] = [];
  const seen = new Map<number, number>();
  let start = 0;
  for (let at = 0; at < bytes.length;) {
    const key = bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16;
    const from = seen.get(key);
    if (at + 2 < bytes.length) seen.set(key, at);
    let length = 0;
    if (from !== undefined && at - from <= window) {
      while (length < longest && at + length < bytes.length) {
        if (bytes[from + length] !== bytes[at + length]) break;
        length++;
      }
    }
    if (length < shortest) {
      at++;
      continue;
    }
    steps.push({ literals: bytes.subarray(start, at), length, distance: at - from! });
    start = at += length;
  }
  if (start < bytes.length) {
    steps.push({ literals: bytes.subarray(start), length: 0, distance: 0 });
  }
  return steps;
}

/** Packs bytes as ADC. */
export function packAdc(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  for (
    const { literals, length, distance } of stepsOf(bytes, {
      window: 65536,
      shortest: 4,
      longest: 67,
    })
  ) {
    for (let at = 0; at < literals.length; at += 128) {
      const part = literals.subarray(at, at + 128);
      out.push(0x80 | part.length - 1, ...part);
    }
    const far = distance - 1;
    if (length === 0) continue;
    if (length <= 18 && far < 1024) out.push(length - 3 << 2 | far >> 8, far & 0xff);
    else out.push(0x40 | length - 4, far >> 8, far & 0xff);
  }
  return Uint8Array.from(out);
}

/** Packs bytes as the payload of an LZVN block. The seed tells which of several instructions to take. */
function packLzvnPayload(bytes: Uint8Array, seed: number): Uint8Array<ArrayBuffer> {
  const random = new Random(seed);
  const out: number[] = [];
  const putLiterals = (literals: Uint8Array) => {
    for (let at = 0; at < literals.length;) {
      const count = Math.min(literals.length - at, random.pick([1, 7, 15, 16, 100, 271]));
      if (count < 16) out.push(0xe0 | count);
      else out.push(0xe0, count - 16);
      out.push(...literals.subarray(at, at + count));
      at += count;
    }
  };
  let last = 0;
  const steps = stepsOf(bytes, { window: 65535, shortest: 3, longest: 3000 });
  for (const { literals, length, distance } of steps) {
    if (random.oneIn(20)) out.push(random.pick([0x0e, 0x16]));
    let few = length === 0 ? 0 : random.below(Math.min(literals.length, 3) + 1);
    const isMedium = distance < 16384 && random.oneIn(3);
    let count = Math.min(length, random.between(3, isMedium ? 34 : 10));
    // Rows of other instructions: these literals and this match have none together.
    if (
      !isMedium &&
      [0x70, 0xa0, 0xb0, 0xd0, 0xe0, 0xf0].includes(few << 6 & 0xc0 | count - 3 << 3 & 0x30)
    ) {
      few = 0;
    }
    const end = literals.length - few;
    putLiterals(literals.subarray(0, end));
    if (length === 0) break;
    const row = few << 6 | count - 3 << 3;
    if (isMedium) {
      const word = distance << 2 | count - 3 & 3;
      out.push(0xa0 | few << 3 | count - 3 >> 2, word & 0xff, word >> 8);
    } else if (few > 0 && distance === last) out.push(row | 6);
    else if (distance === last) count = 0;
    else if (distance < 1536) out.push(row | distance >> 8, distance & 0xff);
    else out.push(row | 7, distance & 0xff, distance >> 8);
    out.push(...literals.subarray(end));
    last = distance;
    while (count < length) {
      const more = Math.min(length - count, random.pick([1, 15, 16, 271]));
      if (more < 16) out.push(0xf0 | more);
      else out.push(0xf0, more - 16);
      count += more;
    }
  }
  return Uint8Array.from([...out, 6, 0, 0, 0, 0, 0, 0, 0]);
}

const END = [0x62, 0x76, 0x78, 0x24];

/** The four bytes of a number, the lowest first. */
function u32(value: number): number[] {
  return [value & 0xff, value >> 8 & 0xff, value >> 16 & 0xff, value >>> 24];
}

/** The letters of a block's kind. */
function magic(kind: "-" | "1" | "2" | "n"): number[] {
  return [0x62, 0x76, 0x78, kind.charCodeAt(0)];
}

/** A block that stores bytes as they are. */
export function storedBlock(bytes: Uint8Array): number[] {
  return [...magic("-"), ...u32(bytes.length), ...bytes];
}

/** A block of LZVN; `seed` tells which of several instructions to take. */
export function lzvnBlock(bytes: Uint8Array, seed = 1): number[] {
  const payload = packLzvnPayload(bytes, seed);
  return [...magic("n"), ...u32(bytes.length), ...u32(payload.length), ...payload];
}

/** A stream of blocks. */
export function lzfseStream(...blocks: readonly (readonly number[])[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([...blocks.flat(), ...END]);
}

/** Bits that are to be read one after the other. */
type Bits = [value: number, count: number][];

/** Symbols of one kind, how they are coded, and what their numbers mean. */
class Coder {
  readonly frequencies: number[];
  readonly #states: number;
  readonly #entries: { symbol: number; bits: number; delta: number }[] = [];

  constructor(states: number, symbols: number, used: readonly number[]) {
    this.#states = states;
    const counts = new Array<number>(symbols).fill(0);
    for (const symbol of used) counts[symbol]!++;
    this.frequencies = counts.map((count) =>
      count === 0 ? 0 : Math.max(1, Math.floor(count * states / used.length))
    );
    for (;;) {
      const rest = states - this.frequencies.reduce((sum, frequency) => sum + frequency, 0);
      if (rest === 0 || used.length === 0) break;
      const most = this.frequencies.indexOf(Math.max(...this.frequencies));
      this.frequencies[most]! += Math.max(rest, 1 - this.frequencies[most]!, -1);
    }
    this.frequencies.forEach((frequency, symbol) => this.#add(symbol, frequency));
  }

  #add(symbol: number, frequency: number): void {
    if (frequency === 0) return;
    const bits = Math.floor(Math.log2(this.#states)) - Math.floor(Math.log2(frequency));
    const long = 2 * this.#states / 2 ** bits - frequency;
    for (let index = 0; index < frequency; index++) {
      this.#entries.push(
        index < long
          ? { symbol, bits, delta: (frequency + index) * 2 ** bits - this.#states }
          : { symbol, bits: bits - 1, delta: (index - long) * 2 ** (bits - 1) },
      );
    }
  }

  /** The state from which `symbol` leads to the state `next`, and the bits that do. */
  before(symbol: number, next: number): { state: number; bits: [number, number] } {
    const state = this.#entries.findIndex((entry) =>
      entry.symbol === symbol && entry.delta <= next && next < entry.delta + 2 ** entry.bits
    );
    const { delta, bits } = this.#entries[state]!;
    return { state, bits: [next - delta, bits] };
  }
}

/** The symbol that stands for a number in ranges of these bits, and the bits that tell which it is. */
function symbolFor(
  value: number,
  bits: readonly number[],
): { symbol: number; rest: [number, number] } {
  let base = 0;
  for (const [symbol, count] of bits.entries()) {
    if (value < base + 2 ** count) return { symbol, rest: [value - base, count] };
    base += 2 ** count;
  }
  throw new RangeError(`no symbol for ${value}`);
}

const LITERAL_BITS = [...new Array<number>(16).fill(0), 2, 3, 5, 8];
const MATCH_BITS = [...new Array<number>(16).fill(0), 3, 5, 8, 11];
const DISTANCE_BITS = Array.from({ length: 64 }, (_, symbol) => symbol >> 2);
const MOST_LITERALS = 315;
const MOST_MATCHED = 2359;

/** Bits as bytes, the first ones highest, and what to add to the number of the bytes' bits. */
function packBits(bits: Bits): { bytes: number[]; pad: number } {
  const total = bits.reduce((sum, [, count]) => sum + count, 0);
  const bytes = new Array<number>(Math.ceil(total / 8)).fill(0);
  let place = total;
  for (const [value, count] of bits) {
    place -= count;
    for (let bit = 0; bit < count; bit++) {
      const at = place + bit;
      bytes[at >> 3]! |= (value >> bit & 1) << (at & 7);
    }
  }
  return { bytes, pad: total - 8 * bytes.length };
}

/** Frequencies as bits of a header, the first ones lowest. */
function packFrequencies(frequencies: readonly number[]): number[] {
  const bytes: number[] = [];
  let at = 0;
  for (const frequency of frequencies) {
    const [value, count] = frequency < 2
      ? [frequency << 1, 2]
      : frequency < 4
      ? [1 | frequency - 2 << 2, 3]
      : frequency < 8
      ? [3 | frequency - 4 << 3, 5]
      : frequency < 24
      ? [7 | frequency - 8 << 4, 8]
      : [15 | frequency - 24 << 4, 14];
    for (let bit = 0; bit < count; bit++, at++) {
      bytes[at >> 3] = (bytes[at >> 3] ?? 0) | (value >> bit & 1) << (at & 7);
    }
  }
  return bytes;
}

/** An entropy-coded block, of the kind that packs its tables (`2`) or the other (`1`). */
export function entropyBlock(bytes: Uint8Array, kind: "1" | "2" = "2"): number[] {
  const triples: { l: number; m: number; d: number }[] = [];
  const literals: number[] = [];
  let last = 0;
  const steps = stepsOf(bytes, { window: 262139, shortest: 4, longest: 1 << 20 });
  for (const step of steps) {
    literals.push(...step.literals);
    let [l, m] = [step.literals.length, step.length];
    while (l > MOST_LITERALS) {
      triples.push({ l: MOST_LITERALS, m: 0, d: 0 });
      l -= MOST_LITERALS;
    }
    do {
      const part = Math.min(m, MOST_MATCHED);
      const d = part === 0 || step.distance === last ? 0 : step.distance;
      if (part > 0) last = step.distance;
      triples.push({ l, m: part, d });
      l = 0;
      m -= part;
    } while (m > 0);
  }
  while (literals.length % 4 !== 0) literals.push(0);

  const literalCoder = new Coder(1024, 256, literals);
  const states = [0, 0, 0, 0];
  const literalBits: Bits = [];
  for (let at = literals.length - 1; at >= 0; at--) {
    const { state, bits } = literalCoder.before(literals[at]!, states[at & 3]!);
    states[at & 3] = state;
    literalBits.unshift(bits);
  }
  const symbols = triples.map(({ l, m, d }) => [
    symbolFor(l, LITERAL_BITS),
    symbolFor(m, MATCH_BITS),
    symbolFor(d, DISTANCE_BITS),
  ]);
  const coders = [[64, 20], [64, 20], [256, 64]].map(([states, count], kind) =>
    new Coder(states!, count!, symbols.map((triple) => triple[kind]!.symbol))
  );
  const matchStates = [0, 0, 0];
  const matchBits: Bits = [];
  for (const triple of symbols.toReversed()) {
    for (const kind of [2, 1, 0]) {
      const { symbol, rest } = triple[kind]!;
      const { state, bits } = coders[kind]!.before(symbol, matchStates[kind]!);
      matchStates[kind] = state;
      matchBits.unshift(bits, rest);
    }
  }
  const literal = packBits(literalBits);
  const match = packBits(matchBits);
  const frequencies = [...coders, literalCoder].flatMap((coder) => coder.frequencies);
  const payload = [...literal.bytes, ...match.bytes];
  const sizes = [
    literals.length,
    triples.length,
    literal.bytes.length,
    match.bytes.length,
  ] as const;
  if (kind === "1") {
    const u16 = (value: number) => [value & 0xff, value >> 8];
    return [
      ...[...magic("1"), ...u32(bytes.length), ...u32(payload.length), ...sizes.flatMap(u32)],
      ...[...u32(literal.pad), ...states.flatMap(u16)],
      ...[...u32(match.pad), ...matchStates.flatMap(u16), ...frequencies.flatMap(u16), 0, 0],
      ...payload,
    ];
  }
  const packed = packFrequencies(frequencies);
  const words = [
    [[sizes[0], 20], [sizes[2], 20], [sizes[1], 20], [literal.pad + 7, 3]],
    [...states.map((state) => [state, 10]), [sizes[3], 20], [match.pad + 7, 3]],
    [[32 + packed.length, 32], ...matchStates.map((state) => [state, 10])],
  ].flatMap((fields) => {
    let word = 0n;
    let at = 0n;
    for (const [value, count] of fields) {
      word |= BigInt(value!) << at;
      at += BigInt(count!);
    }
    return [...u32(Number(word & 0xffffffffn) | 0), ...u32(Number(word >> 32n) | 0)];
  });
  return [...magic("2"), ...u32(bytes.length), ...words, ...packed, ...payload];
}
