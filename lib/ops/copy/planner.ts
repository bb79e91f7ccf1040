/**
 * Cutting a source into steps of a copy.
 *
 * The cuts are where the reference cuts, since zeros are looked for between two of them: where the
 * state of the source changes, and every {@linkcode SLOT_SIZE} bytes from there.
 *
 * @module
 */
import type { BlockNode } from "../../block/node.ts";
import { alignDown } from "../../bytes/align.ts";
import type { Pace } from "./pace.ts";
import { type JobFile, type JobPiece, type Part, SLOT_SIZE } from "./job.ts";
import { type Place, placesIn, slicePlace, type Source, type Stretch } from "./source.ts";

/** A run of guest bytes that is read, scanned and counted as one. */
export interface Piece {
  /** Guest offset. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Where they are, in order. */
  readonly places: readonly Place[];
}

/** What a copy does next. */
export type Step =
  /** The range has to read as zeros. */
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  /** One run that the main thread reads and writes bit by bit. */
  | { readonly kind: "plain"; readonly piece: Piece }
  /** Runs that go through a slot; together they fit. */
  | { readonly kind: "slot"; readonly pieces: readonly Piece[] };

/** How a plan is made. */
export interface PlanOptions {
  /** Cut into clusters of this many bytes, which all go through a slot (compressed targets). */
  readonly clusterSize?: number | undefined;
  /** Zeros are written like data. */
  readonly zerosAreData: boolean;
  /** Zeros need not be written. */
  readonly skipZeros: boolean;
  /** All goes through slots, because the target takes several requests at a time. */
  readonly slotsOnly?: boolean;
}

/** Bytes from which on a step for other threads is worth its message. */
const FULL_STEP = SLOT_SIZE / 2;

/** A run of plain bytes up to this long between compressed clusters goes their way. */
const SHORT_RUN = SLOT_SIZE / 8;

/** What a plan has to move, bytes. */
export interface Workload {
  /** All that counts as data. */
  readonly data: number;
  /** Of it, what other threads could help with: data to be inflated, or all with a compressed target. */
  readonly heavy: number;
  /** Of it, what comes from afar as it is. */
  readonly far: number;
}

/** Looks over a whole source. */
export async function measureWork(
  source: Source,
  options: PlanOptions,
  pace: Pace,
): Promise<Workload> {
  let data = 0;
  let heavy = 0;
  let far = 0;
  for (let at = 0; at < source.length;) {
    await pace.step();
    const { stretch: { place }, length, isData, isPacked } = await nextRun(source, at, options);
    if (isData) data += length;
    if (isData && place.kind === "plain" && isFar(place.file)) far += length;
    if (isData && (isPacked || options.clusterSize !== undefined)) heavy += length;
    at += length;
  }
  return { data, heavy, far };
}

/** The steps of a copy of all of `source`, from begin to end. */
export async function* planSteps(
  source: Source,
  options: PlanOptions,
): AsyncGenerator<Step, void, undefined> {
  let pieces: Piece[] = [];
  let bytes = 0;
  for (let at = 0; at < source.length;) {
    const run = await nextRun(source, at, options);
    const { stretch, isData } = run;
    const length = isData ? Math.min(run.length, SLOT_SIZE) : run.length;
    if (isData) {
      const piece = await pieceAt(source, at, length, stretch, options);
      // What lies in several places is scanned for zeros as a whole.
      const isPlain = options.clusterSize === undefined && !options.slotsOnly &&
        piece.places.length === 1 &&
        isSimple(piece.places) && !(bytes > 0 && length <= SHORT_RUN);
      if (bytes > 0 && (isPlain || bytes + length > SLOT_SIZE)) {
        yield { kind: "slot", pieces };
        [pieces, bytes] = [[], 0];
      }
      if (isPlain) yield { kind: "plain", piece };
      else {
        pieces.push(piece);
        bytes += length;
        if (bytes >= FULL_STEP) {
          yield { kind: "slot", pieces };
          [pieces, bytes] = [[], 0];
        }
      }
    } else if (stretch.kind === "zero" && !options.skipZeros) {
      if (bytes > 0) {
        yield { kind: "slot", pieces };
        [pieces, bytes] = [[], 0];
      }
      yield { kind: "zero", offset: at, length };
    }
    at += length;
  }
  if (bytes > 0) yield { kind: "slot", pieces };
}

/** The run at `offset`, in whole clusters if there are such. */
async function nextRun(
  source: Source,
  offset: number,
  { clusterSize, zerosAreData }: PlanOptions,
): Promise<{ stretch: Stretch; length: number; isData: boolean; isPacked: boolean }> {
  const stretch = await source.stretchAt(offset);
  let { length } = stretch;
  let isData = stretch.kind === "data" || (stretch.kind === "zero" && zerosAreData);
  if (clusterSize !== undefined) {
    // What has several states within one cluster is stored as a whole.
    if (length < clusterSize) {
      length = Math.min(clusterSize, source.length - offset);
      isData = true;
    } else length = alignDown(length, clusterSize);
  }
  return { stretch, length, isData, isPacked: mayBePacked(stretch.place) };
}

function mayBePacked(place: Place): boolean {
  return place.kind === "packed" || place.kind === "sealed" ||
    (place.kind === "node" && place.parts !== undefined);
}

async function pieceAt(
  source: Source,
  offset: number,
  length: number,
  first: Stretch,
  { clusterSize }: PlanOptions,
): Promise<Piece> {
  if (clusterSize === undefined || length <= first.length) {
    return { offset, length, places: placesIn(placeWithin(first, length)) };
  }
  const places: Place[] = [];
  const end = offset + length;
  for (let at = offset; at < end;) {
    const stretch = await source.stretchAt(at);
    const wanted = Math.min(stretch.length, end - at);
    places.push(...placesIn(placeWithin(stretch, wanted)));
    at += wanted;
  }
  return { offset, length, places };
}

/** Where the first bytes of a stretch are that is to be stored. */
function placeWithin(stretch: Stretch, length: number): Place {
  // What is hidden is only stored along with the rest of its cluster, which then hides what it showed.
  if (stretch.kind === "hidden") return { kind: "node", length };
  return slicePlace(stretch.place, 0, length);
}

/** Whether a piece needs neither another thread nor waiting. */
function isSimple(places: readonly Place[]): boolean {
  return places.every((place) =>
    place.kind === "zero" || (place.kind === "plain" && !isFar(place.file))
  );
}

/** Whether a node is better asked for several things at a time. */
export function isFar({ limits }: BlockNode): boolean {
  return (limits.requests ?? 1) > 1;
}

/** Whether other threads can get at a place by themselves. */
export function isReachable(place: Place): boolean {
  switch (place.kind) {
    case "zero":
      return true;
    case "plain":
      return place.file.local !== undefined;
    case "packed":
    case "sealed":
      return place.run.file.local !== undefined;
    case "node":
      return false;
  }
}

/** Gathers the files of a job while places become parts. */
export class JobFiles {
  /** The files, for the job. */
  readonly files: JobFile[] = [];
  readonly #indexes = new Map<BlockNode, number>();

  /** The part for a place that {@linkcode isReachable}. Others are `ready`: somebody has to fill them in. */
  partOf(place: Place): Part {
    const { length } = place;
    if (!isReachable(place)) return { kind: "ready", length };
    switch (place.kind) {
      case "plain":
        return { kind: "plain", length, file: this.#indexOf(place.file), offset: place.offset };
      case "packed": {
        const { run } = place;
        return {
          kind: "packed",
          length,
          file: this.#indexOf(run.file),
          offset: run.offset,
          packedLength: run.length,
          codec: run.codec,
          size: run.size,
          skip: run.skip,
        };
      }
      case "sealed": {
        const { file, ...run } = place.run;
        return { kind: "sealed", length, file: this.#indexOf(file), ...run };
      }
      default:
        return { kind: "zero", length };
    }
  }

  /** The piece for a job. */
  pieceOf({ offset, length, places }: Piece): JobPiece {
    return { offset, length, parts: places.map((place) => this.partOf(place)) };
  }

  #indexOf(node: BlockNode): number {
    let index = this.#indexes.get(node);
    if (index === undefined) {
      const { path, direct } = node.local!;
      index = this.files.push({ path, direct }) - 1;
      this.#indexes.set(node, index);
    }
    return index;
  }
}

/** A piece whose bytes are in its slot already. */
export function readyPiece({ offset, length }: Piece): JobPiece {
  return { offset, length, parts: [{ kind: "ready", length }] };
}
