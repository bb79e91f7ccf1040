/**
 * What an image is made of (section 2 of the format's reference).
 *
 * @module
 */
import type { UnpackCodec } from "../../lib/block/plan.ts";

/** A run of sectors. */
export interface Chunk {
  /** How the bytes are stored: `undefined` for nowhere, zeros; as they are; or compressed. */
  readonly stored: "plain" | UnpackCodec | undefined;
  /** First sector of the disk. */
  readonly first: number;
  /** Sectors. */
  readonly count: number;
  /** Where the stored bytes begin in the file. */
  readonly offset: number;
  /** How many there are. */
  readonly length: number;
}

/** The chunks of an image. They have to be in the order of the disk, or some will not be found. */
export class ChunkTable {
  readonly #chunks: readonly Chunk[];

  /** A table of these chunks. */
  constructor(chunks: readonly Chunk[]) {
    this.#chunks = chunks;
  }

  /** The chunk that holds a sector, if any does. */
  find(sector: number): Chunk | undefined {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = low + high >> 1;
      const chunk = this.#chunks[middle]!;
      if (chunk.first > sector) high = middle;
      else if (chunk.first + chunk.count > sector) return chunk;
      else low = middle + 1;
    }
    return undefined;
  }
}
