/**
 * Reads a file system as others left it on the disk, and takes nothing for granted: what is not whole is
 * refused, because files that it seems to lack would be deleted.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { divideUp } from "../../lib/bytes/align.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { ATTRIBUTE, readEntry } from "./entries.ts";
import { FatTable } from "./fat_table.ts";
import { CLUSTER, ENTRY, type Layout } from "./layout.ts";
import { DELETED, LONG_NAME, LongName, plainName, SHORT_NAME } from "./names.ts";

/** More files and folders than that are not looked at. */
const MAX_ITEMS = 1_000_000;

/** A file or folder as the disk has it. */
export interface ParsedItem {
  /** As it is to be called in the folder; empty at the top. */
  name: string;
  /** It has a short name alone, whose case means little. */
  readonly isShort: boolean;
  /** Its clusters, in order; none at the top. */
  readonly clusters: readonly number[];
  /** Bytes of the file. */
  readonly size: number;
  /** Date and time of the last change, as they are on the disk. */
  readonly modified: number;
  /** Entries of the directory; `undefined` for a file. */
  readonly directory: Uint8Array | undefined;
  /** What is in the folder, by name. */
  readonly children: Map<string, ParsedItem>;
}

/** A file system as the disk has it. */
export interface ParsedTree {
  /** The folder at the top. */
  readonly top: ParsedItem;
  /** Which clusters follow each other. */
  readonly fat: FatTable;
}

/** Where bytes of the disk come from. */
export interface DiskSource {
  /** Fills `into` from `offset`. */
  read(offset: number, into: Uint8Array): Promise<void>;
}

/**
 * Reads all directories.
 *
 * @throws {ImageError} `The file system is not consistent: …`
 */
export async function parseDisk(disk: DiskSource, layout: Layout): Promise<ParsedTree> {
  return await new Parser(disk, layout).run();
}

function inconsistent(what: string): ImageError {
  return new ImageError(`The file system is not consistent: ${what}`, { errno: "EIO" });
}

/** A folder whose entries are still to be read. */
interface OpenFolder {
  readonly directory: Uint8Array;
  readonly children: ParsedItem["children"];
  /** For messages. */
  readonly path: string;
  /** Clusters of the folder and of the one above. */
  readonly first: number;
  readonly above: number;
}

class Parser {
  readonly #disk: DiskSource;
  readonly #layout: Layout;
  readonly #used: Uint8Array;
  #fat!: FatTable;
  #items = 0;

  constructor(disk: DiskSource, layout: Layout) {
    this.#disk = disk;
    this.#layout = layout;
    this.#used = new Uint8Array(layout.clusterEnd);
  }

  async run(): Promise<ParsedTree> {
    const { root, rootEntries, fatType } = this.#layout;
    this.#fat = new FatTable(await this.#readTable(), fatType);
    const directory = new Uint8Array(rootEntries * ENTRY);
    await this.#disk.read(root, directory);
    const top = item({ name: "", directory });
    const open: OpenFolder[] = [{
      directory,
      children: top.children,
      path: "",
      first: 0,
      above: 0,
    }];
    for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
      for await (const child of this.#entries(folder)) open.push(child);
    }
    this.#requireNothingLost();
    return { top, fat: this.#fat };
  }

  async #readTable(): Promise<Uint8Array> {
    const { fat, fatLength } = this.#layout;
    const [first, second] = [new Uint8Array(fatLength), new Uint8Array(fatLength)];
    await this.#disk.read(fat, first);
    await this.#disk.read(fat + fatLength, second);
    if (!equalBytes(first, second)) throw inconsistent("its two FATs differ");
    return first;
  }

  /** Reads the entries of a folder; answers with the folders in it. */
  async *#entries(folder: OpenFolder): AsyncGenerator<OpenFolder> {
    const { directory, children } = folder;
    const long = new LongName();
    const dots = folder.path === "" ? [] : [[".", folder.first], ["..", folder.above]] as const;
    let number = 0;
    for (let at = 0; at < directory.length; at += ENTRY, number++) {
      const entry = directory.subarray(at, at + ENTRY);
      const kind = entry[0]!;
      if (kind === 0 && number >= dots.length) break;
      const dot = dots[number];
      if (dot !== undefined) {
        requireDots(entry, dot, folder.path);
        continue;
      }
      if (kind !== DELETED && (entry[11]! & 0x3f) === LONG_NAME) {
        if (!long.add(entry)) throw badName(folder.path);
        continue;
      }
      const isFile = kind !== DELETED && (entry[11]! & ATTRIBUTE.label) === 0;
      if (!isFile) {
        if (long.pending) throw badName(folder.path);
        continue;
      }
      const child = await this.#child(entry, long, folder);
      if (children.has(child.name)) {
        throw inconsistent(`there are two files called '${folder.path}${child.name}'`);
      }
      children.set(child.name, child);
      const { directory: below, clusters } = child;
      if (below === undefined) continue;
      yield {
        directory: below,
        children: child.children,
        path: `${folder.path}${child.name}/`,
        first: clusters[0]!,
        above: folder.first,
      };
    }
    if (long.pending) throw badName(folder.path);
  }

  async #child(entry: Uint8Array, long: LongName, folder: OpenFolder): Promise<ParsedItem> {
    if (++this.#items > MAX_ITEMS) throw inconsistent(`it has more than ${MAX_ITEMS} files`);
    const shortName = entry.subarray(0, SHORT_NAME);
    const isLong = long.pending;
    const name = isLong ? long.end(shortName) : plainName(entry);
    if (name === undefined) {
      throw isLong ? badName(folder.path) : new ImageError(
        `A file in '/${folder.path}' has a name that is not ASCII and no long name`,
        { errno: "EILSEQ" },
      );
    }
    const { attributes, first, size, modified } = readEntry(entry);
    const path = folder.path + name;
    const clusters = first === 0 ? [] : this.#chain(first, path);
    if ((attributes & ATTRIBUTE.folder) === 0) {
      if (clusters.length < divideUp(size, CLUSTER)) {
        throw inconsistent(`'/${path}' has fewer clusters than its size takes`);
      }
      return item({ name, isShort: !isLong, clusters, size, modified });
    }
    if (clusters.length === 0) throw inconsistent(`the folder '/${path}' has no clusters`);
    const directory = new Uint8Array(clusters.length * CLUSTER);
    for (const [i, cluster] of clusters.entries()) {
      await this.#disk.read(
        this.#layout.root + cluster * CLUSTER,
        directory.subarray(i * CLUSTER, (i + 1) * CLUSTER),
      );
    }
    return item({ name, isShort: !isLong, clusters, modified, directory });
  }

  /** The clusters from `first` on, which are nobody else's. Every cluster is taken once, so it ends. */
  #chain(first: number, path: string): number[] {
    const clusters: number[] = [];
    for (let cluster = first;;) {
      if (cluster < 2 || cluster >= this.#layout.clusterEnd) {
        throw inconsistent(`'/${path}' leads to cluster ${cluster}, which the disk does not have`);
      }
      if (this.#used[cluster] === 1) {
        throw inconsistent(`cluster ${cluster} of '/${path}' is used more than once`);
      }
      this.#used[cluster] = 1;
      clusters.push(cluster);
      const next = this.#fat.get(cluster);
      if (this.#fat.isLast(next)) return clusters;
      cluster = next;
    }
  }

  #requireNothingLost(): void {
    for (let cluster = 2; cluster < this.#layout.clusterEnd; cluster++) {
      const next = this.#fat.get(cluster);
      if (next === 0 || this.#used[cluster] === 1 || this.#fat.isBad(next)) continue;
      throw inconsistent(`cluster ${cluster} is taken, but by no file`);
    }
  }
}

function item(parts: Partial<ParsedItem> & { readonly name: string }): ParsedItem {
  return {
    isShort: false,
    clusters: [],
    size: 0,
    modified: 0,
    directory: undefined,
    children: new Map(),
    ...parts,
  };
}

function badName(path: string): ImageError {
  return inconsistent(`a long name in '/${path}' is not whole`);
}

function requireDots(
  entry: Uint8Array,
  [name, cluster]: readonly [name: string, cluster: number],
  path: string,
): void {
  const shortName = String.fromCharCode(...entry.subarray(0, SHORT_NAME));
  const { attributes, first } = readEntry(entry);
  if (
    shortName.trimEnd() === name && (attributes & ATTRIBUTE.folder) !== 0 && first === cluster
  ) return;
  throw inconsistent(`the folder '/${path}' does not begin with itself and the one above it`);
}
