/**
 * From places of the disk to places in the file (section 3 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import type { QedImage } from "./image.ts";
import { type TablePage, UNALLOCATED, ZERO } from "./table_pages.ts";

/** A run of the disk with one state, and contiguous in the file where it is there. All in bytes. */
export interface Run {
  /** What it is. */
  readonly state: "data" | "zero" | "unallocated";
  /** Its length. */
  readonly length: number;
  /** Where its first byte lies in the file; -1 if it does not. */
  readonly host: number;
}

/**
 * The first run at `offset`, `length` bytes at most.
 *
 * @throws {ImageError} `EINVAL` for damaged tables, and what the file throws.
 */
export async function findRun(image: QedImage, offset: number, length: number): Promise<Run> {
  const first = await runInPage(image, offset, length);
  let total = first.length;
  while (total < length) {
    const at = offset + total;
    let next: Run;
    try {
      next = await runInPage(image, at, length - total);
    } catch {
      // Is met when its turn comes.
      break;
    }
    const goesOn = next.state === first.state &&
      (first.host < 0 || next.host === first.host + total);
    if (!goesOn) break;
    total += next.length;
  }
  return { ...first, length: total };
}

/** The run at `offset` as far as one page of a table says. */
async function runInPage(image: QedImage, offset: number, length: number): Promise<Run> {
  const { l2Span, pages, header: { clusterSize } } = image;
  const l1Index = Math.floor(offset / l2Span);
  const l1 = pages.locate(image.header.l1Offset, l1Index);
  const l1Page = pages.peek(l1.page) ?? await pages.load(l1.page);
  const table = l1Page.get(l1.entry);
  if (table === UNALLOCATED) {
    const end = endOfEqual(l1Page, l1.entry, UNALLOCATED);
    const span = (l1Index + end - l1.entry) * l2Span - offset;
    return { state: "unallocated", length: Math.min(span, length), host: -1 };
  }
  if (!image.bounds.hasTable(table)) throw damaged(image, `L1 entry ${l1Index}`);
  const inside = offset % clusterSize;
  const l2Index = (offset - l1Index * l2Span - inside) / clusterSize;
  const l2 = pages.locate(table, l2Index);
  const page = pages.peek(l2.page) ?? await pages.load(l2.page);
  const wanted = l2.entry + Math.ceil((inside + length) / clusterSize);
  const { state, host, end } = entriesAt(image, page, l2.entry, wanted);
  return {
    state,
    length: Math.min((end - l2.entry) * clusterSize - inside, length),
    host: host < 0 ? -1 : host + inside,
  };
}

/** What the entries from `index` on say alike, up to `wanted`. */
function entriesAt(
  image: QedImage,
  page: TablePage,
  index: number,
  wanted: number,
): { state: Run["state"]; host: number; end: number } {
  const { bounds, header: { clusterSize } } = image;
  const entry = page.get(index);
  const most = Math.min(wanted, page.length);
  if (entry === UNALLOCATED || entry === ZERO) {
    const state = entry === ZERO ? "zero" : "unallocated";
    return { state, host: -1, end: endOfEqual(page, index, entry, most) };
  }
  if (!bounds.hasCluster(entry)) throw damaged(image, `L2 entry ${index} of ${page.offset}`);
  // What would lie behind the end of the file is lost, and not a part of any run.
  const last = Math.min(most, index + (bounds.end - entry) / clusterSize);
  let end = index + 1;
  while (end < last && page.get(end) === entry + (end - index) * clusterSize) end++;
  return { state: "data", host: entry, end };
}

function endOfEqual(page: TablePage, index: number, value: number, most = page.length): number {
  let end = index + 1;
  while (end < most && page.get(end) === value) end++;
  return end;
}

function damaged({ context }: QedImage, field: string): ImageError {
  return ImageError.fromErrno("EINVAL", { file: context.filename, field });
}

/**
 * Reads what the disk has, through the backing file.
 *
 * @throws {ImageError} as {@linkcode findRun}.
 */
export async function readAt(image: QedImage, offset: number, into: Uint8Array): Promise<void> {
  for (let done = 0; done < into.length;) {
    const run = await findRun(image, offset + done, into.length - done);
    const part = into.subarray(done, done + run.length);
    if (run.state === "data") await readPadded(image.file, run.host, part);
    else if (run.state === "zero") part.fill(0);
    else await readBehind(image, offset + done, part);
    done += run.length;
  }
}

/** Reads what shows where the image has nothing: its backing file, and zeros behind the end of that. */
export async function readBehind(
  { backing }: QedImage,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  if (backing === null) into.fill(0);
  else await readPadded(backing, offset, into);
}
