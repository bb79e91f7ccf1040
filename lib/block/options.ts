import { ImageError } from "./error.ts";
import { parseInteger, parseSize } from "../bytes/size.ts";

/** The types of option values, as `-o help` shows them. */
export type OptionType = "str" | "bool" | "num" | "size";

/** One option of a driver. */
export interface OptionSpec {
  /** The key: `cluster_size`. Among runtime options one that ends with a dot stands for all that begin so. */
  readonly name: string;
  /** The value's type. */
  readonly type: OptionType;
  /** One line for `-o help`. */
  readonly help: string;
  /** The default's text, if the option is always printed on the "Formatting" line. */
  readonly default?: string;
  /**
   * For runtime options: what the disk holds depends on it, so an image that was opened with it has a
   * name that repeats it.
   */
  readonly strong?: boolean;
}

/** A key and value as given, before they have a type. */
export type OptionPair = readonly [key: string, value: string];

/** One item of an option list: `key=value`, or a bare word. */
export interface OptionPiece {
  /** The key, or the word. */
  readonly key: string;
  /** The value, `,,` in it turned into one comma; `undefined` for a bare word. */
  readonly value: string | undefined;
}

/**
 * The items of `key=value,word,key=value`. A key or a bare word ends at the
 * first comma, a value at the first single one.
 *
 * `implied` is the key of a list's first item where that is a bare word, which
 * is then a value.
 */
export function* optionPieces(list: string, implied?: string): Generator<OptionPiece> {
  let at = 0;
  while (at < list.length) {
    const end = at + list.slice(at).search(/[=,]|$/);
    const bare = list[end] !== "=";
    if (bare && (at > 0 || implied === undefined)) {
      yield { key: list.slice(at, end), value: undefined };
      at = end + 1;
      continue;
    }
    const key = bare ? implied! : list.slice(at, end);
    const text = /^(?:[^,]|,,)*/.exec(list.slice(bare ? at : end + 1))![0];
    yield { key, value: text.replaceAll(",,", ",") };
    at = (bare ? at : end + 1) + text.length + 1;
  }
}

/**
 * Splits `key=value,key=value`: a bare word means `word=on`, a bare `noWORD`
 * means `WORD=off`. The key `id` is dropped.
 */
export function splitOptions(list: string): OptionPair[] {
  const pairs: OptionPair[] = [];
  for (const { key, value } of optionPieces(list)) {
    const pair: OptionPair = value !== undefined
      ? [key, value]
      : key.startsWith("no")
      ? [key.slice(2), "off"]
      : [key, "on"];
    if (pair[0] !== "id") pairs.push(pair);
  }
  return pairs;
}

interface StoredOption {
  readonly text: string;
  readonly value: string | bigint | boolean;
}

const SIZE_HINT = "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n" +
  "and exabytes, respectively.";

/** The options given for some specs: typed, in the order of the specs, the last of a key wins. */
export class OptionSet {
  /** The options that exist. */
  readonly specs: readonly OptionSpec[];
  readonly #given = new Map<string, StoredOption>();
  /** What was given and is still to be checked. */
  #unchecked: readonly OptionPair[] = [];

  /** An empty set for `specs`; of specs with one name the first counts. */
  constructor(specs: readonly OptionSpec[], pairs: readonly OptionPair[] = []) {
    const seen = new Set<string>();
    this.specs = specs.filter((spec) => !seen.has(spec.name) && seen.add(spec.name));
    for (const [key, value] of pairs) this.set(key, value);
  }

  /** A set whose values are checked when the first of them is asked for, which then may throw. */
  static unchecked(specs: readonly OptionSpec[], pairs: readonly OptionPair[]): OptionSet {
    const set = new OptionSet(specs);
    set.#unchecked = pairs;
    return set;
  }

  /**
   * This set, checked.
   *
   * @throws {ImageError} as {@linkcode set} does.
   */
  settled(): this {
    const pairs = this.#unchecked;
    this.#unchecked = [];
    for (const [key, value] of pairs) this.set(key, value);
    return this;
  }

  /**
   * Sets a value from its text.
   *
   * @throws {ImageError} for an unknown key or a value that its type refuses.
   */
  set(key: string, text: string): void {
    const spec = this.specs.find(({ name }) =>
      name === key || (name.endsWith(".") && key.startsWith(name))
    );
    if (spec === undefined) {
      throw new ImageError(`Invalid parameter '${key}'`, { errno: "EINVAL", field: key });
    }
    this.#given.set(key, { text, value: typedValue(spec, text) });
  }

  /** Sets a size from a number of bytes. */
  setSize(key: string, bytes: number | bigint): void {
    this.#given.set(key, { text: String(bytes), value: BigInt(bytes) });
  }

  /** Forgets a value. */
  delete(key: string): void {
    this.#given.delete(key);
  }

  /** The keys that were given and begin with `prefix`, as they came. */
  keys(prefix: string): readonly string[] {
    return [...this.settled().#given.keys()].filter((key) => key.startsWith(prefix));
  }

  /** Whether a value was given (defaults do not count). */
  has(key: string): boolean {
    return this.settled().#given.has(key);
  }

  /** The text as given, or the default's. */
  text(key: string): string | undefined {
    return this.settled().#given.get(key)?.text ??
      this.specs.find((spec) => spec.name === key)?.default;
  }

  /** A string, or its default. */
  string(key: string): string | undefined {
    return this.text(key);
  }

  /** A number or a size in bytes, or its default: exact up to 2^53 - 1, what most are refused beyond. */
  number(key: string): number | undefined {
    const value = this.exact(key);
    return value === undefined ? undefined : Number(value);
  }

  /** As {@linkcode number}, from 0 to 2^64 - 1; a number below zero counts from 2^64 down. */
  exact(key: string): bigint | undefined {
    const value = this.#value(key);
    return typeof value === "bigint" ? value : undefined;
  }

  /**
   * A number with its sign. What counts has 64 bits with it, a text may have one more.
   *
   * @throws {ImageError} `Parameter '<shown>' expects integer`
   */
  integer(key: string, shown: string = key): number | undefined {
    const value = this.exact(key);
    if (value === undefined) return undefined;
    const signed = BigInt.asIntN(64, value);
    if (signed !== 0n && signed < 0n !== this.text(key)!.includes("-")) {
      throw new ImageError(`Parameter '${shown}' expects integer`, { errno: "EINVAL", field: key });
    }
    return Number(signed);
  }

  /** A flag; false if neither given nor on by default. */
  flag(key: string): boolean {
    return this.#value(key) === true;
  }

  /** Given and default values in the order of the specs, as the "Formatting" line prints them. */
  *printable(): Generator<OptionPair> {
    for (const spec of this.specs) {
      const given = this.#given.get(spec.name);
      if (given === undefined) {
        if (spec.default !== undefined) yield [spec.name, spec.default];
      } else if (typeof given.value === "bigint") {
        // Signed as the reference prints it.
        yield [spec.name, String(BigInt.asIntN(64, given.value))];
      } else if (spec.type === "str") {
        yield [spec.name, given.text.replaceAll(",", ",,")];
      } else {
        yield [spec.name, given.text];
      }
    }
  }

  /** The same values under other specs; keys that they lack are left out. */
  restrictedTo(specs: readonly OptionSpec[]): OptionSet {
    const other = new OptionSet(specs);
    for (const [key, stored] of this.settled().#given) {
      if (specs.some((spec) => spec.name === key)) other.#given.set(key, stored);
    }
    return other;
  }

  #value(key: string): string | bigint | boolean | undefined {
    const given = this.settled().#given.get(key);
    if (given !== undefined) return given.value;
    const spec = this.specs.find((spec) => spec.name === key);
    return spec?.default === undefined ? undefined : typedValue(spec, spec.default);
  }
}

function typedValue(spec: OptionSpec, text: string): string | bigint | boolean {
  const key = spec.name;
  switch (spec.type) {
    case "str":
      return text;
    case "bool":
      if (["on", "yes", "true", "y"].includes(text)) return true;
      if (["off", "no", "false", "n"].includes(text)) return false;
      throw new ImageError(`Parameter '${key}' expects 'on' or 'off'`, {
        errno: "EINVAL",
        field: key,
      });
    case "num": {
      const value = parseInteger(text);
      if (value === "malformed") {
        throw new ImageError(`Parameter '${key}' expects a number`, {
          errno: "EINVAL",
          field: key,
        });
      }
      if (value === "out-of-range") {
        throw new ImageError(`Value '${text}' is too large for parameter '${key}'`, {
          errno: "EINVAL",
          field: key,
        });
      }
      return value.value;
    }
    case "size": {
      const value = parseSize(text);
      if (value === "malformed") {
        throw new ImageError(`Parameter '${key}' expects a non-negative number below 2^64`, {
          errno: "EINVAL",
          field: key,
          hint: SIZE_HINT,
        });
      }
      if (value === "out-of-range") {
        throw new ImageError(`Value '${text}' is out of range for parameter '${key}'`, {
          errno: "EINVAL",
          field: key,
        });
      }
      return value.value;
    }
  }
}
