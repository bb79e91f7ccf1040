/**
 * Where the bytes of an image lie. Command-line reference, section 12.5.
 *
 * @module
 */
import { ImageError, reasonText } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { BlockNode, Extent } from "../block/node.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";

/** One line of `map`: a run of guest bytes with one state, neighbours already merged. */
export interface MapEntry {
  /** Guest offset, bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Backing level that answers, 0 = top. */
  readonly depth: number;
  /** Allocated in that level. */
  readonly present: boolean;
  /** Reads as zeros. */
  readonly zero: boolean;
  /** Has host data. */
  readonly data: boolean;
  /** Stored compressed. */
  readonly compressed: boolean;
  /** Host offset, bytes, if the bytes lie plainly. */
  readonly offset?: number;
  /** Name of the file that holds them. */
  readonly file?: string;
}

/** Which part. */
export interface MapOptions {
  /** First byte. */
  readonly start?: number | undefined;
  /** Bytes. */
  readonly length?: number | undefined;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/**
 * Where the bytes of an image lie, in order. An empty range gives one entry of length 0.
 *
 * @throws {ImageError} `Could not read file metadata: …` and what opening throws.
 */
export async function* mapImage(
  image: ImageReference,
  options: MapOptions = {},
  environment: Environment = QUIET,
): AsyncGenerator<MapEntry, void, undefined> {
  const { start = 0, length = Infinity, forceShare = false } = options;
  await using top = await openImage(image, { ...READ_ONLY, forceShare }, environment);
  const end = Math.min(start + length, top.length);
  let isEmpty = true;
  for await (const entry of mapNode(top, start, end, environment.signal)) {
    isEmpty = false;
    yield entry;
  }
  if (isEmpty) yield nothing(start);
}

/** The same for a part of an open image, without an entry for nothing. */
export async function* mapNode(
  top: BlockNode,
  start: number,
  end: number,
  signal?: AbortSignal,
): AsyncGenerator<MapEntry, void, undefined> {
  const levels = chainOf(top);
  let current: MutableEntry | undefined;
  for (let at = start; at < end;) {
    signal?.throwIfAborted();
    const next = await entryAt(levels, at, end - at);
    at += next.length;
    if (current === undefined) current = next;
    else if (continues(current, next)) current.length += next.length;
    else {
      yield current;
      current = next;
    }
  }
  if (current !== undefined) yield current;
}

type MutableEntry = { -readonly [K in keyof MapEntry]: MapEntry[K] };

function nothing(start: number): MutableEntry {
  return {
    start,
    length: 0,
    depth: 0,
    present: false,
    zero: false,
    data: false,
    compressed: false,
  };
}

function chainOf(top: BlockNode): BlockNode[] {
  const levels: BlockNode[] = [];
  for (let node: BlockNode | null = top; node !== null; node = node.backing?.node ?? null) {
    levels.push(node);
  }
  return levels;
}

/** The run at `start`, of at most `length` bytes, as the first level sees it that knows anything of it. */
async function entryAt(
  levels: readonly BlockNode[],
  start: number,
  length: number,
): Promise<MutableEntry> {
  for (let depth = 0;; depth++) {
    const extent = await extentOf(levels[depth]!, start, length);
    ({ length } = extent);
    if (extent.state !== "unallocated") return entryOf(extent, start, depth);
    const behind = levels[depth + 1];
    // Not allocated anywhere, or behind the end of the next level.
    if (behind === undefined || start >= behind.length) {
      return { ...nothing(start), length, depth, zero: true };
    }
    length = Math.min(length, behind.length - start);
  }
}

async function extentOf(node: BlockNode, start: number, length: number): Promise<Extent> {
  try {
    return await node.extent(start, length);
  } catch (error) {
    throw new ImageError(`Could not read file metadata: ${reasonText(error)}`, {
      errno: ImageError.from(error).errno,
      file: node.filename,
      cause: error,
    });
  }
}

function entryOf(extent: Extent, start: number, depth: number): MutableEntry {
  const data = extent.state === "data";
  const { length, compressed, offset, file } = extent;
  const entry: MutableEntry = {
    start,
    length,
    depth,
    present: true,
    zero: !data || extent.hole === true,
    data,
    compressed,
  };
  if (offset !== undefined) {
    entry.offset = offset;
    if (file !== undefined) entry.file = file.filename;
  }
  return entry;
}

/** Whether `next` goes on where `entry` ends, in every respect. */
function continues(entry: MapEntry, next: MapEntry): boolean {
  return entry.zero === next.zero && entry.data === next.data &&
    entry.present === next.present && entry.depth === next.depth &&
    entry.compressed === next.compressed && entry.file === next.file &&
    (entry.offset === undefined
      ? next.offset === undefined
      : next.offset === entry.offset + entry.length);
}
