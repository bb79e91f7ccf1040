/**
 * A small user of FAT file systems, such as a guest is: makes, changes, moves and deletes files on a disk in
 * memory. It shares the tables of names with the driver and nothing else.
 */
import { assert } from "@std/assert";
import { FatTable } from "../../../drivers/vvfat/fat_table.ts";
import { CLUSTER, ENTRY, type Layout } from "../../../drivers/vvfat/layout.ts";
import { longNameEntries, ShortNames } from "../../../drivers/vvfat/names.ts";
import type { Random } from "../../_random.ts";

/** A file or folder that was found. */
interface Found {
  readonly name: string;
  /** Offset of its short entry, bytes. */
  readonly at: number;
  /** Offsets of all its entries. */
  readonly slots: readonly number[];
  readonly isFolder: boolean;
  readonly first: number;
  readonly size: number;
}

/** Changes a disk in memory. */
export class FatEditor {
  /** The disk. */
  readonly disk: Uint8Array;
  readonly #layout: Layout;
  readonly #view: DataView;
  readonly #fat: FatTable;
  readonly #random: Random;

  /** A user of `disk`, which it changes. Chooses clusters at random. */
  constructor(disk: Uint8Array, layout: Layout, random: Random) {
    this.disk = disk;
    this.#layout = layout;
    this.#view = new DataView(disk.buffer, disk.byteOffset, disk.byteLength);
    this.#fat = new FatTable(
      disk.subarray(layout.fat, layout.fat + layout.fatLength),
      layout.fatType,
    );
    this.#random = random;
  }

  /** Clusters of a chain. */
  chain(first: number): number[] {
    const clusters: number[] = [];
    for (let next = first; next !== 0 && !this.#fat.isLast(next); next = this.#fat.get(next)) {
      clusters.push(next);
    }
    return clusters;
  }

  /** Says what follows a cluster, for better or worse. */
  setNext(cluster: number, next: number): void {
    this.#fat.set(cluster, next);
    this.#copyFat();
  }

  /** Where a cluster begins, bytes. */
  offsetOf(cluster: number): number {
    return this.#layout.root + cluster * CLUSTER;
  }

  /** What is at a path; fails if nothing is. */
  find(path: string): Found {
    const found = this.#lookUp(path);
    assert(found !== undefined, `no ${path} on the disk`);
    return found;
  }

  /** The content of a file. */
  read(path: string): Uint8Array {
    const { first, size } = this.find(path);
    const content = new Uint8Array(size);
    this.chain(first).forEach((cluster, i) => {
      const at = this.offsetOf(cluster);
      content.set(
        this.disk.subarray(at, at + Math.min(CLUSTER, Math.max(size - i * CLUSTER, 0))),
        i * CLUSTER,
      );
    });
    return content;
  }

  /** Makes a file, or gives one other content. */
  write(path: string, content: Uint8Array): void {
    const clusters = this.#allocate(Math.ceil(content.length / CLUSTER));
    clusters.forEach((cluster, i) => {
      this.disk.set(
        content.subarray(i * CLUSTER, (i + 1) * CLUSTER),
        this.offsetOf(cluster),
      );
    });
    const old = this.#lookUp(path);
    if (old !== undefined) this.#free(old.first);
    const at = old?.at ?? this.#addEntry(path, 0x20);
    this.#view.setUint16(at + 26, clusters[0] ?? 0, true);
    this.#view.setUint32(at + 28, content.length, true);
  }

  /** Changes bytes within a file, where they are. */
  patch(path: string, offset: number, bytes: Uint8Array): void {
    const clusters = this.chain(this.find(path).first);
    bytes.forEach((byte, i) => {
      const at = offset + i;
      this.disk[this.offsetOf(clusters[Math.floor(at / CLUSTER)]!) + at % CLUSTER] = byte;
    });
  }

  /** Makes a folder. */
  makeFolder(path: string): void {
    const [cluster] = this.#allocate(1);
    const at = this.offsetOf(cluster!);
    this.disk.fill(0, at, at + CLUSTER);
    const above = parentOf(path) === "" ? 0 : this.find(parentOf(path)).first;
    for (const [i, [name, first]] of ([[".", cluster!], ["..", above]] as const).entries()) {
      this.#putEntry(at + i * ENTRY, shortBytes(name), 0x10);
      this.#view.setUint16(at + i * ENTRY + 26, first, true);
    }
    this.#view.setUint16(this.#addEntry(path, 0x10) + 26, cluster!, true);
  }

  /** Deletes a file or an empty folder. */
  remove(path: string): void {
    const { first, slots } = this.find(path);
    for (const slot of slots) this.disk[slot] = 0xe5;
    this.#free(first);
  }

  /** Gives a file or folder another name or place. */
  rename(from: string, to: string): void {
    const { at, slots, isFolder, first } = this.find(from);
    const old = this.disk.slice(at, at + ENTRY);
    for (const slot of slots) this.disk[slot] = 0xe5;
    const place = this.#addEntry(to, old[11]!);
    this.disk.set(old.subarray(12), place + 12);
    if (isFolder) {
      const above = parentOf(to) === "" ? 0 : this.find(parentOf(to)).first;
      this.#view.setUint16(this.offsetOf(first) + ENTRY + 26, above, true);
    }
  }

  #lookUp(path: string): Found | undefined {
    const name = path.slice(path.lastIndexOf("/") + 1);
    return this.#list(parentOf(path)).find((found) => found.name === name);
  }

  /** Offsets of the slots of a folder. */
  #slots(path: string): number[] {
    const regions: [number, number][] = path === ""
      ? [[this.#layout.root, this.#layout.rootEntries]]
      : this.chain(this.find(path).first).map((
        cluster,
      ) => [this.offsetOf(cluster), CLUSTER / ENTRY]);
    return regions.flatMap(([at, count]) =>
      Array.from({ length: count }, (_, i) => at + i * ENTRY)
    );
  }

  #list(path: string): Found[] {
    const found: Found[] = [];
    let [long, slots] = ["", [] as number[]];
    for (const at of this.#slots(path)) {
      const kind = this.disk[at]!;
      if (kind === 0) break;
      if (kind === 0xe5) continue;
      slots.push(at);
      if (this.disk[at + 11] === 0x0f) {
        const offsets = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        const units = offsets.map((offset) => this.#view.getUint16(at + offset, true));
        long = String.fromCharCode(...units) + long;
        continue;
      }
      const [name] = long.split("\0");
      found.push({
        name: name!,
        at,
        slots,
        isFolder: (this.disk[at + 11]! & 0x10) !== 0,
        first: this.#view.getUint16(at + 26, true),
        size: this.#view.getUint32(at + 28, true),
      });
      [long, slots] = ["", []];
    }
    return found;
  }

  #addEntry(path: string, attributes: number): number {
    const folder = parentOf(path);
    const name = path.slice(folder === "" ? 0 : folder.length + 1);
    const names = new ShortNames();
    for (const { at } of this.#list(folder)) names.take(this.disk.slice(at, at + 11));
    const shortName = names.choose(name)!;
    const entries = longNameEntries(name, shortName);
    const count = entries.length / ENTRY + 1;
    const slots = this.#freeSlots(folder, count);
    for (let i = 0; i < count - 1; i++) {
      this.disk.set(entries.subarray(i * ENTRY, (i + 1) * ENTRY), slots[i]!);
    }
    const at = slots[count - 1]!;
    this.#putEntry(at, shortName, attributes);
    return at;
  }

  #putEntry(at: number, shortName: Uint8Array, attributes: number): void {
    this.disk.fill(0, at, at + ENTRY);
    this.disk.set(shortName, at);
    this.disk[at + 11] = attributes;
    // The first of May 1990, four minutes past three.
    this.#view.setUint16(at + 22, 15 << 11 | 4 << 5, true);
    this.#view.setUint16(at + 24, 10 << 9 | 5 << 5 | 1, true);
  }

  /** Slots one after another; the folder becomes longer where it has none. */
  #freeSlots(folder: string, count: number): number[] {
    let run: number[] = [];
    for (const at of this.#slots(folder)) {
      run = this.disk[at] === 0 || this.disk[at] === 0xe5 ? [...run, at] : [];
      if (run.length === count) return run;
    }
    assert(folder !== "", "no room in the root directory");
    const clusters = this.chain(this.find(folder).first);
    const [more] = this.#allocate(1);
    this.disk.fill(0, this.offsetOf(more!), this.offsetOf(more!) + CLUSTER);
    this.setNext(clusters.at(-1)!, more!);
    return this.#freeSlots(folder, count);
  }

  #allocate(count: number): number[] {
    const free: number[] = [];
    for (let cluster = 2; cluster < this.#layout.clusterEnd; cluster++) {
      if (this.#fat.get(cluster) === 0) free.push(cluster);
    }
    assert(free.length >= count, "the disk is full");
    const begin = this.#random.below(free.length - count + 1);
    const clusters = free.slice(begin, begin + count);
    if (this.#random.oneIn(2)) clusters.reverse();
    clusters.forEach((cluster, i) => this.#fat.set(cluster, clusters[i + 1] ?? this.#fat.last));
    this.#copyFat();
    return clusters;
  }

  #free(first: number): void {
    for (const cluster of this.chain(first)) this.#fat.set(cluster, 0);
    this.#copyFat();
  }

  #copyFat(): void {
    this.disk.set(this.#fat.bytes, this.#layout.fat + this.#layout.fatLength);
  }
}

/** The folder that a path is in; empty at the top. */
export function parentOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

function shortBytes(name: string): Uint8Array {
  return new TextEncoder().encode(name.padEnd(11));
}
