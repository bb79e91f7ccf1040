/**
 * The options that say how a node and those below it are opened: `--image-opts` lists and `json:` names.
 * Command-line reference, sections 3.2 and 3.3.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import { optionPieces } from "../block/options.ts";
import { hashOrder } from "../bytes/json.ts";
import { type JsonData, type JsonObject, readJson } from "../bytes/json_reader.ts";

/** Names that begin so are options. */
export const JSON_PREFIX = "json:";

const ID = /^[A-Za-z][A-Za-z0-9._-]*$/;
const ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";

/**
 * Options of a node by their keys. Those of the nodes below it have the name of the child and a dot in
 * front: `file.filename`. Whoever opens a node takes out what it knows; what is left nobody wants.
 */
export class NodeOptions {
  readonly #values: Map<string, JsonData>;

  /** Options with these keys and values. */
  constructor(values: Iterable<readonly [string, JsonData]> = []) {
    this.#values = new Map(values);
  }

  /**
   * Reads an `--image-opts` list. A first item that is a bare word names a node; other bare words are
   * flags, about which `warn` is told, a line of advice included.
   *
   * @throws {ImageError} for an id that is none.
   */
  static fromList(list: string, warn: (text: string) => void): NodeOptions {
    const options = new NodeOptions();
    for (const { key, value } of optionPieces(list, "file")) {
      if (value !== undefined) {
        requireIdentifier(key, value);
        options.set(key, value);
      } else if (key !== "help" && key !== "?") {
        const [name, flag] = key.startsWith("no") ? [key.slice(2), "off"] : [key, "on"];
        warn(`short-form boolean option '${key}' deprecated\nPlease use ${name}=${flag} instead`);
        options.set(name, flag);
      }
    }
    return options;
  }

  /**
   * Reads a `json:` name. Objects and lists in it become dotted keys.
   *
   * @throws {ImageError} `Could not parse the JSON options: …`, `Invalid JSON object given`
   */
  static fromJson(name: string): NodeOptions {
    let data: JsonData;
    try {
      data = readJson(name.slice(JSON_PREFIX.length));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new ImageError(`Could not parse the JSON options: ${error.message}`, {
        errno: "EINVAL",
        cause: error,
      });
    }
    if (!isObject(data)) throw new ImageError("Invalid JSON object given", { errno: "EINVAL" });
    const flat = new Map<string, JsonData>();
    flatten(data, "", flat);
    return new NodeOptions(flat);
  }

  /** How many there are. */
  get size(): number {
    return this.#values.size;
  }

  /** The keys in the order in which the reference comes to them. */
  get keys(): string[] {
    return hashOrder(this.#values.keys());
  }

  /** Whether there is an option of this key, whatever its value. */
  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** The value as given. */
  get(key: string): JsonData | undefined {
    return this.#values.get(key);
  }

  /** The value if it is a text. */
  text(key: string): string | undefined {
    const value = this.#values.get(key);
    return typeof value === "string" ? value : undefined;
  }

  /** Whether a flag is on, as far as can be said before its value is checked. */
  isOn(key: string): boolean {
    const value = this.#values.get(key);
    return value === true || ["on", "yes", "true", "y"].includes(String(value));
  }

  /** Sets a value. */
  set(key: string, value: JsonData): void {
    this.#values.set(key, value);
  }

  /** Forgets a value. */
  delete(key: string): void {
    this.#values.delete(key);
  }

  /** Takes over those of other options whose keys are not here. */
  addMissing(others: NodeOptions): void {
    for (const [key, value] of others.#values) {
      if (!this.#values.has(key)) this.#values.set(key, value);
    }
  }

  /** Takes out the options of a child, and answers with them. */
  takeChild(name: string): NodeOptions {
    const prefix = `${name}.`;
    const child = new NodeOptions();
    for (const [key, value] of this.#values) {
      if (!key.startsWith(prefix)) continue;
      child.#values.set(key.slice(prefix.length), value);
      this.#values.delete(key);
    }
    return child;
  }

  /** Another set of the same options. */
  copy(): NodeOptions {
    return new NodeOptions(this.#values);
  }
}

function requireIdentifier(key: string, value: string): void {
  if (key !== "id" || ID.test(value)) return;
  throw new ImageError("Parameter 'id' expects an identifier", {
    errno: "EINVAL",
    field: "id",
    hint: ID_HINT,
  });
}

function isObject(data: JsonData): data is JsonObject {
  return data instanceof Map;
}

function isList(data: JsonData): data is readonly JsonData[] {
  return Array.isArray(data);
}

/** Its depth is bounded by that of JSON texts. What is nested counts more than what is dotted. */
function flatten(data: JsonObject, prefix: string, flat: Map<string, JsonData>): void {
  const nested: (readonly [string, JsonObject])[] = [];
  for (const [key, value] of data) {
    const path = prefix + key;
    if (isObject(value) && value.size > 0) {
      nested.push([path, value]);
    } else if (isList(value) && value.length > 0) {
      nested.push([path, new Map(value.map((item, i) => [String(i), item]))]);
    } else {
      flat.set(path, value);
    }
  }
  for (const [path, value] of nested) flatten(value, `${path}.`, flat);
}

/** An option's value as the text that it would be in a list; `undefined` where it is none. */
export function valueText(value: JsonData): string | undefined {
  switch (typeof value) {
    case "string":
      return value;
    case "boolean":
      return value ? "on" : "off";
    case "bigint":
      return String(value);
    case "number":
      return doubleText(value);
    default:
      return undefined;
  }
}

/** C's `%.17g`. */
function doubleText(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const [digits = "0", exponent = "0"] = value.toExponential(16).split("e");
  const power = Number(exponent);
  if (power < -4 || power > 16) {
    const sign = power < 0 ? "-" : "+";
    return `${withoutZeros(digits)}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  return withoutZeros(value.toFixed(Math.max(16 - power, 0)));
}

function withoutZeros(digits: string): string {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}
