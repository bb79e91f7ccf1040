/**
 * A guest that knows what it wrote: every sector carries the number of the
 * write that it comes from, so that what is found after a crash can be told to
 * be old, new, or nothing that ever belonged there.
 */
import type { BlockNode, Preallocation, ZeroFlags } from "../../lib/block/node.ts";
import { loadCodec } from "../../lib/codec/mod.ts";
import type { Journal } from "./_journal.ts";

/** Bytes of a sector. */
export const SECTOR = 512;

/** The content of a sector that reads as zeros. */
const ZEROS = 0;

/** Fills a range with the stamps of write number `tag`; `sector` is the first one's number. */
export function stamps(tag: number, sector: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count * SECTOR);
  const words = new Uint32Array(bytes.buffer);
  for (let i = 0; i < count; i++) {
    const at = i * SECTOR / 4;
    for (let word = 2; word < SECTOR / 4; word++) words[at + word] = filler(tag, sector + i, word);
    words[at] = tag;
    words[at + 1] = sector + i;
  }
  return bytes;
}

/** Every word of a stamp is its own; a part of them compresses badly, so that compressed clusters have a size. */
function filler(tag: number, sector: number, word: number): number {
  const base = Math.imul(tag, 0x9e3779b1) ^ sector;
  return (word % 4 === 0 ? Math.imul(base + word, 0x85ebca6b) ^ base >>> 7 : base) >>> 0;
}

/** The number in a sector's stamp; `undefined` if it is neither this sector's stamp nor zeros. */
function tagOf(words: Uint32Array, at: number, sector: number): number | undefined {
  const tag = words[at]!;
  if (words[at + 1] !== (tag === ZEROS ? 0 : sector)) return undefined;
  for (let i = 2; i < SECTOR / 4; i++) {
    if (words[at + i] !== (tag === ZEROS ? 0 : filler(tag, sector, i))) return undefined;
  }
  return tag;
}

/** Something that the guest did, in the order in which it did it. */
interface Deed {
  /** The moment in the journal from which it may show (a change), or at which it was through (a flush). */
  readonly moment: number;
  /** First sector; absent for a flush. */
  readonly sector?: number;
  /** Sectors. */
  readonly count: number;
  /** What a sector reads as from then on: one of these. */
  readonly tags: readonly number[];
  /** The length that the disk gets, bytes, and whether it has it now. */
  readonly length?: number;
  readonly through?: boolean;
}

/** A disk as its user sees it. Sectors that requests in flight have in common are not its strength. */
export class Guest {
  readonly #journal: Journal;
  readonly #deeds: Deed[] = [];
  /** What each sector may read as, if nothing crashes. */
  readonly #latest: (readonly number[])[];
  readonly #initial: readonly (readonly number[])[];
  #tag: number;
  #node: BlockNode | undefined;

  /** A guest whose disk now reads as `initial` says, a number a sector. */
  constructor(journal: Journal, initial: Uint32Array) {
    this.#journal = journal;
    this.#initial = Array.from(initial, (tag) => [tag]);
    this.#latest = [...this.#initial];
    this.#tag = initial.reduce((a, b) => Math.max(a, b), 0);
  }

  /** Gives the guest the node that its disk is. */
  attach(node: BlockNode): void {
    this.#node = node;
  }

  /** The open disk. */
  get node(): BlockNode {
    if (this.#node === undefined) throw new Error("no disk is attached");
    return this.#node;
  }

  /** Sectors of the disk. */
  get sectors(): number {
    return this.node.length / SECTOR;
  }

  /** Writes `count` sectors of new stamps. */
  async write(sector: number, count: number): Promise<void> {
    const tag = ++this.#tag;
    await this.#attempt(
      sector,
      count,
      tag,
      () => this.node.write(sector * SECTOR, stamps(tag, sector, count)),
    );
  }

  /** Writes one whole cluster compressed. */
  async writePacked(sector: number): Promise<void> {
    const { packer } = this.node;
    if (packer === undefined) throw new Error("the disk takes no compressed clusters");
    const tag = ++this.#tag;
    const plain = stamps(tag, sector, packer.clusterSize / SECTOR);
    const packed = new Uint8Array(packer.clusterSize - 1);
    const length = (await loadCodec(packer.codec)).pack(plain, packed);
    if (length === null) throw new Error("a cluster of stamps did not shrink");
    await this.#attempt(
      sector,
      packer.clusterSize / SECTOR,
      tag,
      () => packer.writePacked(sector * SECTOR, packed.subarray(0, length)),
    );
  }

  /** Zeros sectors. */
  async zero(
    sector: number,
    count: number,
    flags: ZeroFlags = { unmap: false },
  ): Promise<void> {
    await this.#attempt(
      sector,
      count,
      ZEROS,
      () => this.node.writeZeroes(sector * SECTOR, count * SECTOR, flags),
    );
  }

  /** Discards sectors: each one reads as before or as zeros. */
  async discard(sector: number, count: number): Promise<void> {
    for (let at = sector; at < sector + count; at++) {
      this.change(at, 1, [...this.#latest[at]!, ZEROS]);
    }
    await this.node.discard(sector * SECTOR, count * SECTOR);
  }

  /** Lets the disk give out space for a range, fills it in the file below, and publishes or abandons it. */
  async allocate(sector: number, count: number, end: "publish" | "abandon"): Promise<void> {
    const { allocator } = this.node;
    if (allocator === undefined) throw new Error("the disk gives out no space");
    const tag = ++this.#tag;
    for (let done = 0; done < count;) {
      const run = await allocator.allocate((sector + done) * SECTOR, (count - done) * SECTOR);
      if (run === null) throw new Error("no space was given out");
      const part = run.length / SECTOR;
      // Space that the disk owned already is written in place, so nobody can take that back.
      for (let at = sector + done; at < sector + done + part; at++) {
        this.change(at, 1, end === "publish" ? [tag] : [...this.#latest[at]!, tag]);
      }
      await run.file.write(run.offset, stamps(tag, sector + done, part));
      await run[end]();
      done += part;
    }
  }

  /** Flushes, with nothing else in flight: what was written is there to stay. */
  async flush(): Promise<void> {
    await this.node.flush();
    this.#deeds.push({ moment: this.#journal.now, count: 0, tags: [] });
  }

  /** Changes the length of the disk, bytes. What is cut off may show whatever it did, or zeros, or `below`. */
  async resize(length: number, how: Preallocation, below: readonly number[] = []): Promise<void> {
    const end = length / SECTOR;
    for (let at = end; at < this.sectors; at++) {
      this.change(at, 1, [...this.#latest[at]!, ZEROS, ...below]);
    }
    this.#deeds.push({ moment: this.#journal.now, count: 0, tags: [], length, through: false });
    await this.node.resize(length, how);
    this.#deeds.push({ moment: this.#journal.now, count: 0, tags: [], length, through: true });
    this.#latest.length = Math.min(this.#latest.length, end);
    while (this.#latest.length < end) this.#latest.push([ZEROS]);
  }

  /** A request that fails has done something or nothing to each sector. */
  async #attempt(
    sector: number,
    count: number,
    tag: number,
    request: () => Promise<void>,
  ): Promise<void> {
    const before = this.#latest.slice(sector, sector + count);
    this.change(sector, count, [tag]);
    try {
      await request();
    } catch (error) {
      for (const [i, tags] of before.entries()) this.change(sector + i, 1, [...tags, tag]);
      throw error;
    }
  }

  /** Says that from now on each sector of a range reads as one of `tags`. */
  change(sector: number, count: number, tags: readonly number[]): void {
    this.#deeds.push({ moment: this.#journal.now, sector, count, tags });
    for (let at = sector; at < sector + count; at++) this.#latest[at] = tags;
  }

  /** What each sector reads as now, as long as nothing crashes. */
  get latest(): readonly (readonly number[])[] {
    return this.#latest;
  }

  /** What sectors may read as at moments that are asked for in ascending order. */
  expectations(): Expectations {
    return new Expectations(this.#initial, this.#deeds);
  }
}

/** What a disk may be like after a crash. */
export interface Allowed {
  /** By sector: numbers of writes. What is not there reads as zeros. */
  readonly sectors: readonly (readonly number[])[];
  /** Its length, bytes. */
  readonly lengths: readonly number[];
}

/** What a disk may be like after a crash, moment by moment. */
export class Expectations {
  readonly #deeds: readonly Deed[];
  readonly #sectors: number[][];
  readonly #latest: (readonly number[])[];
  #lengths: number[];
  #done = 0;

  /** From the state of the disk at the begin, and what was done to it. */
  constructor(initial: readonly (readonly number[])[], deeds: readonly Deed[]) {
    this.#deeds = deeds;
    this.#sectors = initial.map((tags) => [...tags]);
    this.#latest = [...initial];
    this.#lengths = [initial.length * SECTOR];
  }

  /** By sector: what was last flushed, and everything that was written since. */
  at(moment: number): Allowed {
    for (; this.#done < this.#deeds.length; this.#done++) {
      const deed = this.#deeds[this.#done]!;
      if (deed.moment > moment) break;
      this.#take(deed);
    }
    return { sectors: this.#sectors, lengths: this.#lengths };
  }

  #take({ sector, count, tags, length, through }: Deed): void {
    if (length !== undefined) {
      this.#lengths = through ? [length] : [...this.#lengths, length];
      return;
    }
    if (sector === undefined) {
      for (const [at, latest] of this.#latest.entries()) this.#sectors[at] = [...latest];
      return;
    }
    while (this.#sectors.length < sector + count) {
      // The disk grew.
      this.#latest.push([ZEROS]);
      this.#sectors.push([ZEROS]);
    }
    for (let at = sector; at < sector + count; at++) {
      this.#sectors[at]!.push(...tags);
      this.#latest[at] = tags;
    }
  }
}

/** Reads a whole disk and answers with what is wrong in it, `undefined` if nothing is. */
export async function findForeign(
  node: BlockNode,
  allowed: readonly (readonly number[])[],
): Promise<string | undefined> {
  const sectors = node.length / SECTOR;
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  const words = new Uint32Array(bytes.buffer);
  for (let sector = 0; sector < sectors; sector++) {
    const tag = tagOf(words, sector * SECTOR / 4, sector);
    if (tag !== undefined && (allowed[sector] ?? [ZEROS]).includes(tag)) continue;
    const at = sector * SECTOR / 4;
    const found = tag ?? `a stamp of write ${words[at]} for sector ${words[at + 1]}, or no stamp`;
    return `sector ${sector} holds ${found}, not one of ${allowed[sector] ?? [ZEROS]}`;
  }
  return undefined;
}

/** The numbers that a disk's sectors carry. */
export async function readTags(node: BlockNode): Promise<Uint32Array> {
  const tags = new Uint32Array(node.length / SECTOR);
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  const words = new Uint32Array(bytes.buffer);
  for (let sector = 0; sector < tags.length; sector++) {
    const tag = tagOf(words, sector * SECTOR / 4, sector);
    if (tag === undefined) throw new Error(`sector ${sector} carries no stamp`);
    tags[sector] = tag;
  }
  return tags;
}
