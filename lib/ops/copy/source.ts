/**
 * What is to be copied or compared: where its bytes lie, and how to read them.
 *
 * @module
 */
import { ImageError, reasonText } from "../../block/error.ts";
import type { BlockNode, Extent } from "../../block/node.ts";
import type { PackedRun, SealedRun } from "../../block/plan.ts";
import { alignUp } from "../../bytes/align.ts";

const SECTOR = 512;

/** Stretches that are kept, some 4 MiB of them; of what comes after, one. */
const MOST_KEPT = 16384;

/** Where a run of bytes can be had. All in bytes. */
export type Place =
  /** Nowhere: zeros. */
  | { readonly kind: "zero"; readonly length: number }
  /** In a file, plainly. */
  | {
    readonly kind: "plain";
    readonly length: number;
    readonly file: BlockNode;
    readonly offset: number;
  }
  /** In a compressed cluster. */
  | { readonly kind: "packed"; readonly length: number; readonly run: PackedRun }
  /** In encrypted sectors, whole ones. */
  | { readonly kind: "sealed"; readonly length: number; readonly run: SealedRun }
  /** Only from the node, unless that knows more of its `parts`. */
  | { readonly kind: "node"; readonly length: number; readonly parts?: Parts };

/** The parts of a place from one on. */
interface Parts {
  readonly find: NonNullable<Extent["parts"]>;
  /** Offset in the node that answers. */
  readonly offset: number;
}

/** A run of a source with one state. */
export interface Stretch {
  /** First byte. */
  readonly offset: number;
  /** Bytes, a multiple of 512. */
  readonly length: number;
  /** `hidden`: what lies behind is not to be looked at, and this level has nothing. */
  readonly kind: "data" | "zero" | "hidden";
  /** Where the data are. */
  readonly place: Place;
  /** What the first level that knows anything says; `undefined` if none does. */
  readonly extent: Extent | undefined;
  /** Where the state really ends, which `length` rounds. */
  readonly end: number;
}

/** How {@linkcode Source} sees its images. */
export interface SourceOptions {
  /**
   * Stretches are what the reference tells of, and end where the state does, not at the image's clusters
   * or the file's alignment.
   */
  readonly exact?: boolean;
  /**
   * Only data counts in the progress: zeros need not end where the reference looks again, which an empty
   * disk of terabytes would be slow for, if that is at a multiple of this, bytes. 0: they always end there.
   */
  readonly wholeZeros?: number;
  /**
   * Set when the copy gets a backing file of this many bytes: only what the top image holds counts. What
   * reads as zeros behind the backing file's end need not be stored either.
   */
  readonly overBacking?: number | undefined;
  /** What cannot be read becomes zeros; called with the words of a warning. */
  readonly salvage?: ((warning: string) => void) | undefined;
}

interface Segment {
  readonly node: BlockNode;
  readonly start: number;
  readonly end: number;
  /** Stretches end on multiples of this, counted from the segment's begin. */
  readonly alignment: number;
}

/** Images one behind the other, as one run of bytes. */
export class Source {
  /** Bytes. */
  readonly length: number;
  readonly #segments: readonly Segment[];
  readonly #options: SourceOptions;
  #segment = 0;
  #stretch: Stretch | undefined;
  /** In a salvage: nothing could be said of the last sector that was asked for. */
  #isLost = false;
  /** Stretches by where they begin: a copy looks at all of them twice, and asking costs system calls. */
  readonly #found = new Map<number, Stretch>();

  /** The images `nodes`, which stay the caller's. */
  constructor(nodes: readonly BlockNode[], options: SourceOptions = {}) {
    let start = 0;
    this.#segments = nodes.map((node) => {
      const { requestAlignment, clusterSize } = node.limits;
      const alignment = options.exact ? SECTOR : Math.max(requestAlignment, clusterSize, SECTOR);
      const segment = { node, start, end: start + node.length, alignment };
      start = segment.end;
      return segment;
    });
    this.length = start;
    this.#options = options;
  }

  /**
   * The run with one state at `offset`, which is a multiple of 512 before the end. Cheap where offsets
   * only grow.
   *
   * @throws {ImageError} `error while reading block status at offset …`
   */
  async stretchAt(offset: number): Promise<Stretch> {
    const known = this.#stretch;
    if (known === undefined || offset < known.offset || offset >= known.offset + known.length) {
      let found = this.#found.get(offset);
      if (found === undefined) {
        found = await this.#find(offset);
        // In a salvage the reference complains each time that it looks.
        const keep = this.#options.salvage === undefined && this.#found.size < MOST_KEPT;
        if (keep) this.#found.set(offset, found);
      }
      this.#stretch = found;
      return found;
    }
    if (offset === known.offset) return known;
    const skip = offset - known.offset;
    const length = known.length - skip;
    return { ...known, offset, length, place: slicePlace(known.place, skip, length) };
  }

  /**
   * Reads through the nodes.
   *
   * @throws {ImageError} `error while reading at byte <begin>: …`, unless in a salvage.
   */
  async read(offset: number, into: Uint8Array, begin: number = offset): Promise<void> {
    try {
      await this.#read(offset, into);
    } catch (error) {
      const { salvage } = this.#options;
      if (salvage === undefined) throw readError(error, begin);
      for (let at = 0; at < into.length; at += SECTOR) {
        const sector = into.subarray(at, at + SECTOR);
        try {
          await this.#read(offset + at, sector);
        } catch (error) {
          const { start } = this.#segmentAt(offset + at);
          salvage(`error while reading offset ${offset + at - start}: ${reasonText(error)}`);
          sector.fill(0);
        }
      }
    }
  }

  /**
   * Reads from byte `at` of `place` on, which is what the guest has at `offset`.
   *
   * @throws {ImageError} as {@linkcode Source.read} does.
   */
  async readPlace(
    place: Place,
    at: number,
    offset: number,
    into: Uint8Array,
    begin: number,
  ): Promise<void> {
    if (place.kind === "zero") {
      into.fill(0);
      return;
    }
    if (place.kind === "plain") {
      try {
        await place.file.read(place.offset + at, into);
        return;
      } catch {
        // The image knows what to say of it.
      }
    }
    await this.read(offset, into, begin);
  }

  async #read(offset: number, into: Uint8Array): Promise<void> {
    for (let at = 0; at < into.length;) {
      const { node, start, end } = this.#segmentAt(offset + at);
      const length = Math.min(into.length - at, end - offset - at);
      await node.read(offset + at - start, into.subarray(at, at + length));
      at += length;
    }
  }

  #segmentAt(offset: number): Segment {
    const segments = this.#segments;
    if (offset < segments[this.#segment]!.start) this.#segment = 0;
    // Empty images are passed over.
    while (offset >= segments[this.#segment]!.end) this.#segment++;
    return segments[this.#segment]!;
  }

  async #find(offset: number): Promise<Stretch> {
    const { node, start, end, alignment } = this.#segmentAt(offset);
    const { overBacking } = this.#options;
    let limit = end - offset;
    if (overBacking !== undefined && offset < overBacking) {
      limit = Math.min(limit, overBacking - offset);
    }
    const extent = await this.#extent(node, offset - start, limit);
    let length = Math.min(alignUp(extent.length, SECTOR), limit);
    const misaligned = (offset - start + length) % alignment;
    if (length > misaligned) length -= misaligned;
    const kind = extent.kind === "zero" && overBacking !== undefined && offset >= overBacking
      ? "hidden"
      : extent.kind;
    const place = kind === "data" ? placeOf(extent.extent, offset - start, length) : zeros(length);
    const realEnd = offset + extent.length;
    return { offset, length, kind, place, extent: extent.extent, end: realEnd };
  }

  /** The state of a node at its own `offset`, which messages tell as well. */
  async #extent(
    node: BlockNode,
    offset: number,
    limit: number,
  ): Promise<ChainExtent> {
    const { overBacking, salvage, exact = false, wholeZeros = 0 } = this.#options;
    // Behind a lost sector the next one mostly is, too, and what is lost is as a whole.
    for (let length = this.#isLost ? Math.min(SECTOR, limit) : limit;;) {
      try {
        const extent = await chainExtent(node, offset, length, {
          topOnly: overBacking !== undefined,
          exact,
          wholeZeros,
        });
        if (!this.#isLost) return extent;
        this.#isLost = false;
        length = limit;
      } catch (error) {
        const warning = `error while reading block status at offset ${offset}: ${
          reasonText(error)
        }`;
        if (salvage === undefined) {
          throw new ImageError(warning, {
            errno: ImageError.from(error).errno,
            file: node.filename,
            cause: error,
          });
        }
        if (length <= SECTOR) {
          this.#isLost = true;
          salvage(warning);
          // Perhaps it can be read all the same.
          return { length, kind: "data", extent: undefined };
        }
        length = Math.max(alignUp(Math.ceil(length / 4), SECTOR), SECTOR);
      }
    }
  }
}

/** An extent of a chain of images. */
interface ChainExtent {
  readonly length: number;
  readonly kind: Stretch["kind"];
  readonly extent: Extent | undefined;
}

/** How a chain is asked. */
interface ChainQuestion {
  readonly topOnly: boolean;
  readonly exact: boolean;
  readonly wholeZeros: number;
}

/** The state at `offset` of an image and, unless `topOnly`, of what it is in front of. */
async function chainExtent(
  top: BlockNode,
  offset: number,
  length: number,
  { topOnly, exact, wholeZeros }: ChainQuestion,
): Promise<ChainExtent> {
  // The reference copies what it has looked at in one go, which its progress shows.
  let span = length;
  for (let node = top;;) {
    const { statusSpan } = node.limits;
    if (statusSpan !== undefined) {
      span = Math.min(span, statusSpan - offset % statusSpan);
      if (wholeZeros === 0 || statusSpan % wholeZeros !== 0) length = Math.min(length, span);
    }
    const extent = !exact && node.locate !== undefined
      ? await node.locate(offset, length)
      : await node.extent(offset, length);
    ({ length } = extent);
    if (extent.state !== "unallocated") {
      const isZero = extent.state === "zero" || extent.hole === true;
      if (isZero) return { length, kind: "zero", extent };
      return { length: Math.min(length, span), kind: "data", extent };
    }
    const behind = node.backing?.node ?? null;
    if (behind === null || offset >= behind.length) {
      return { length, kind: "zero", extent: undefined };
    }
    // Where the hidden image ends within the run does not matter, to the reference neither.
    if (topOnly) return { length, kind: "hidden", extent: undefined };
    length = Math.min(length, behind.length - offset);
    node = behind;
  }
}

/** Zeros. */
export function zeros(length: number): Place {
  return { kind: "zero", length };
}

function placeOf(extent: Extent | undefined, offset: number, length: number): Place {
  if (extent?.guarded) return { kind: "node", length };
  if (extent?.packed !== undefined) return { kind: "packed", length, run: extent.packed };
  if (extent?.sealed !== undefined && length % SECTOR === 0) {
    return { kind: "sealed", length, run: extent.sealed };
  }
  if (extent?.parts !== undefined) {
    return { kind: "node", length, parts: { find: extent.parts, offset } };
  }
  if (extent?.file === undefined || extent.offset === undefined) return { kind: "node", length };
  return { kind: "plain", length, file: extent.file, offset: extent.offset };
}

/** The places that a place consists of, one behind the other. */
export function placesIn(place: Place): Place[] {
  if (place.kind !== "node" || place.parts === undefined) return [place];
  const { find, offset } = place.parts;
  const places: Place[] = [];
  for (let at = 0; at < place.length;) {
    const left = place.length - at;
    try {
      const part = find(offset + at, left);
      places.push(
        part.state === "zero" ? zeros(part.length) : placeOf(part, offset + at, part.length),
      );
      at += part.length;
    } catch {
      // The node says what is wrong when the rest is read.
      places.push({ kind: "node", length: left });
      at += left;
    }
  }
  return places;
}

/** `length` bytes of a place from its byte `skip` on. */
export function slicePlace(place: Place, skip: number, length: number): Place {
  switch (place.kind) {
    case "zero":
      return { kind: place.kind, length };
    case "node": {
      const { kind, parts } = place;
      if (parts === undefined) return { kind, length };
      return { kind, length, parts: { ...parts, offset: parts.offset + skip } };
    }
    case "plain":
      return { ...place, length, offset: place.offset + skip };
    case "packed":
      return { ...place, length, run: { ...place.run, skip: place.run.skip + skip } };
    case "sealed": {
      const { kind, run } = place;
      // A part of a sector is nothing to be decrypted.
      if (skip % SECTOR !== 0 || length % SECTOR !== 0) return { kind: "node", length };
      const [offset, sector] = [run.offset + skip, run.sector + skip / SECTOR];
      return { kind, length, run: { ...run, offset, sector } };
    }
  }
}

/** The words for a run that cannot be read; `begin` is what the reference would have read from. */
export function readError(error: unknown, begin: number): ImageError {
  const known = ImageError.from(error);
  return new ImageError(`error while reading at byte ${begin}: ${reasonText(error)}`, {
    errno: known.errno,
    file: known.file,
    field: known.field,
    cause: error,
  });
}
