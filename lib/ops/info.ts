/**
 * What there is to know of an image without reading its content. Command-line reference, section 7.
 *
 * @module
 */
import type { BitmapInfo, ImageDetails, SnapshotInfo } from "../block/capabilities.ts";
import { ImageError } from "../block/error.ts";
import { type OpenMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { gateOf } from "../graph/gate.ts";
import { BackingTrail } from "../graph/identity.ts";
import { resolveRelative } from "../graph/names.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import { lowestFile } from "../graph/shown_names.ts";

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

/**
 * Describes an image, or with `chain` it and all its backing files, top first. Neither backing files
 * nor keys are needed for that.
 *
 * ```ts
 * import { createImage, imageInfo } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * const [info] = await imageInfo({ filename });
 * assertEquals([info?.format, info?.virtualSize], ["qcow2", 1048576]);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} also for a chain that comes back to itself.
 */
export async function imageInfo(
  image: ImageReference,
  options: InfoOptions = {},
  environment: Environment = QUIET,
): Promise<ImageInfo[]> {
  const mode: OpenMode = {
    ...READ_ONLY,
    metadataOnly: true,
    forceShare: options.forceShare ?? false,
  };
  const trail = new BackingTrail();
  const images: ImageInfo[] = [];
  let next: ImageReference | undefined = image;
  while (next !== undefined) {
    await using node = await openImage(next, mode, environment);
    if (options.chain) trail.enter(lowestFile(node), next.filename);
    const info = await describe(node);
    images.push(info);
    next = options.chain ? backingOf(info, environment) : undefined;
  }
  return images;
}

function backingOf(info: ImageInfo, environment: Environment): ImageReference | undefined {
  const { backingFilename: stored, fullBackingFilename: filename } = info;
  if (stored === undefined) return undefined;
  gateOf(environment).pass({ role: "backing", filename: stored, image: info.filename });
  if (filename === undefined) {
    throw new ImageError(
      `Could not determine absolute backing filename, but backing filename '${stored}' present`,
      { errno: "EINVAL", file: info.filename },
    );
  }
  return { filename, format: info.backingFormat };
}

async function describe(node: BlockNode): Promise<ImageInfo> {
  const children: { name: string; info: ImageInfo }[] = [];
  const behind = node.filtered === undefined ? node.backing?.node ?? undefined : undefined;
  // What is behind an image is there only where it is itself below another node.
  if (behind !== undefined) children.push({ name: "backing", info: await describe(behind) });
  for (const child of node.children) {
    children.push({ name: child.name, info: await describe(child.node) });
  }
  const snapshots = node.snapshots?.list() ?? [];
  const bitmaps = node.bitmaps?.list() ?? [];
  return {
    filename: node.filename,
    format: node.driver,
    virtualSize: node.length,
    actualSize: await node.allocatedSize(),
    details: await node.details?.(),
    ...backingNames(node),
    ...(snapshots.length > 0 ? { snapshots } : {}),
    ...(bitmaps.length > 0 ? { bitmaps } : {}),
    children,
  };
}

function backingNames(
  node: BlockNode,
): Pick<ImageInfo, "backingFilename" | "fullBackingFilename" | "backingFormat"> {
  const { backing } = node;
  if (node.filtered !== undefined || backing === undefined || backing.name === "") return {};
  let resolved: string | undefined;
  try {
    resolved = resolveRelative(lowestFile(node).filename, backing.name);
  } catch {
    // Shown as unknown.
  }
  return {
    backingFilename: backing.name,
    ...(resolved === undefined ? {} : { fullBackingFilename: resolved }),
    ...(backing.format === undefined ? {} : { backingFormat: backing.format }),
  };
}
