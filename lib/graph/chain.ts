/**
 * Looking through an open chain of backing files.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import type { BlockNode, Extent } from "../block/node.ts";
import { pathIdentity } from "./identity.ts";
import { protocolPrefix, resolveRelative } from "./names.ts";
import { lowestFile } from "./shown_names.ts";

/**
 * The image behind `top`, directly or further down, that `name` means: the name that is stored for it, or
 * one of the same file. `undefined` if there is none.
 */
export function findBehind(top: BlockNode, name: string): BlockNode | undefined {
  for (let image = top; image.backing?.node; image = image.backing.node) {
    const { node } = image.backing;
    if (image.backing.name === name || isFileOf(image, name, node)) return node;
  }
  return undefined;
}

/** Whether `name`, as `image` would have it, is the file that is open as `node`. */
function isFileOf(image: BlockNode, name: string, node: BlockNode): boolean {
  if (protocolPrefix(name) !== undefined) return name === node.filename;
  let path: string;
  try {
    path = resolveRelative(lowestFile(image).filename, name);
  } catch (error) {
    // An image without a name of its own: nothing is relative to it.
    if (error instanceof ImageError) return false;
    throw error;
  }
  if (path === node.filename) return true;
  const identity = pathIdentity(path);
  return identity !== undefined && identity === pathIdentity(node.filename);
}

/** The image right in front of `base` in the chain of `top`. */
export function overlayOf(top: BlockNode, base: BlockNode): BlockNode {
  let image = top;
  while (image.backing?.node && image.backing.node !== base) image = image.backing.node;
  return image;
}

/** What a part of a chain says of a run of bytes. */
export interface LayerExtent {
  /** Bytes; 0 where the top image has ended. */
  readonly length: number;
  /** `unallocated`: nothing; what is behind the part shows. */
  readonly state: Extent["state"];
}

/**
 * The first run at `offset` that the images from `top` down to, but without, `base` agree on. An image
 * that is shorter than those in front of it reads as zeros behind its end, whatever lies further down.
 */
export async function extentInFrontOf(
  base: BlockNode | null,
  top: BlockNode,
  offset: number,
  length: number,
): Promise<LayerExtent> {
  if (top === base) return { length, state: "unallocated" };
  if (offset >= top.length) return { length: 0, state: "unallocated" };
  for (let image: BlockNode | null = top; image !== null && image !== base;) {
    if (offset >= image.length) return { length, state: "zero" };
    const most = withinSpan(image, offset, length);
    const extent = await image.extent(offset, most);
    ({ length } = extent);
    if (extent.state === "data") length = await dataLength(image, extent, offset, most);
    if (extent.state !== "unallocated") return { length, state: extent.state };
    image = image.backing?.node ?? null;
  }
  return { length, state: "unallocated" };
}

/** How far data go on in one piece: where their file has holes does not matter here. */
async function dataLength(
  image: BlockNode,
  first: Extent,
  offset: number,
  most: number,
): Promise<number> {
  let { length } = first;
  if (first.file === undefined || first.offset === undefined) return length;
  while (length < most) {
    const next = await image.extent(offset + length, most - length);
    const isNext = next.state === "data" && next.file === first.file &&
      next.offset === first.offset + length;
    if (!isNext) break;
    length += next.length;
  }
  return length;
}

/** How much of a run the reference would look at in one go. */
export function withinSpan(image: BlockNode, offset: number, length: number): number {
  const { statusSpan } = image.limits;
  const rest = Math.min(length, image.length - offset);
  return statusSpan === undefined ? rest : Math.min(rest, statusSpan - offset % statusSpan);
}
