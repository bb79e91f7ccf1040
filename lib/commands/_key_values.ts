/**
 * `key=value` lists whose dotted keys nest, as `--object` takes them. Lists of image options and of `-o`
 * have rules of their own (`lib/block/options.ts`).
 */

import { CommandError } from "./_command.ts";

/** What a list says: values, and below the first parts of dotted keys more of the same. */
export class KeyValues extends Map<string, string | KeyValues> {}

/** A list taken apart. */
export interface KeyValueList {
  /** Its values. */
  readonly values: KeyValues;
  /** Whether it asks for help. */
  readonly help: boolean;
}

/** The longest part of a key, bytes. */
const MAX_PART = 127;

/** As deep as JSON texts nest. */
const MAX_DEPTH = 1024;

/** A name, which a vendor's domain may stand in front of. */
const NAME = /^(?:__[A-Za-z0-9.-]+_)?[A-Za-z][A-Za-z0-9_-]*/;
const INDEX = /^(?:0|[1-9][0-9]*)(?=[.=,]|$)/;

/** What a list's keys mean to it. */
export interface KeyMeanings {
  /** The key of a first item that is a bare word. */
  readonly implied: string;
  /** The key whose value no message repeats: nor words behind it, which a single comma may have cut off. */
  readonly secret: string;
}

/**
 * Takes a list apart.
 *
 * @throws {CommandError} `Invalid parameter '…'`, `Expected '=' after parameter '…'`,
 * `Parameters '….*' used inconsistently`
 */
export function readKeyValues(
  list: string,
  { implied, secret }: KeyMeanings,
  exitCode: number,
): KeyValueList {
  const values = new KeyValues();
  let help = false;
  let isBehindSecret = false;
  for (let at = 0; at < list.length;) {
    const end = at + list.slice(at).search(/[=,]|$/);
    const word = list.slice(at, end);
    const isBare = list[end] !== "=";
    if (isBare && (word === "help" || word === "?")) {
      help = true;
      at = end + 1;
      continue;
    }
    if (isBare && at === 0 && word !== "") {
      values.set(implied, word);
      at = end + 1;
      continue;
    }
    if (isBehindSecret && isBare) {
      throw new CommandError(
        `Expected '=' after a parameter behind '${secret}', in which commas are written twice`,
        { exitCode },
      );
    }
    const path = keyPath(word, exitCode);
    if (isBare) throw new CommandError(`Expected '=' after parameter '${word}'`, { exitCode });
    const text = /^(?:[^,]|,,)*/.exec(list.slice(end + 1))![0];
    put(values, path, text.replaceAll(",,", ","), exitCode);
    isBehindSecret = word === secret;
    at = end + 1 + text.length + 1;
  }
  if (!help) requireLists(values, "", exitCode);
  return { values, help };
}

/** Where one key is the place in a list, all beside it are, and none is left out. */
function requireLists(values: KeyValues, prefix: string, exitCode: number): void {
  const keys = [...values.keys()];
  for (const key of keys) {
    const below = values.get(key);
    if (below instanceof KeyValues) requireLists(below, `${prefix}${key}.`, exitCode);
  }
  const places = keys.filter((key) => /^[0-9]/.test(key)).length;
  if (places === 0) return;
  if (places < keys.length) {
    throw new CommandError(`Parameters '${prefix}*' used inconsistently`, { exitCode });
  }
  const missing = keys.findIndex((_, i) => !values.has(String(i)));
  if (missing >= 0) {
    throw new CommandError(`Parameter '${prefix}${missing}' missing`, { exitCode });
  }
}

function keyPath(key: string, exitCode: number): string[] {
  const parts: string[] = [];
  for (let at = 0;;) {
    const rest = key.slice(at);
    const part = (parts.length > 0 ? INDEX.exec(rest) : null)?.[0] ?? NAME.exec(rest)?.[0] ?? "";
    const after = rest[part.length];
    if (part === "" || (after !== undefined && after !== ".")) {
      throw new CommandError(`Invalid parameter '${key}'`, { exitCode });
    }
    if (part.length > MAX_PART) {
      const what = part === key ? "Parameter" : "Parameter fragment";
      throw new CommandError(`${what} '${part}' is too long`, { exitCode });
    }
    parts.push(part);
    if (parts.length > MAX_DEPTH) {
      throw new CommandError("Parameters are nested too deeply", { exitCode });
    }
    if (after === undefined) return parts;
    at += part.length + 1;
  }
}

function put(values: KeyValues, path: readonly string[], value: string, exitCode: number): void {
  let below = values;
  for (const [i, part] of path.entries()) {
    const present = below.get(part);
    const isLast = i === path.length - 1;
    if (present !== undefined && (typeof present === "string") !== isLast) {
      const shown = path.slice(0, i + 1).join(".");
      throw new CommandError(`Parameters '${shown}.*' used inconsistently`, { exitCode });
    }
    if (isLast) {
      below.set(part, value);
    } else {
      const inner = typeof present === "object" ? present : new KeyValues();
      below.set(part, inner);
      below = inner;
    }
  }
}
