/**
 * Where the parent of a differencing image is (section 6 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU16LE, readU32LE } from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { invalid } from "./_layout.ts";
import { GUID_SIZE, parseGuid, VHDX_PARENT } from "./guid.ts";
import type { FileRange } from "./regions.ts";

/** The longest locator: it holds some paths. */
const MAX_LOCATOR = 1 << 20;

const [ENTRIES_AT, ENTRY_SIZE] = [20, 12];

/** What a differencing image says of its parent. */
export interface ParentLocator {
  /** The parent's paths as Windows has them, the one to try first in front. */
  readonly paths: readonly string[];
  /** The GUIDs of its data of which the parent has to have one. */
  readonly linkages: readonly Uint8Array[];
}

/**
 * Reads the locator of a differencing image.
 *
 * @throws {ImageError} `EINVAL` for a damaged locator, `ENOTSUP` for a parent of another kind.
 */
export async function readParentLocator(
  file: BlockNode,
  { offset, length }: FileRange,
): Promise<ParentLocator> {
  const wrong = (field: string) => invalid(file, `parent locator: ${field}`);
  if (length < ENTRIES_AT || length > MAX_LOCATOR) throw wrong("length");
  const bytes = new Uint8Array(length);
  await readPadded(file, offset, bytes);
  if (!equalBytes(bytes.subarray(0, GUID_SIZE), VHDX_PARENT)) {
    throw ImageError.fromErrno("ENOTSUP", { file: file.filename, field: "parent locator: type" });
  }
  const count = readU16LE(bytes, 18);
  if (ENTRIES_AT + count * ENTRY_SIZE > length) throw wrong("entry count");
  const decoder = new TextDecoder("utf-16le");
  const text = (at: number, size: number) => {
    if (at + size > length) throw wrong("entry");
    return decoder.decode(bytes.subarray(at, at + size));
  };
  const values = new Map<string, string>();
  for (let i = 0; i < count; i++) {
    const at = ENTRIES_AT + i * ENTRY_SIZE;
    const key = text(readU32LE(bytes, at), readU16LE(bytes, at + 8));
    values.set(key, text(readU32LE(bytes, at + 4), readU16LE(bytes, at + 10)));
  }
  const found = (...keys: readonly string[]) =>
    keys.map((key) => values.get(key)).filter((value) => value !== undefined && value !== "");
  const linkages = found("parent_linkage", "parent_linkage2")
    .map((value) => parseGuid(value!) ?? null);
  if (linkages.length === 0 || linkages.includes(null)) throw wrong("parent_linkage");
  const paths = found("relative_path", "volume_path", "absolute_win32_path") as string[];
  if (paths.length === 0 || paths.some((path) => path.includes("\0"))) throw wrong("paths");
  return { paths, linkages: linkages as Uint8Array[] };
}
