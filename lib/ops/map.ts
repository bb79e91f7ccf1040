import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";

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

/** Where the bytes of an image lie, in order. An empty range gives one entry of length 0. */
export function mapImage(
  _image: ImageReference,
  _options: MapOptions,
  _environment: Environment,
): AsyncGenerator<MapEntry> {
  throw new Error("in work");
}
