/**
 * Whether two names or nodes are one file.
 *
 * @module
 */
import type { BlockNode } from "../block/node.ts";
import { statHostFile } from "../io/host_file.ts";
import { ImageError } from "../block/error.ts";

/** Something that is equal for equal files, as far as can be told; for local files links do not matter. */
export function fileIdentity(file: BlockNode): string {
  const { local } = file;
  return (local === undefined ? undefined : pathIdentity(local.path)) ??
    `${file.driver} ${file.filename}`;
}

/** The same for the path of a local file that need not be open; `undefined` if it is not there. */
export function pathIdentity(path: string): string | undefined {
  try {
    const { device, inode } = statHostFile(path);
    return inode === undefined ? Deno.realPathSync(path) : `${device}:${inode}`;
  } catch {
    return undefined;
  }
}

/** Every file that a node reads: those below it, and below its backing files. */
export function* filesOf(node: BlockNode): Generator<BlockNode> {
  for (let image: BlockNode | null = node; image !== null; image = image.backing?.node ?? null) {
    yield* filesBelow(image);
  }
}

/** The files of a node itself: those of its backing files are not among them. */
export function* filesBelow(node: BlockNode): Generator<BlockNode> {
  if (node.children.length === 0) yield node;
  for (const child of node.children) yield* filesBelow(child.node);
}

/** A backing chain on its way down; finds out when it comes back to a file. */
export class BackingTrail {
  readonly #seen: Set<string>;

  /** Begins at the top, or with the files on the way there. */
  constructor(seen: Iterable<string> = []) {
    this.#seen = new Set(seen);
  }

  /** Another way down from here: on both there may be the same files. */
  branch(): BackingTrail {
    return new BackingTrail(this.#seen);
  }

  /**
   * Notes an image's file.
   *
   * @throws {ImageError} `Backing file '…' creates an infinite loop.`
   */
  enter(file: BlockNode, filename: string): void {
    const identity = fileIdentity(file);
    if (this.#seen.has(identity)) throw loopError(filename);
    this.#seen.add(identity);
    if (this.#seen.size > MAX_DEPTH) {
      throw new ImageError(`The backing chain is longer than ${MAX_DEPTH} images`, {
        errno: "ELOOP",
        file: filename,
      });
    }
  }
}

/** Servers can answer every name with yet another one. */
const MAX_DEPTH = 4096;

function loopError(filename: string): ImageError {
  return new ImageError(`Backing file '${filename}' creates an infinite loop.`, {
    errno: "ELOOP",
    file: filename,
  });
}
