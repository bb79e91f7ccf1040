import type { BitmapInfo, ImageDetails, SnapshotInfo } from "../block/capabilities.ts";
import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";

/** What `info` tells of one image (or node below it). */
export interface ImageInfo {
  /** Name as shown. */
  readonly filename: string;
  /** Driver. */
  readonly format: string;
  /** Virtual size, bytes. */
  readonly virtualSize: number;
  /** Host bytes, `undefined` if unavailable. */
  readonly actualSize: number | undefined;
  /** Cluster size, encryption, dirty flag, format-specific values; `undefined` if the driver has none. */
  readonly details: ImageDetails | undefined;
  /** Backing name as stored. */
  readonly backingFilename?: string;
  /** Backing name resolved against the image's folder; `undefined` where that cannot be done. */
  readonly fullBackingFilename?: string;
  /** Backing format as stored. */
  readonly backingFormat?: string;
  /** Internal snapshots; absent if there are none. */
  readonly snapshots?: readonly SnapshotInfo[];
  /** Bitmaps; absent if there are none. */
  readonly bitmaps?: readonly BitmapInfo[];
  /** The nodes below, last attached first. */
  readonly children: readonly { readonly name: string; readonly info: ImageInfo }[];
}

/** How to look. */
export interface InfoOptions {
  /** The whole backing chain. */
  readonly chain?: boolean;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/** Describes an image, or with `chain` it and all its backing files, top first. */
export function imageInfo(
  _image: ImageReference,
  _options: InfoOptions,
  _environment: Environment,
): Promise<ImageInfo[]> {
  throw new Error("in work");
}
