/**
 * The disk as the folder makes it: tables from memory, files from the host when they are read.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { HostError } from "../../lib/io/errno.ts";
import { type HostFile, openHostFile, statHostFile } from "../../lib/io/host_file.ts";
import { CLUSTER, type Layout } from "./layout.ts";
import { type DiskItem, type DiskTree, itemsOf } from "./tree.ts";

/** So many files of the folder are open at once. */
const MAX_OPEN = 8;

/** A run of bytes of the disk. */
export interface DiskRun {
  /** Bytes, at least 1. */
  readonly length: number;
  /** Nothing is there: it reads as zeros. */
  readonly free: boolean;
}

/** The disk that a folder makes. */
export class FolderDisk {
  readonly #layout: Layout;
  readonly #head: Uint8Array;
  readonly #files = new OpenFiles();
  #tree!: DiskTree;
  /** What each cluster belongs to. */
  #owners: (DiskItem | undefined)[] = [];
  /** Which of its clusters it is. */
  #places = new Uint32Array();

  /** A disk that begins with `head`, all before the FATs. */
  constructor(layout: Layout, head: Uint8Array, tree: DiskTree) {
    this.#layout = layout;
    this.#head = head;
    this.tree = tree;
  }

  /** What the disk shows. Setting it lets go of all files. */
  get tree(): DiskTree {
    return this.#tree;
  }

  set tree(tree: DiskTree) {
    this.#files.close();
    this.#tree = tree;
    const clusters = Math.max(this.#layout.capacity, this.#layout.clusterEnd);
    this.#owners = new Array(clusters).fill(undefined);
    this.#places = new Uint32Array(clusters);
    const own = (item: DiskItem, numbers: Iterable<number>) => {
      let place = 0;
      for (const cluster of numbers) {
        this.#owners[cluster] = item;
        this.#places[cluster] = place++;
      }
    };
    own(tree.top, Array(tree.top.directory!.length / CLUSTER).keys());
    for (const item of itemsOf(tree.top)) own(item, item.clusters);
  }

  /** Closes the files of the folder. */
  close(): void {
    this.#files.close();
  }

  /**
   * Fills `into` from `offset`; what is behind the end of a file is zeros.
   *
   * @throws {ImageError} for a file that cannot be read, or has become shorter.
   */
  async read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length;) {
      done += await this.#readSome(offset + done, into.subarray(done));
    }
  }

  /** The first run at `offset`, of `length` bytes at most, of which all or nothing is there. */
  run(offset: number, length: number): DiskRun {
    const { root } = this.#layout;
    const isFree = (at: number) => at >= root && this.#owners[clusterAt(at, root)] === undefined;
    const nextPlace = (at: number) => at < root ? root : root + (clusterAt(at, root) + 1) * CLUSTER;
    const free = isFree(offset);
    let end = nextPlace(offset);
    while (end < offset + length && isFree(end) === free) end = nextPlace(end);
    return { free, length: Math.min(end - offset, length) };
  }

  /** Reads bytes from one place; answers how many. */
  async #readSome(offset: number, into: Uint8Array): Promise<number> {
    const { fat, fatLength, root } = this.#layout;
    if (offset < fat) return copySome(this.#head, offset, into);
    if (offset < root) return copySome(this.#tree.fat.bytes, (offset - fat) % fatLength, into);
    const cluster = clusterAt(offset, root);
    const owner = this.#owners[cluster];
    const within = (offset - root) % CLUSTER;
    if (owner === undefined) {
      const length = Math.min(CLUSTER - within, into.length);
      into.fill(0, 0, length);
      return length;
    }
    const place = this.#places[cluster]!;
    if (owner.directory !== undefined) {
      const directory = owner.directory.subarray(place * CLUSTER, (place + 1) * CLUSTER);
      return copySome(directory, within, into);
    }
    let clusters = 1;
    const isNext = (next: number) =>
      this.#owners[cluster + next] === owner && this.#places[cluster + next] === place + next;
    while (clusters * CLUSTER - within < into.length && isNext(clusters)) clusters++;
    const length = Math.min(clusters * CLUSTER - within, into.length);
    await this.readFile(owner, place * CLUSTER + within, into.subarray(0, length));
    return length;
  }

  /**
   * Reads a file of the folder, with zeros behind its end.
   *
   * @throws {ImageError} for a file that cannot be read, or has become shorter.
   */
  async readFile(item: DiskItem, offset: number, into: Uint8Array): Promise<void> {
    const wanted = Math.min(Math.max(item.size - offset, 0), into.length);
    into.fill(0, wanted);
    if (wanted === 0) return;
    try {
      const file = await this.#files.open(item.path);
      if (file.readAt(offset, into.subarray(0, wanted)) === wanted) return;
      throw new ImageError(
        `'${item.path}' has shrunk from ${item.size} to ${file.size()} bytes while it was in use`,
        { errno: "EIO", file: item.path },
      );
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      throw new ImageError(`Could not read '${item.path}': ${error.message}`, {
        errno: error.errno,
        file: item.path,
        cause: error,
      });
    }
  }
}

function clusterAt(offset: number, root: number): number {
  return Math.floor((offset - root) / CLUSTER);
}

function copySome(from: Uint8Array, offset: number, into: Uint8Array): number {
  const some = from.subarray(offset, offset + into.length);
  into.set(some);
  return some.length;
}

/** The files that were read last. */
class OpenFiles {
  readonly #files = new Map<string, HostFile>();

  async open(path: string): Promise<HostFile> {
    const known = this.#files.get(path);
    if (known !== undefined) return known;
    // Looked at before it is opened: opening a FIFO could wait for ever.
    requireFile(statHostFile(path).kind, path);
    const file = await openHostFile(path);
    try {
      requireFile(file.stat().kind, path);
      const other = this.#files.get(path);
      if (other !== undefined) {
        file.close();
        return other;
      }
      if (this.#files.size >= MAX_OPEN) this.#closeOldest();
      this.#files.set(path, file);
      return file;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  #closeOldest(): void {
    for (const [path, file] of this.#files) {
      this.#files.delete(path);
      file.close();
      return;
    }
  }

  close(): void {
    for (const file of this.#files.values()) file.close();
    this.#files.clear();
  }
}

function requireFile(kind: string, path: string): void {
  if (kind === "file") return;
  throw new ImageError(`'${path}' is no file any more`, { errno: "EIO", file: path });
}
