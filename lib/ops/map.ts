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
 * ```ts
 * import { createImage, mapImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * const entries = await Array.fromAsync(mapImage({ filename }));
 * assertEquals(entries.map(({ start, length, present }) => [start, length, present]), [
 *   [0, 1048576, false],
 * ]);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Could not read file metadata: …` and what opening throws.
 */
export async function* mapImage(
  image: ImageReference,
  options: MapOptions = {},
  environment: Environment = QUIET,
): AsyncGenerator<MapEntry, void, undefined> {
  for await (const batch of mapBatches(image, options, environment)) yield* batch;
}

/**
 * The same in batches of some hundred entries, for who has an eye on speed: to hand over each by itself
 * takes as long as to find it. The first batch is empty and comes when the image is open.
 *
 * @throws {ImageError} as {@linkcode mapImage} does.
 */
export async function* mapBatches(
  image: ImageReference,
  options: MapOptions = {},
  environment: Environment = QUIET,
): AsyncGenerator<readonly MapEntry[], void, undefined> {
  const { start = 0, length = Infinity, forceShare = false } = options;
  await using top = await openImage(image, { ...READ_ONLY, forceShare }, environment);
  const end = Math.min(start + length, top.length);
  yield [];
  if (start >= end) yield [nothing(start)];
  else yield* mapNode(top, start, end, environment.signal);
}

/**
 * The batches of a part of an open image. An empty part has none. In front of an error comes what is
 * known, but not the entry that might have gone on there.
 */
export async function* mapNode(
  top: BlockNode,
  start: number,
  end: number,
  signal?: AbortSignal,
): AsyncGenerator<readonly MapEntry[], void, undefined> {
  const levels = chainOf(top);
  let batch: MutableEntry[] = [];
  let last: MutableEntry | undefined;
  for (let at = start; at < end;) {
    // The first level that knows anything of it answers. One await a level: this is all the work there is.
    let length = end - at;
    let next: MutableEntry | undefined;
    for (let depth = 0; next === undefined; depth++) {
      let extent: Extent;
      try {
        extent = await levels[depth]!.extent(at, length);
      } catch (error) {
        if (batch.length > 1) yield batch.slice(0, -1);
        throw unreadable(error, levels[depth]!);
      }
      length = extent.length;
      const behind = levels[depth + 1];
      if (extent.state !== "unallocated") next = entryOf(extent, at, depth);
      else if (behind === undefined || at >= behind.length) {
        // Not allocated anywhere, or behind the end of the next level. Space may be reserved all the same.
        next = { ...entryOf(extent, at, depth), present: false };
      } else length = Math.min(length, behind.length - at);
    }
    at += next.length;
    if (last !== undefined && continues(last, next)) {
      last.length += next.length;
      continue;
    }
    if (batch.length >= BATCH) {
      signal?.throwIfAborted();
      yield batch;
      batch = [];
    }
    batch.push(next);
    last = next;
  }
  if (batch.length > 0) yield batch;
}

/** Entries of a batch at most. */
const BATCH = 512;

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

function unreadable(error: unknown, { filename }: BlockNode): ImageError {
  return new ImageError(`Could not read file metadata: ${reasonText(error)}`, {
    errno: ImageError.from(error).errno,
    file: filename,
    cause: error,
  });
}

function entryOf(extent: Extent, start: number, depth: number): MutableEntry {
  const data = extent.state === "data";
  const { length, compressed, offset, file } = extent;
  const entry: MutableEntry = {
    start,
    length,
    depth,
    present: !extent.unknown,
    zero: !data || extent.hole === true,
    data: data && !extent.unknown,
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
