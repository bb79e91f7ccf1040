/**
 * JSON text as `qemu-img` writes it (cli.md, 3.5).
 *
 * Objects come out in the order of the reference's hash table, whatever the
 * order of their keys, so callers never sort anything.
 */

/** What {@linkcode formatJson} prints. Members that are `undefined` are left out. */
export type JsonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue | undefined };

const BUCKETS = 512;
const encoder = new TextEncoder();

/** The place of a key in the reference's hash table, 0 to 511. */
export function hashBucket(key: string): number {
  const bytes = encoder.encode(key);
  let hash = Math.imul(0x238f13af, bytes.length);
  for (let i = 0; i < bytes.length; i++) {
    hash = (hash + (bytes[i]! << ((5 * i) % 24))) | 0;
  }
  return ((Math.imul(1103515243, hash) + 12345) >>> 0) % BUCKETS;
}

/**
 * Keys in the order in which the reference prints them: by bucket, and of keys
 * that share a bucket the one inserted last comes first.
 */
export function hashOrder(keys: Iterable<string>): string[] {
  const placed = Array.from(keys, (key) => ({ key, bucket: hashBucket(key) }));
  placed.reverse();
  return placed.sort((a, b) => a.bucket - b.bucket).map(({ key }) => key);
}

/**
 * JSON text of a value: on one line, or with four spaces a level and every
 * item on a line of its own. There is no newline at the end.
 */
export function formatJson(value: JsonValue, style: "compact" | "pretty"): string {
  const parts: string[] = [];
  write(parts, value, style === "pretty" ? "\n" : undefined);
  return parts.join("");
}

/** `line` is a newline with the current indentation, `undefined` in compact text. */
function write(parts: string[], value: JsonValue, line: string | undefined): void {
  if (typeof value === "string") {
    parts.push(quote(value));
  } else if (typeof value !== "object" || value === null) {
    parts.push(String(value));
  } else if (isArray(value)) {
    writeItems(parts, "[", "]", value, line, (item, inner) => write(parts, item, inner));
  } else {
    const keys = Object.keys(value).filter((key) => value[key] !== undefined);
    writeItems(parts, "{", "}", hashOrder(keys), line, (key, inner) => {
      parts.push(quote(key), ": ");
      write(parts, value[key]!, inner);
    });
  }
}

function writeItems<T>(
  parts: string[],
  open: string,
  close: string,
  items: readonly T[],
  line: string | undefined,
  writeItem: (item: T, line: string | undefined) => void,
): void {
  const inner = line === undefined ? undefined : `${line}    `;
  parts.push(open);
  for (const [i, item] of items.entries()) {
    if (i > 0) parts.push(inner === undefined ? ", " : ",");
    if (inner !== undefined) parts.push(inner);
    writeItem(item, inner);
  }
  // An empty list still breaks the line.
  if (line !== undefined) parts.push(line);
  parts.push(close);
}

// `Array.isArray` does not narrow a readonly array out of a union.
function isArray(value: object): value is readonly JsonValue[] {
  return Array.isArray(value);
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

/** A JSON string: everything but printable ASCII is escaped. */
function quote(text: string): string {
  const escaped = text.toWellFormed().replace(
    // Everything outside of space to tilde, and the two that delimit.
    /[^ -~]|["\\]/g,
    (unit) =>
      ESCAPES[unit] ?? `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`,
  );
  return `"${escaped}"`;
}
