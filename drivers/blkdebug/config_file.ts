/**
 * Files with rules: sections with settings, one a line.
 *
 * ```ini
 * # a comment
 * [inject-error "optional-id"]
 * event = "read_aio"
 * errno = "5"
 * ```
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { OptionSet } from "../../lib/block/options.ts";
import { hashOrder } from "../../lib/bytes/json.ts";
import { HostError } from "../../lib/io/errno.ts";
import type { Rule } from "./rules.ts";
import { GROUPS, type Section } from "./sections.ts";

/** Nobody writes as many rules as that, bytes. */
const MAX_LENGTH = 1 << 20;
const MAX_WORD = 63;
const MAX_VALUE = 1023;

const ID = /^[A-Za-z][A-Za-z0-9._-]*$/;
const ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";

interface RawSection {
  readonly group: string;
  readonly values: Map<string, string>;
}

/**
 * Reads a file.
 *
 * @throws {ImageError} `Could not read blkdebug config file: …`, `Cannot read config file: …`, and what
 * {@linkcode parseConfig} throws.
 */
export function readConfig(filename: string): Section[] {
  return parseConfig(new TextDecoder().decode(readBounded(filename)));
}

/** All bytes; pipes have no length to ask for. */
function readBounded(filename: string): Uint8Array {
  let beginning = "Could not read blkdebug config file: ";
  try {
    using file = Deno.openSync(filename, { read: true });
    beginning = "Cannot read config file: ";
    const bytes = new Uint8Array(MAX_LENGTH + 1);
    for (let length = 0; length < bytes.length;) {
      const count = file.readSync(bytes.subarray(length));
      if (count === null) return bytes.subarray(0, length);
      length += count;
    }
  } catch (error) {
    const failure = HostError.from(error, "read", filename);
    if (!(failure instanceof HostError)) throw failure;
    throw new ImageError(beginning + failure.message, {
      errno: failure.errno,
      file: filename,
      cause: error,
    });
  }
  throw new ImageError(`The file with blkdebug's rules is longer than ${MAX_LENGTH} bytes`, {
    errno: "EFBIG",
    file: filename,
  });
}

/**
 * The sections of a file's text.
 *
 * @throws {ImageError} for lines that are none, sections and settings that there are not, and values that
 * their types refuse.
 */
export function parseConfig(text: string): Section[] {
  const sections: Section[] = [];
  const ids = new Set<string>();
  let open: RawSection | undefined;
  const close = () => {
    if (open !== undefined) sections.push(checked(open, ids));
  };
  // Each with its end, which belongs to the name of a group that does not end on its line.
  for (const line of text.match(/[^\n]*\n|[^\n]+/g) ?? []) {
    if (line === "\n" || line.startsWith("#")) continue;
    // A C string ends at its first NUL.
    const [content = ""] = line.split("\0");
    const group = groupOf(content);
    if (group !== undefined) {
      close();
      open = group;
      continue;
    }
    const setting = settingOf(content);
    if (setting === undefined) throw invalid("parse error", "config");
    if (open === undefined) throw invalid("no group defined", "config");
    open.values.set(...setting);
  }
  close();
  return sections;
}

/** `[group "id"]` or `[group]`; what comes behind it does not matter. */
function groupOf(line: string): RawSection | undefined {
  if (!line.startsWith("[")) return undefined;
  const named = /^\[\s*(\S+)\s+"([^"]+)/.exec(line);
  if (named !== null) {
    const id = named[2]!.slice(0, MAX_WORD);
    return { group: named[1]!.slice(0, MAX_WORD), values: new Map([["id", id]]) };
  }
  const group = /^\[([^\]]+)/.exec(line)?.[1];
  return group === undefined ? undefined : { group: group.slice(0, MAX_WORD), values: new Map() };
}

/** `key = "value"`; without a value in quotes the first word is a key of an empty one. */
function settingOf(line: string): [key: string, value: string] | undefined {
  const [, key, value = ""] = /^\s*(\S+)(?:\s*=\s*"([^"]+))?/.exec(line) ?? [];
  return key === undefined ? undefined : [key.slice(0, MAX_WORD), value.slice(0, MAX_VALUE)];
}

function checked({ group, values }: RawSection, ids: Set<string>): Section {
  const specs = Object.hasOwn(GROUPS, group) ? GROUPS[group as Rule["action"]] : undefined;
  if (specs === undefined) throw invalid(`There is no option group '${group}'`, group);
  const kind = group as Rule["action"];
  const id = values.get("id");
  if (id !== undefined) {
    if (!ID.test(id)) {
      throw new ImageError("Parameter 'id' expects an identifier", {
        errno: "EINVAL",
        field: "id",
        hint: ID_HINT,
      });
    }
    const name = `${kind} ${id}`;
    if (ids.has(name)) throw invalid(`Duplicate ID '${id}' for ${kind}`, "id");
    ids.add(name);
    values.delete("id");
  }
  const settings = new OptionSet(specs);
  for (const key of hashOrder(values.keys())) settings.set(key, values.get(key)!);
  return { group: kind, settings };
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}
