/**
 * Makes a file system of what is in a folder of the host.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { alignUp, divideUp } from "../../lib/bytes/align.ts";
import { HostError } from "../../lib/io/errno.ts";
import { ATTRIBUTE, makeEntry, readEntry, setFirstCluster, setSize, setTimes } from "./entries.ts";
import { FatTable } from "./fat_table.ts";
import { CLUSTER, ENTRY, type Layout } from "./layout.ts";
import { longNameEntries, ShortNames } from "./names.ts";
import { type DiskItem, type DiskTree, type HostIdentity, identityOf } from "./tree.ts";

/** Files of 2 GiB and more cannot be shown. */
const MAX_FILE = 0x7fff_ffff;

/** Files and folders on a disk: as many as a disk full of directories has room for would take all memory. */
const MAX_ITEMS = 1_000_000;

/** What there is to scan. */
export interface ScanRequest {
  /** The folder. */
  readonly folder: string;
  /** The disk that it has to fit on. */
  readonly layout: Layout;
  /** Name of the volume, 11 bytes. */
  readonly label: Uint8Array;
  /** Links are looked at as such, to keep writes away from what they lead to. */
  readonly findLinks: boolean;
}

/**
 * Reads a folder with all that is in it, in the order in which the host lists it: directories in the order
 * of their depth, each file and directory right behind the one before. Files themselves are not read.
 *
 * @throws {ImageError} `Could not read directory …`, `Directory does not fit in FAT…`
 */
export function scanFolder(request: ScanRequest, context: DriverContext): DiskTree {
  return new Scan(request, context).run();
}

/** An item whose clusters are still to be found. */
interface PendingItem {
  name: string;
  path: string;
  /** Its entry in the directory above; `undefined` at the top. */
  entry: Uint8Array | undefined;
  isFolder: boolean;
  /** The first cluster of the folder that it is in. */
  parentFirst: number;
  clusters: number[];
  size: number;
  modified: number;
  directory: Uint8Array | undefined;
  children: Map<string, PendingItem>;
  identity: HostIdentity;
  untouchable: boolean;
}

class Scan {
  readonly #request: ScanRequest;
  readonly #context: DriverContext;
  readonly #fat: FatTable;
  /** Files that have content, and folders, in the order of their clusters. */
  readonly #queue: PendingItem[] = [];
  #items = 0;

  constructor(request: ScanRequest, context: DriverContext) {
    this.#request = request;
    this.#context = context;
    this.#fat = FatTable.empty(request.layout);
  }

  run(): DiskTree {
    const { folder, layout } = this.#request;
    const path = folder.endsWith("/") ? folder.slice(0, -1) : folder;
    const info = folder === "" ? undefined : this.#look(folder);
    if (info === undefined || !info.isDirectory) throw this.#unreadable(folder);
    const top = pending("", path, info, 0);
    this.#queue.push(top);
    let cluster = 0;
    // The queue grows while it is worked off.
    for (let i = 0; i < this.#queue.length; i++) {
      const item = this.#queue[i]!;
      const begin = cluster;
      if (item.isFolder) this.#readFolder(item, begin, i === 0);
      cluster += item.isFolder
        ? item.directory!.length / CLUSTER
        : Math.max(divideUp(item.size, CLUSTER), 1);
      if (cluster > layout.capacity) throw this.#tooLarge();
      if (i === 0) continue;
      setFirstCluster(item.entry!, begin);
      for (let own = begin; own < cluster; own++) item.clusters.push(own);
      this.#fat.link(begin, cluster);
    }
    // Where the root directory is a chain, too: nothing says so, but its clusters are taken.
    this.#fat.sign(layout);
    return { top, fat: this.#fat };
  }

  #readFolder(item: PendingItem, first: number, isTop: boolean): void {
    const { layout, label } = this.#request;
    const names = new ShortNames();
    const writer = new DirectoryWriter();
    if (isTop) {
      writer.add(makeEntry(label, ATTRIBUTE.label | ATTRIBUTE.archive));
      names.take(label);
    } else {
      for (const [name, cluster] of [[".", first], ["..", item.parentFirst]] as const) {
        const shortName = new Uint8Array(11).fill(0x20);
        shortName.set(new TextEncoder().encode(name));
        const entry = makeEntry(shortName, ATTRIBUTE.folder);
        const info = name === "." ? this.#look(item.path) : this.#lookAbove(item.path);
        if (info !== undefined) setTimes(entry, timesOf(info));
        setFirstCluster(entry, cluster);
        names.take(shortName);
        writer.add(entry);
      }
    }
    for (const { name } of this.#list(item.path)) {
      if (isTop && writer.length >= layout.rootEntries - 1) {
        this.#context.report("Too many entries in root directory");
        throw this.#unreadable(item.path);
      }
      this.#addEntry(item, name, first, { names, writer });
    }
    const room = isTop && layout.fatType !== 32 ? layout.rootEntries * ENTRY : 0;
    item.directory = writer.finish(room);
    for (const child of item.children.values()) child.entry = writer.moved(child.entry!);
  }

  #addEntry(
    parent: PendingItem,
    name: string,
    parentFirst: number,
    { names, writer }: { readonly names: ShortNames; readonly writer: DirectoryWriter },
  ): void {
    const path = `${parent.path}/${name}`;
    const info = this.#look(path);
    // Links that lead nowhere, and what went away meanwhile.
    if (info === undefined) return;
    if (++this.#items > MAX_ITEMS) {
      throw new ImageError(`Directory holds more than ${MAX_ITEMS} files`, {
        errno: "EFBIG",
        file: this.#request.folder,
      });
    }
    const shortName = names.choose(name);
    if (shortName === undefined) throw this.#unreadable(parent.path);
    if (!info.isDirectory && info.size > MAX_FILE) {
      this.#context.report(`File ${path} is larger than 2GB`);
      throw this.#unreadable(parent.path);
    }
    const child = pending(name, path, info, parentFirst);
    child.untouchable = parent.untouchable || !(info.isDirectory || info.isFile) ||
      this.#request.findLinks && this.#isLink(path);
    writer.add(longNameEntries(name, shortName));
    const attributes = info.isDirectory ? ATTRIBUTE.folder : ATTRIBUTE.archive;
    child.entry = makeEntry(shortName, attributes, timesOf(info));
    setSize(child.entry, child.size);
    child.modified = readEntry(child.entry).modified;
    writer.add(child.entry);
    parent.children.set(name, child);
    // What has no content needs no cluster, and what is no file has none.
    if (child.isFolder || child.size > 0) this.#queue.push(child);
    if (this.#queue.length > this.#request.layout.capacity) throw this.#tooLarge();
  }

  #list(path: string): Deno.DirEntry[] {
    try {
      return [...Deno.readDirSync(path === "" ? "/" : path)];
    } catch (error) {
      throw this.#unreadable(path, error);
    }
  }

  /** What a path leads to; `undefined` if nobody knows. */
  #look(path: string): Deno.FileInfo | undefined {
    try {
      return Deno.statSync(path);
    } catch (error) {
      if (HostError.from(error, "stat", path) instanceof HostError) return undefined;
      throw error;
    }
  }

  /** The folder that a folder is in, wherever links lead: the host's own `..`, which Deno takes for a word less. */
  #lookAbove(path: string): Deno.FileInfo | undefined {
    try {
      return Deno.statSync(`${Deno.realPathSync(path)}/..`);
    } catch (error) {
      if (HostError.from(error, "stat", path) instanceof HostError) return undefined;
      throw error;
    }
  }

  #isLink(path: string): boolean {
    try {
      return Deno.lstatSync(path).isSymlink;
    } catch {
      // It has gone meanwhile.
      return true;
    }
  }

  #unreadable(path: string, cause?: unknown): ImageError {
    return new ImageError(`Could not read directory ${path}`, {
      errno: "EIO",
      file: path,
      field: "dir",
      cause,
    });
  }

  #tooLarge(): ImageError {
    const { fatType, sectors } = this.#request.layout;
    return new ImageError(
      `Directory does not fit in FAT${fatType} (capacity ${(sectors / 2000).toFixed(2)} MB)`,
      { errno: "EIO", file: this.#request.folder, field: "dir" },
    );
  }
}

function pending(
  name: string,
  path: string,
  info: Deno.FileInfo,
  parentFirst: number,
): PendingItem {
  return {
    name,
    path,
    entry: undefined,
    isFolder: info.isDirectory,
    parentFirst,
    clusters: [],
    // Only files have content here: a device's or a pipe's is never asked for.
    size: info.isFile ? info.size : 0,
    modified: 0,
    directory: undefined,
    children: new Map(),
    identity: identityOf(info),
    untouchable: false,
  } satisfies PendingItem & DiskItem;
}

function timesOf({ ctime, atime, mtime }: Deno.FileInfo) {
  // Where a file's description has no time of its own, that of its content is the nearest.
  return { changed: ctime ?? mtime, accessed: atime, modified: mtime };
}

/** Collects the entries of a directory. */
class DirectoryWriter {
  readonly #places = new Map<Uint8Array, number>();
  #bytes = 0;
  #whole = new Uint8Array();

  /** Entries so far. */
  get length(): number {
    return this.#bytes / ENTRY;
  }

  /** Adds whole entries. */
  add(entries: Uint8Array): void {
    this.#places.set(entries, this.#bytes);
    this.#bytes += entries.length;
  }

  /** The directory: whole clusters, at least `room` bytes. */
  finish(room: number): Uint8Array {
    this.#whole = new Uint8Array(Math.max(alignUp(this.#bytes, CLUSTER), room));
    for (const [piece, at] of this.#places) this.#whole.set(piece, at);
    return this.#whole;
  }

  /** Where an entry that was added is in the directory. */
  moved(entry: Uint8Array): Uint8Array {
    const at = this.#places.get(entry)!;
    return this.#whole.subarray(at, at + ENTRY);
  }
}
