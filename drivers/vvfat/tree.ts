import type { FatTable } from "./fat_table.ts";

/** What tells a file of the host from others, and from itself at another time. */
export interface HostIdentity {
  /** The number of its file system. */
  readonly device: number;
  /** `null` where the host has no numbers for files. */
  readonly inode: number | null;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly modified: number;
  /** Permission bits, where the host has them. */
  readonly mode: number | null;
}

/** The identity of a file that was looked at. */
export function identityOf({ dev, ino, size, mtime, mode }: Deno.FileInfo): HostIdentity {
  return { device: dev, inode: ino, size, modified: mtime?.getTime() ?? 0, mode };
}

/** A file or folder of the disk that the host has. */
export interface DiskItem {
  /** Its name in the folder and on the disk; empty at the top. */
  readonly name: string;
  /** Where the host has it. */
  readonly path: string;
  /** Its clusters, in order; none for an empty file, and for the folder at the top. */
  readonly clusters: readonly number[];
  /** Bytes of the file. */
  readonly size: number;
  /** Date and time of the last change, as they are on the disk. */
  readonly modified: number;
  /** Entries of the directory, clusters long; `undefined` for a file. */
  readonly directory: Uint8Array | undefined;
  /** What is in the folder, by name. */
  readonly children: ReadonlyMap<string, DiskItem>;
  /** As the host's file was found. */
  readonly identity: HostIdentity;
  /** It is neither a file nor a folder, or is reached through a link: nothing is done to it. */
  readonly untouchable: boolean;
}

/** A folder as a file system. */
export interface DiskTree {
  /** The folder at the top. */
  readonly top: DiskItem;
  /** Which clusters follow each other. */
  readonly fat: FatTable;
}

/** Everything in a folder, folders before what is in them. */
export function* itemsOf(top: DiskItem): Generator<DiskItem> {
  const open = [top];
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    yield item;
    open.push(...item.children.values());
  }
}
