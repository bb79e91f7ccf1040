/**
 * Where a differencing image says that its parent is, and whether that is the right one.
 *
 * The specification ("Virtual Hard Disk Image Format Specification", version 1.0) has several ways to name
 * a parent, for different platforms. They are tried in an order that lets images be moved together.
 *
 * @module
 */
import type { BackingLink } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { hostNameOf } from "../../lib/block/windows_path.ts";
import { readU32BE, readU64BE } from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import type { DynamicHeader } from "./dynamic_header.ts";
import { identityOf } from "./footer.ts";

const AT = { parentId: 40, parentName: 64, locators: 576 } as const;
const ID_SIZE = 16;
const NAME_SIZE = 512;
const LOCATOR_SIZE = 24;
const LOCATORS = 8;

/** Longer paths are on no platform. Bytes. */
const MAX_PATH = 65536;

/** The platform codes of locators that are of use here, and what they stand for; the first counts most. */
const PLATFORMS: Readonly<Record<string, (bytes: Uint8Array) => string | undefined>> = {
  /** A path relative to the image. */
  W2ru: (bytes) => text("utf-16le", bytes),
  /** A URL: `file://` and a path, which some programs let begin with a dot. */
  MacX: (bytes) => urlPath(text("utf-8", bytes)),
  /** A path from the root of a drive. */
  W2ku: (bytes) => text("utf-16le", bytes),
};

/**
 * The paths of an image's parent, the one to try first in front. At the end there is its mere name, for
 * one that lies next to the image.
 *
 * @throws {ImageError} `EINVAL` if the image does not name its parent at all.
 */
export async function parentPaths(file: BlockNode, { bytes }: DynamicHeader): Promise<string[]> {
  const found = new Map<string, string | undefined>();
  for (let index = 0; index < LOCATORS; index++) {
    const at = AT.locators + index * LOCATOR_SIZE;
    const platform = String.fromCharCode(...bytes.subarray(at, at + 4));
    if (found.get(platform) !== undefined || !Object.hasOwn(PLATFORMS, platform)) continue;
    const length = readU32BE(bytes, at + 8);
    const offset = readU64BE(bytes, at + 16);
    if (length > MAX_PATH || offset + BigInt(length) > BigInt(file.length)) continue;
    const path = new Uint8Array(length);
    await readPadded(file, Number(offset), path);
    found.set(platform, PLATFORMS[platform]!(path));
  }
  const name = text("utf-16be", bytes.subarray(AT.parentName, AT.parentName + NAME_SIZE));
  const paths = Object.keys(PLATFORMS).map((platform) => found.get(platform))
    .concat(name.split(/[\\/]/).at(-1))
    .filter((path): path is string => path !== undefined && path !== "" && !path.includes("\0"));
  if (paths.length > 0) return paths;
  throw new ImageError("The image has a parent and does not say where", {
    errno: "EINVAL",
    file: file.filename,
    field: "parent locator",
  });
}

/** A text without what fills its field up. */
function text(encoding: string, bytes: Uint8Array): string {
  return new TextDecoder(encoding).decode(bytes).replace(/\0+$/, "");
}

function urlPath(url: string): string | undefined {
  const path = /^file:\/\/(?:localhost(?=\/))?(.+)$/.exec(url)?.[1];
  if (path === undefined) return undefined;
  try {
    return decodeURIComponent(path);
  } catch {
    // Not encoded as URLs have to be.
    return undefined;
  }
}

/** The parent of an open image. */
export class ParentLink implements BackingLink {
  readonly name: string;
  readonly format = "vpc";
  readonly #filename: string;
  readonly #id: Uint8Array;
  #node: BlockNode | null = null;

  /** What the header of an image says of its parent. */
  constructor(
    file: BlockNode,
    { filename, mode, untrusted }: DriverContext,
    { bytes }: DynamicHeader,
    paths: readonly string[],
  ) {
    this.#filename = filename;
    this.#id = bytes.slice(AT.parentId, AT.parentId + ID_SIZE);
    this.name = hostNameOf(paths, file, !untrusted && !mode.noBacking);
  }

  get node(): BlockNode | null {
    return this.#node;
  }

  /**
   * Takes the parent. One that somebody has put there in another format cannot be told from others.
   *
   * @throws {ImageError} `EINVAL` for another disk than the one from which this image differs.
   */
  attach(node: BlockNode | null): void {
    // Closed with the image in any case.
    this.#node = node;
    const below = node?.children.find(({ name }) => name === "file")?.node;
    const found = below && identityOf(below);
    if (found === undefined || equalBytes(found, this.#id)) return;
    throw new ImageError(
      `'${node!.filename}' is not the parent of '${this.#filename}', but another disk`,
      { errno: "EINVAL", file: this.#filename, field: "parent unique id" },
    );
  }
}
