/**
 * Finite-state entropy decoding as LZFSE has it (DMG reference, section 4).
 *
 * @module
 */
import { CodecError } from "./_codec.ts";

/** Bits of a run of bytes, taken as one little-endian number, from the highest down. */
export class BackwardBits {
  readonly #bytes: Uint8Array;
  /** Bits that are left. */
  #left: number;

  /** All bits of `bytes` but the highest `-pad`, which have to be 0. */
  constructor(bytes: Uint8Array, pad: number) {
    this.#bytes = bytes;
    this.#left = 8 * bytes.length + pad;
    if (this.#left < 0 || (bytes.length > 0 && bytes.at(-1)! >>> 8 + pad !== 0)) {
      throw new CodecError("LZFSE bits do not begin where they say");
    }
  }

  /** The next `count` bits, at most 17. */
  read(count: number): number {
    if (count === 0) return 0;
    const left = this.#left - count;
    if (left < 0) throw new CodecError("LZFSE bits end too early");
    this.#left = left;
    const bytes = this.#bytes;
    const at = left >> 3;
    const word = bytes[at]! |
      (at + 1 < bytes.length ? bytes[at + 1]! << 8 : 0) |
      (at + 2 < bytes.length ? bytes[at + 2]! << 16 : 0);
    return word >>> (left & 7) & (1 << count) - 1;
  }
}

/** States, what each stands for, and where it leads to. */
export class FseTable {
  /** The symbol of the state that the last step left. */
  symbol = 0;
  readonly #symbols: Uint8Array;
  readonly #counts: Uint8Array;
  readonly #deltas: Int16Array;
  /** States that have a symbol: the first ones. */
  #used = 0;

  /** A table of `states`, a power of two of at most 1024, none of which stands for anything yet. */
  constructor(states: number) {
    this.#symbols = new Uint8Array(states);
    this.#counts = new Uint8Array(states);
    this.#deltas = new Int16Array(states);
  }

  /**
   * Gives each symbol as many states as its frequency says.
   *
   * @throws {CodecError} for more than there are.
   */
  assign(frequencies: Uint16Array): void {
    const states = this.#symbols.length;
    let state = 0;
    for (let symbol = 0; symbol < frequencies.length; symbol++) {
      const frequency = frequencies[symbol]!;
      if (frequency > states - state) throw new CodecError("LZFSE frequencies are too high");
      if (frequency === 0) continue;
      const bits = Math.clz32(frequency) - Math.clz32(states);
      const long = (2 * states >> bits) - frequency;
      for (let index = 0; index < frequency; index++, state++) {
        this.#symbols[state] = symbol;
        this.#counts[state] = index < long ? bits : bits - 1;
        this.#deltas[state] = index < long
          ? (frequency + index << bits) - states
          : index - long << bits - 1;
      }
    }
    this.#used = state;
  }

  /**
   * Leaves a state for the one that it and the next bits lead to.
   *
   * @throws {CodecError} for a state that stands for nothing.
   */
  step(state: number, bits: BackwardBits): number {
    if (state >= this.#used) throw new CodecError("LZFSE state that stands for nothing");
    this.symbol = this.#symbols[state]!;
    return this.#deltas[state]! + bits.read(this.#counts[state]!);
  }
}
