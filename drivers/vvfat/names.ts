/**
 * Names in directories: 11 bytes for everybody, and UTF-16 in entries of its own before them.
 *
 * @module
 */
import { writeU16LE } from "../../lib/bytes/endian.ts";
import { ENTRY } from "./layout.ts";

/** Bytes of a short name: eight and three for what follows the dot. */
export const SHORT_NAME = 11;

/** The attributes of an entry that holds a part of a long name. */
export const LONG_NAME = 0x0f;

/** Marks, in the number of a long name's part, the last one. */
const LAST_PART = 0x40;

/** Code units in a part of a long name. */
const PART_UNITS = 13;

/** Where in the entry they are. */
const UNIT_OFFSETS = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30] as const;

const SPACE = 0x20;

/** The first byte of a deleted entry, and what names that begin with it have in its place. */
export const DELETED = 0xe5;
/** Stands for a first byte that would mean "deleted". */
export const NOT_DELETED = 0x05;

const PUNCTUATION = new Set(Array.from("$%'-_@~`!(){}^#&", (char) => char.charCodeAt(0)));

/** Tails have six digits at most. */
const MAX_TAIL = 999_999;

/** The short names of one directory: gives each file one that no other has. */
export class ShortNames {
  readonly #taken = new Set<string>();
  /** Of names that came up more than once, the number at the tail that is next. */
  readonly #tails = new Map<string, number>();

  /** Notes a name that is there already. */
  take(name: Uint8Array): void {
    this.#taken.add(keyOf(name));
  }

  /**
   * The 11 bytes for a file name: in upper case, without what short names cannot have; where that
   * loses something or the name is taken already a number is put at its end. `undefined` if all are taken.
   */
  choose(filename: string): Uint8Array | undefined {
    const { name, lossy } = shorten(filename);
    const base = keyOf(name);
    const space = name.subarray(0, 8).indexOf(SPACE);
    const end = space < 0 ? 8 : space;
    for (let tail = this.#tails.get(base) ?? (lossy ? 1 : 0); tail < MAX_TAIL; tail++) {
      if (tail > 0) {
        const text = `~${tail}`;
        name.set(new TextEncoder().encode(text), Math.min(end, 8 - text.length));
      }
      const key = keyOf(name);
      if (this.#taken.has(key)) continue;
      this.#taken.add(key);
      this.#tails.set(base, tail + 1);
      return name;
    }
    return undefined;
  }
}

function keyOf(name: Uint8Array): string {
  return String.fromCharCode(...name);
}

function shorten(filename: string): { name: Uint8Array; lossy: boolean } {
  const name = new Uint8Array(SHORT_NAME).fill(SPACE);
  const chars = Array.from(filename);
  let [lossy, used, dot] = [false, 0, -1];
  chars.forEach((char, i) => {
    if (char === "." && used > 0) {
      // Everything from the first dot to the last one is lost.
      if (dot >= 0) lossy = true;
      dot = i;
    } else if (dot < 0) {
      const byte = char === "." ? 0 : shortByte(char);
      if (used < 8 && byte !== 0) name[used++] = byte;
      else lossy = true;
    }
  });
  if (dot >= 0) {
    used = 8;
    for (const char of chars.slice(dot + 1)) {
      const byte = shortByte(char);
      if (used < SHORT_NAME && byte !== 0) name[used++] = byte;
      else lossy = true;
    }
  }
  if (name[0] === DELETED) name[0] = NOT_DELETED;
  return { name, lossy };
}

/** A character as short names have it; 0 if they cannot. */
function shortByte(char: string): number {
  const upper = char.toUpperCase();
  // What becomes two letters stays what it is.
  const code = (Array.from(upper).length === 1 ? upper : char).codePointAt(0)!;
  if (code >= 0x30 && code <= 0x39 || code >= 0x41 && code <= 0x5a) return code;
  // As the reference has it: punctuation is looked for by the lowest byte alone.
  return PUNCTUATION.has(code & 0xff) ? code & 0xff : 0;
}

/** What every part of a long name repeats of the short one. */
export function shortNameSum(name: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < SHORT_NAME; i++) sum = (sum >> 1 | (sum & 1) << 7) + name[i]! & 0xff;
  return sum;
}

/** The entries that go before the one of a file with this name, as they are in the directory. */
export function longNameEntries(filename: string, shortName: Uint8Array): Uint8Array {
  const parts = Math.ceil(filename.length / PART_UNITS);
  const entries = new Uint8Array(parts * ENTRY);
  const sum = shortNameSum(shortName);
  for (let part = parts; part >= 1; part--) {
    const entry = entries.subarray((parts - part) * ENTRY, (parts - part + 1) * ENTRY);
    entry[0] = part === parts ? part | LAST_PART : part;
    entry[11] = LONG_NAME;
    entry[13] = sum;
    UNIT_OFFSETS.forEach((offset, i) => {
      const at = (part - 1) * PART_UNITS + i;
      const unit = at < filename.length
        ? filename.charCodeAt(at)
        : at === filename.length
        ? 0
        : 0xffff;
      writeU16LE(entry, offset, unit);
    });
  }
  return entries;
}

/** Puts the parts of a long name together, in the order in which a directory has them. */
export class LongName {
  #parts: string[] = [];
  #left = 0;
  #sum = 0;

  /** Whether parts came that no name has followed yet. */
  get pending(): boolean {
    return this.#parts.length > 0;
  }

  /** Takes an entry; `false` if it is not the one that has to come. */
  add(entry: Uint8Array): boolean {
    const number = entry[0]!;
    const sum = entry[13]!;
    if ((number & LAST_PART) !== 0) {
      if (this.pending) return false;
      this.#left = number & ~LAST_PART;
      this.#sum = sum;
    } else if (!this.pending || number !== this.#left || sum !== this.#sum) {
      return false;
    }
    if (this.#left < 1 || this.#left > 20) return false;
    this.#left--;
    this.#parts.unshift(
      String.fromCharCode(
        ...UNIT_OFFSETS.map((offset) => entry[offset]! | entry[offset + 1]! << 8),
      ),
    );
    return true;
  }

  /** The name that belongs to this short name; `undefined` if the parts are no whole name of it. */
  end(shortName: Uint8Array): string | undefined {
    const whole = this.pending && this.#left === 0 && this.#sum === shortNameSum(shortName);
    const units = this.#parts.join("");
    this.#parts = [];
    if (!whole) return undefined;
    const end = units.indexOf("\0");
    return end < 0 ? units : units.slice(0, end);
  }
}

/** Bits of an entry's byte 12: a short name's part is shown in lower case. */
const LOWER_STEM = 0x08;
const LOWER_EXTENSION = 0x10;

/** The name of a file that has a short one alone, as systems show it; `undefined` if it is not ASCII. */
export function plainName(entry: Uint8Array): string | undefined {
  const bytes = entry.subarray(0, SHORT_NAME);
  if (bytes.some((byte) => byte < SPACE || byte > 0x7e)) return undefined;
  const text = String.fromCharCode(...bytes);
  const part = (from: number, to: number, lower: number) => {
    const letters = text.slice(from, to).trimEnd();
    return (entry[12]! & lower) === 0 ? letters : letters.toLowerCase();
  };
  const stem = part(0, 8, LOWER_STEM);
  const extension = part(8, SHORT_NAME, LOWER_EXTENSION);
  return extension === "" ? stem : `${stem}.${extension}`;
}
