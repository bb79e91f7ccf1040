/**
 * What has changed between a folder and the disk that was made of it.
 *
 * @module
 */
import { equalBytes } from "../../lib/bytes/equal.ts";
import { CLUSTER } from "./layout.ts";
import type { FolderDisk } from "./folder_disk.ts";
import type { ParsedItem, ParsedTree } from "./parse.ts";
import { type DiskItem, type DiskTree, itemsOf } from "./tree.ts";

/** Files are compared and copied in pieces of this many bytes, whole clusters. */
const PIECE = 64 * CLUSTER;

/** The disk as it is to become. */
export interface NewDisk {
  /** Clusters that may hold something else than they did. */
  readonly changed: ReadonlySet<number>;
  /** Fills `into` from `offset`. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Where a cluster begins, bytes. */
  clusterOffset(cluster: number): number;
}

/** What there is to do. */
export interface Changes {
  /** The folder as it is. */
  readonly before: DiskTree;
  /** As it is to become. */
  readonly after: ParsedTree;
  /** For what stays, under whatever name, what it was. */
  readonly origins: ReadonlyMap<ParsedItem, DiskItem>;
  /** Files and folders that go, or leave their place: what is in a folder comes before it. */
  readonly leaving: readonly DiskItem[];
  /** Files with other content, and new ones. */
  readonly rewritten: ReadonlySet<ParsedItem>;
  /** Files with another time. */
  readonly touched: readonly ParsedItem[];
  /** The content of a file that is to become, in pieces. */
  content(file: ParsedItem): AsyncIterable<Uint8Array>;
}

/** Finds out what became of every file: by where it begins on the disk, or else by its name. */
export async function findChanges(
  disk: FolderDisk,
  after: ParsedTree,
  next: NewDisk,
): Promise<Changes> {
  const before = disk.tree;
  const origins = matchItems(before.top, after.top);
  const kept = new Set(origins.values());
  const moved = new Set<DiskItem>();
  const rewritten = new Set<ParsedItem>();
  const touched: ParsedItem[] = [];
  for (const [parent, item] of pairsOf(after.top)) {
    const origin = origins.get(item);
    const isFile = item.directory === undefined;
    if (origin === undefined) {
      if (isFile) rewritten.add(item);
      continue;
    }
    const place = origins.get(parent);
    if (item.name !== origin.name || place?.children.get(origin.name) !== origin) moved.add(origin);
    if (!isFile) continue;
    if (!await isSame(disk, origin, item, next)) rewritten.add(item);
    else if (item.modified !== origin.modified) touched.push(item);
  }
  return {
    before,
    after,
    origins,
    leaving: [...itemsOf(before.top)].reverse().filter((item) =>
      item !== before.top && (!kept.has(item) || moved.has(item))
    ),
    rewritten,
    touched,
    content: (file) => contentOf(file, next),
  };
}

/** All items with the folder that they are in, the folder's own pair first. */
export function* pairsOf(
  top: ParsedItem,
): Generator<readonly [parent: ParsedItem, item: ParsedItem]> {
  const open = [top];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    for (const child of folder.children.values()) {
      yield [folder, child];
      if (child.directory !== undefined) open.push(child);
    }
  }
}

function matchItems(before: DiskItem, after: ParsedItem): Map<ParsedItem, DiskItem> {
  const byCluster = new Map<number, DiskItem>();
  for (const item of itemsOf(before)) {
    if (item.clusters.length > 0) byCluster.set(item.clusters[0]!, item);
  }
  const origins = new Map([[after, before]]);
  const taken = new Set([before]);
  const match = (item: ParsedItem, origin: DiskItem | undefined) => {
    if (origin === undefined || taken.has(origin)) return;
    if ((origin.directory === undefined) !== (item.directory === undefined)) return;
    origins.set(item, origin);
    taken.add(origin);
  };
  const pairs = [...pairsOf(after)];
  for (const [, item] of pairs) match(item, byCluster.get(item.clusters[0] ?? -1));
  for (const [parent, item] of pairs) {
    if (!origins.has(item)) match(item, origins.get(parent)?.children.get(item.name));
  }
  for (const [parent, item] of pairs) keepCase(item, parent, origins.get(item));
  return origins;
}

/** What lost nothing of its name but its case, as tools do that move short names alone, keeps that, too. */
function keepCase(item: ParsedItem, parent: ParsedItem, origin: DiskItem | undefined): void {
  if (origin === undefined || !item.isShort || parent.children.has(origin.name)) return;
  if (item.name.toLowerCase() !== origin.name.toLowerCase()) return;
  parent.children.delete(item.name);
  item.name = origin.name;
  parent.children.set(item.name, item);
}

/** Whether a file holds what it did. What was written may have been the same. */
async function isSame(
  disk: FolderDisk,
  origin: DiskItem,
  item: ParsedItem,
  next: NewDisk,
): Promise<boolean> {
  if (item.size !== origin.size) return false;
  const isUntouched = item.clusters.every((cluster, i) =>
    i * CLUSTER >= item.size || cluster === origin.clusters[i] && !next.changed.has(cluster)
  );
  if (isUntouched) return true;
  const old = new Uint8Array(PIECE);
  let done = 0;
  for await (const piece of contentOf(item, next)) {
    const part = old.subarray(0, piece.length);
    try {
      await disk.readFile(origin, done, part);
    } catch {
      // What cannot be read any more is something else.
      return false;
    }
    if (!equalBytes(part, piece)) return false;
    done += piece.length;
  }
  return true;
}

/** The same bytes are used for every piece. */
async function* contentOf(
  { clusters, size }: ParsedItem,
  disk: NewDisk,
): AsyncGenerator<Uint8Array> {
  const piece = new Uint8Array(Math.min(PIECE, clusters.length * CLUSTER));
  for (let done = 0; done < size;) {
    const length = Math.min(PIECE, size - done);
    for (let at = 0; at < length; at += CLUSTER) {
      const offset = disk.clusterOffset(clusters[(done + at) / CLUSTER]!);
      await disk.read(offset, piece.subarray(at, Math.min(at + CLUSTER, length)));
    }
    yield piece.subarray(0, length);
    done += length;
  }
}
