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

/** What there is under a key and under those that begin with it and a dot. */
interface Branch {
  value?: JsonData;
  below?: Map<string, Branch>;
}

/**
 * Options of a node by their keys. Those of the nodes below it have the name of the child and a dot in
 * front: `file.filename`. Whoever opens a node takes out what it knows; what is left nobody wants.
 */
export class NodeOptions {
  /** A tree: with plain keys a child of a child of a child would be looked at over and over. */
  #root: Branch = {};

  /** Options with these keys and values. */
  constructor(values: Iterable<readonly [string, JsonData]> = []) {
    for (const [key, value] of values) this.set(key, value);
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
    const options = new NodeOptions();
    plant(data, options.#root);
    return options;
  }

  /** Whether there are none. */
  get isEmpty(): boolean {
    return this.#root.below === undefined;
  }

  /** The keys in the order in which the reference comes to them. */
  get keys(): string[] {
    return hashOrder(this.keysAsGiven);
  }

  /** The keys in the order in which they came, those of one child together. */
  get keysAsGiven(): string[] {
    return Array.from(this.#entries(), ([key]) => key);
  }

  /** Whether there is an option of this key, whatever its value. */
  has(key: string): boolean {
    return this.get(key) !== undefined;
  }

  /** The value as given. */
  get(key: string): JsonData | undefined {
    return this.#find(key)?.value;
  }

  /** The value if it is a text. */
  text(key: string): string | undefined {
    const value = this.get(key);
    return typeof value === "string" ? value : undefined;
  }

  /** Whether a flag is on, as far as can be said before its value is checked. */
  isOn(key: string): boolean {
    const value = this.get(key);
    return value === true || ["on", "yes", "true", "y"].includes(String(value));
  }

  /** Sets a value. */
  set(key: string, value: JsonData): void {
    branchAt(this.#root, key).value = value;
  }

  /** Forgets a value. */
  delete(key: string): void {
    const branch = this.#find(key);
    if (branch === undefined) return;
    delete branch.value;
    this.#prune(key);
  }

  /** Takes over those of other options whose keys are not here. */
  addMissing(others: NodeOptions): void {
    for (const [key, value] of others.#entries()) {
      if (!this.has(key)) this.set(key, value);
    }
  }

  /** Takes out the options of a child, and answers with them. */
  takeChild(name: string): NodeOptions {
    const child = new NodeOptions();
    const branch = this.#find(name);
    if (branch?.below === undefined) return child;
    child.#root = { below: branch.below };
    delete branch.below;
    this.#prune(name);
    return child;
  }

  /** Another set of the same options. */
  copy(): NodeOptions {
    return new NodeOptions(this.#entries());
  }

  #find(key: string): Branch | undefined {
    let branch: Branch | undefined = this.#root;
    for (const part of key.split(".")) {
      branch = branch.below?.get(part);
      if (branch === undefined) return undefined;
    }
    return branch;
  }

  /** Removes the branches on the way to a key that hold nothing any more. */
  #prune(key: string): void {
    const parts = key.split(".");
    const path = [this.#root];
    for (const part of parts) path.push(path.at(-1)!.below!.get(part)!);
    for (let depth = parts.length; depth > 0; depth--) {
      const { value, below } = path[depth]!;
      if (value !== undefined || below !== undefined) return;
      const parent = path[depth - 1]!;
      parent.below!.delete(parts[depth - 1]!);
      if (parent.below!.size === 0) delete parent.below;
    }
  }

  /** All keys and values; keys may be longer than the stack is deep. */
  *#entries(): Generator<[string, JsonData]> {
    const open: [path: string | undefined, branch: Branch][] = [[undefined, this.#root]];
    while (open.length > 0) {
      const [path, { value, below = new Map<string, Branch>() }] = open.pop()!;
      if (value !== undefined) yield [path!, value];
      for (const [part, branch] of Array.from(below).reverse()) {
        open.push([path === undefined ? part : `${path}.${part}`, branch]);
      }
    }
  }
}

/** The branch of a key, grown if it is not there. */
function branchAt(root: Branch, key: string): Branch {
  let branch = root;
  for (const part of key.split(".")) {
    branch.below ??= new Map();
    let next = branch.below.get(part);
    if (next === undefined) branch.below.set(part, next = {});
    branch = next;
  }
  return branch;
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
function plant(data: JsonObject, root: Branch): void {
  const nested: (readonly [string, JsonObject])[] = [];
  for (const [key, value] of data) {
    if (isObject(value) && value.size > 0) {
      nested.push([key, value]);
    } else if (isList(value) && value.length > 0) {
      nested.push([key, new Map(value.map((item, i) => [String(i), item]))]);
    } else {
      branchAt(root, key).value = value;
    }
  }
  for (const [key, value] of nested) plant(value, branchAt(root, key));
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
