/**
 * Where a differencing image says that its parent is, and whether that is the right one.
 *
 * The specification ("Virtual Hard Disk Image Format Specification", version 1.0) has several ways to name
 * a parent, for different platforms. They are tried in an order that lets images be moved together.
 *
 * @module
 */
import type { BackingLink } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32BE, readU64BE } from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import type { DynamicHeader } from "./dynamic_header.ts";
import { readFooter } from "./footer.ts";

const AT = { parentId: 40, parentName: 64, locators: 576 } as const;
const ID_SIZE = 16;
const NAME_SIZE = 512;
const LOCATOR_SIZE = 24;
const LOCATORS = 8;

/** Longer paths are on no platform. Bytes. */
const MAX_PATH = 65536;

const isWindows = Deno.build.os === "windows";

/** What the platform codes of locators stand for that are of use here. */
const PLATFORMS: Readonly<Record<string, (bytes: Uint8Array) => string | undefined>> = {
  /** A path relative to the image. */
  W2ru: (bytes) => relativePath(text("utf-16le", bytes)),
  /** A URL: `file://` and a path, which some programs let begin with a dot. */
  MacX: (bytes) => urlPath(text("utf-8", bytes)),
  /** A path from the root of a drive. */
  W2ku: (bytes) => absolutePath(text("utf-16le", bytes)),
};

/** The identity of the parent of an image, which the parent's footer repeats. */
export function parentId({ bytes }: DynamicHeader): Uint8Array {
  return bytes.slice(AT.parentId, AT.parentId + ID_SIZE);
}

/**
 * The path of an image's parent, absolute or relative to the image: never one that names a protocol.
 *
 * @throws {ImageError} `EINVAL` if the image has none that is of use on this platform.
 */
export async function parentPath(file: BlockNode, { bytes }: DynamicHeader): Promise<string> {
  const found = new Map<string, string>();
  for (let index = 0; index < LOCATORS; index++) {
    const at = AT.locators + index * LOCATOR_SIZE;
    const platform = String.fromCharCode(...bytes.subarray(at, at + 4));
    const path = await locatedPath(file, platform, {
      length: readU32BE(bytes, at + 8),
      offset: readU64BE(bytes, at + 16),
    });
    if (path !== undefined && !found.has(platform)) found.set(platform, path);
  }
  for (const platform of Object.keys(PLATFORMS)) {
    const path = found.get(platform);
    if (path !== undefined) return path;
  }
  // The name alone: next to the image.
  const name = text("utf-16be", bytes.subarray(AT.parentName, AT.parentName + NAME_SIZE))
    .split(/[\\/]/).at(-1)!;
  const path = relativePath(name);
  if (path !== undefined) return path;
  throw new ImageError("The image has a parent, and no path of it that can be used here", {
    errno: "EINVAL",
    file: file.filename,
    field: "parent locator",
  });
}

async function locatedPath(
  file: BlockNode,
  platform: string,
  { length, offset }: { readonly length: number; readonly offset: bigint },
): Promise<string | undefined> {
  if (!Object.hasOwn(PLATFORMS, platform)) return undefined;
  const isInFile = offset + BigInt(length) <= BigInt(file.length);
  if (length === 0 || length > MAX_PATH || !isInFile) return undefined;
  const bytes = new Uint8Array(length);
  await readPadded(file, Number(offset), bytes);
  return PLATFORMS[platform]!(bytes);
}

/** A text without what fills its field up. */
function text(encoding: string, bytes: Uint8Array): string {
  return new TextDecoder(encoding).decode(bytes).replace(/\0+$/, "");
}

/** A relative path as this platform has it. */
function relativePath(path: string): string | undefined {
  if (isUnusable(path)) return undefined;
  if (/^[\\/]|^[A-Za-z]:/.test(path)) return absolutePath(path);
  if (isWindows) return path;
  const own = path.replaceAll("\\", "/");
  // Else what stands in front of the colon would be a protocol.
  return /^[^/]*:/.test(own) ? `./${own}` : own;
}

function absolutePath(path: string): string | undefined {
  const isAbsolute = isWindows ? /^(?:[\\/]|[A-Za-z]:)/ : /^\//;
  return !isUnusable(path) && isAbsolute.test(path) ? path : undefined;
}

function urlPath(url: string): string | undefined {
  const path = /^file:\/\/(?:localhost(?=\/))?(.+)$/.exec(url)?.[1];
  if (path === undefined) return undefined;
  try {
    return relativePath(decodeURIComponent(path));
  } catch {
    // Not encoded as URLs have to be.
    return undefined;
  }
}

function isUnusable(path: string): boolean {
  return path === "" || path.includes("\0");
}

/** The parent of an open image. */
export class ParentLink implements BackingLink {
  readonly name: string;
  readonly format = "vpc";
  readonly #id: Uint8Array;
  #node: BlockNode | null = null;
  #checked: Promise<void> | undefined;

  /** A parent by its path and identity. */
  constructor(name: string, id: Uint8Array) {
    this.name = name;
    this.#id = id;
  }

  get node(): BlockNode | null {
    return this.#node;
  }

  attach(node: BlockNode | null): void {
    this.#node = node;
    this.#checked = undefined;
  }

  /**
   * Makes sure that the parent is the disk from which this image differs. One that somebody has put there
   * in another format cannot be told from others.
   *
   * @throws {ImageError} `EINVAL` if it is not.
   */
  check(): Promise<void> {
    return this.#checked ??= this.#check();
  }

  async #check(): Promise<void> {
    const node = this.#node;
    if (node === null || node.driver !== "vpc") return;
    const file = node.children.find(({ name }) => name === "file")!.node;
    const { id } = await readFooter(file);
    if (equalBytes(id, this.#id)) return;
    throw new ImageError(
      `'${node.filename}' is not the parent of this image, but another disk in its place`,
      { errno: "EINVAL", file: node.filename, field: "parent unique id" },
    );
  }
}
