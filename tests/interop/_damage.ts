/**
 * Random damage to qcow2 images: where everything in a sound image lies, and
 * what is done to it. One seed, one damage.
 */
import type { Random } from "../_random.ts";

const OFFSET = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
/** As large as numbers in tables get. */
const MAX_U64 = (1n << 64n) - 1n;

const BITMAPS_EXTENSION = 0x23852875;
const CRYPTO_EXTENSION = 0x0537be77;

/** A number in an image, big-endian. */
interface Field {
  readonly at: number;
  readonly bytes: 1 | 2 | 4 | 8;
}

/** An L1 table and its L2 tables. */
interface Tables {
  readonly l1: number;
  readonly entries: number;
  /** Offsets of L2 tables. */
  readonly l2: readonly number[];
}

/** Where things lie in a sound image. All in bytes. */
class Layout {
  readonly view: DataView;
  readonly version: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly extended: boolean;
  readonly refcountTable: number;
  /** Offsets of refcount blocks by their index. */
  readonly blocks: ReadonlyMap<number, number>;
  readonly active: Tables;
  readonly snapshots: readonly { readonly entry: number; readonly tables: Tables }[];
  /** The data of the bitmaps extension. */
  readonly bitmapsExtension: number | undefined;
  /** The data of the extension that says where the LUKS header is. */
  readonly cryptoExtension: number | undefined;
  readonly bitmaps: readonly {
    readonly entry: number;
    readonly table: number;
    readonly entries: number;
  }[];

  constructor(readonly bytes: Uint8Array<ArrayBuffer>) {
    const view = this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.version = view.getUint32(4);
    this.clusterBits = view.getUint32(20);
    this.clusterSize = 2 ** this.clusterBits;
    this.refcountBits = this.version < 3 ? 16 : 2 ** view.getUint32(96);
    this.extended = this.version >= 3 && (view.getUint8(79) & 16) !== 0;
    this.refcountTable = this.offset(48);
    const blocks = new Map<number, number>();
    for (let i = 0; i < view.getUint32(56) * this.clusterSize / 8; i++) {
      const block = this.offset(this.refcountTable + i * 8);
      if (block !== 0) blocks.set(i, block);
    }
    this.blocks = blocks;
    this.active = this.#tables(this.offset(40), view.getUint32(36));
    const snapshots = [];
    let at = this.offset(64);
    for (let i = view.getUint32(60); i > 0; i--) {
      at = Math.ceil(at / 8) * 8;
      const tables = this.#tables(this.offset(at), view.getUint32(at + 8));
      snapshots.push({ entry: at, tables });
      at += 40 + view.getUint32(at + 36) + view.getUint16(at + 12) + view.getUint16(at + 14);
    }
    this.snapshots = snapshots;
    this.bitmapsExtension = this.#extension(BITMAPS_EXTENSION);
    this.cryptoExtension = this.#extension(CRYPTO_EXTENSION);
    const bitmaps = [];
    if (this.bitmapsExtension !== undefined) {
      let entry = this.offset(this.bitmapsExtension + 16);
      for (let i = view.getUint32(this.bitmapsExtension); i > 0; i--) {
        bitmaps.push({ entry, table: this.offset(entry), entries: view.getUint32(entry + 8) });
        entry = Math.ceil((entry + 24 + view.getUint16(entry + 18)) / 8) * 8;
      }
    }
    this.bitmaps = bitmaps;
  }

  /** Clusters of the file. */
  get clusters(): number {
    return Math.ceil(this.bytes.length / this.clusterSize);
  }

  /** The L1 tables, that of the disk first. */
  get tables(): readonly Tables[] {
    return [this.active, ...this.snapshots.map(({ tables }) => tables)];
  }

  /** Clusters that hold metadata. */
  get metadata(): number[] {
    const { snapshots, bitmaps, tables } = this;
    return [
      0,
      this.refcountTable,
      ...this.blocks.values(),
      ...tables.flatMap(({ l1, l2 }) => [l1, ...l2]),
      ...snapshots.slice(0, 1).map(({ entry }) => entry),
      ...bitmaps.flatMap(({ entry, table }) => [entry - entry % this.clusterSize, table]),
      ...(this.cryptoExtension === undefined ? [] : [this.offset(this.cryptoExtension)]),
    ];
  }

  /** The bits of an entry that are an offset. */
  offset(at: number): number {
    return Number(this.view.getBigUint64(at) & OFFSET);
  }

  get(field: Field): bigint {
    let value = 0n;
    for (let i = 0; i < field.bytes; i++) value = value << 8n | BigInt(this.bytes[field.at + i]!);
    return value;
  }

  set({ at, bytes }: Field, value: bigint): void {
    for (let i = bytes - 1; i >= 0; i--, value >>= 8n) this.bytes[at + i] = Number(value & 0xffn);
  }

  /** The refcount of a cluster, as section 4 of the format's reference packs it. */
  refcount(cluster: number, value?: bigint): bigint | undefined {
    const perBlock = this.clusterSize * 8 / this.refcountBits;
    const block = this.blocks.get(Math.floor(cluster / perBlock));
    if (block === undefined) return undefined;
    const bit = cluster % perBlock * this.refcountBits;
    const at = block + Math.floor(bit / 8);
    if (this.refcountBits >= 8) {
      const field = { at, bytes: this.refcountBits / 8 as 1 | 2 | 4 | 8 };
      if (value !== undefined) this.set(field, value);
      return this.get(field);
    }
    const mask = 2 ** this.refcountBits - 1;
    const shift = bit % 8;
    if (value !== undefined) {
      this.bytes[at] = this.bytes[at]! & ~(mask << shift) | Number(value) << shift;
    }
    return BigInt(this.bytes[at]! >>> shift & mask);
  }

  #tables(l1: number, entries: number): Tables {
    const l2 = [];
    for (let i = 0; i < entries; i++) {
      const table = this.offset(l1 + i * 8);
      if (table !== 0) l2.push(table);
    }
    return { l1, entries, l2 };
  }

  #extension(wanted: number): number | undefined {
    const { view } = this;
    for (let at = this.version < 3 ? 72 : view.getUint32(100);;) {
      const [type, length] = [view.getUint32(at), view.getUint32(at + 4)];
      if (type === wanted) return at + 8;
      if (type === 0) return undefined;
      at += 8 + Math.ceil(length / 8) * 8;
    }
  }
}

/** What one seed does to an image. */
export interface Damaged {
  /** The image afterwards. */
  readonly image: Uint8Array<ArrayBuffer>;
  /** What was done, for messages. */
  readonly log: readonly string[];
}

/** Damages a sound image in one to four ways. */
export function damaged(sound: Uint8Array, random: Random): Damaged {
  const damage = new Damage(new Uint8Array(sound), random);
  return damage.all(random.pick([1, 1, 1, 1, 2, 2, 3, 4]));
}

/** A way to damage an image: says what it did, `undefined` where the image has nothing to damage so. */
type Way = () => string | undefined;

class Damage {
  readonly #image: Layout;
  readonly #random: Random;
  /** The file's length at last. */
  #length: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, random: Random) {
    this.#image = new Layout(bytes);
    this.#random = random;
    this.#length = bytes.length;
  }

  all(ways: number): Damaged {
    const log: string[] = [];
    while (log.length < ways) {
      const done = this.#random.pick(this.#ways)();
      if (done !== undefined) log.push(done);
    }
    const { bytes } = this.#image;
    const image = new Uint8Array(this.#length);
    image.set(bytes.subarray(0, this.#length));
    return { image, log };
  }

  readonly #ways: readonly Way[] = [
    () => this.#refcount(),
    () => this.#refcount(),
    () => this.#refcount(),
    () => this.#refcounts(),
    () => this.#blockOfNothing(),
    () => this.#refcountTableEntry(),
    () => this.#refcountTableEntry(),
    () => this.#l1Entry(),
    () => this.#l1Entry(),
    () => this.#l2Entry(),
    () => this.#l2Entry(),
    () => this.#l2Entry(),
    () => this.#copiedFlags(),
    () => this.#subclusters(),
    () => this.#subclusters(),
    () => this.#compressed(),
    () => this.#compressed(),
    () => this.#snapshot(),
    () => this.#snapshot(),
    () => this.#bitmap(),
    () => this.#bitmap(),
    () => this.#bitmap(),
    () => this.#crypto(),
    () => this.#headerField(),
    () => this.#features(),
    () => this.#fileLength(),
    () => this.#metadataCluster(),
  ];

  /** A cluster of the file, or one of the first behind it. */
  #anyCluster(): number {
    return this.#random.below(this.#image.clusters + (this.#random.oneIn(4) ? 3 : 0));
  }

  #maximum(): bigint {
    return (1n << BigInt(this.#image.refcountBits)) - 1n;
  }

  #refcount(): string | undefined {
    const cluster = this.#random.oneIn(3)
      ? this.#random.pick(this.#image.metadata) / this.#image.clusterSize
      : this.#anyCluster();
    const before = this.#image.refcount(cluster);
    if (before === undefined) return undefined;
    const value = this.#random.pick([0n, 1n, 2n, before + 1n, before - 1n, this.#maximum()]);
    if (value < 0n || value > this.#maximum() || value === before) return undefined;
    this.#image.refcount(cluster, value);
    return `refcount of cluster ${cluster}: ${before} -> ${value}`;
  }

  #refcounts(): string {
    const first = this.#anyCluster();
    const count = this.#random.between(2, 40);
    const value = this.#random.pick([0n, 1n, this.#maximum()]);
    for (let cluster = first; cluster < first + count; cluster++) {
      this.#image.refcount(cluster, value);
    }
    return `refcounts of ${count} clusters from ${first} on: ${value}`;
  }

  #blockOfNothing(): string {
    const [index, block] = this.#random.pick([...this.#image.blocks]);
    const fill = this.#random.pick([0, 0, 0xff]);
    // Nothing else lies between the file's end and its last cluster's.
    this.#image.bytes.fill(fill, block, block + this.#image.clusterSize);
    return `refcount block ${index} full of 0x${fill.toString(16)}`;
  }

  /** Something else than the entry's offset, with as much of the rest as `keep` says. */
  #otherPlace(keep: bigint): bigint {
    const { clusterSize, clusters, metadata } = this.#image;
    const random = this.#random;
    switch (random.below(5)) {
      case 0:
        return keep;
      case 1:
        return keep | BigInt(random.pick(metadata));
      case 2:
        return keep | BigInt((clusters + random.below(8)) * clusterSize);
      default:
        return keep | BigInt(this.#anyCluster() * clusterSize);
    }
  }

  #change(what: string, field: Field, value: bigint): string | undefined {
    const before = this.#image.get(field);
    if (value === before || value < 0n || value > MAX_U64) return undefined;
    this.#image.set(field, value);
    return `${what} at 0x${field.at.toString(16)}: 0x${before.toString(16)} -> 0x${
      value.toString(16)
    }`;
  }

  #refcountTableEntry(): string | undefined {
    const { blocks, refcountTable, clusterSize, clusterBits } = this.#image;
    const random = this.#random;
    const last = Math.max(...blocks.keys());
    const index = random.below(Math.min(last + 3, clusterSize / 8));
    const field: Field = { at: refcountTable + index * 8, bytes: 8 };
    const before = this.#image.get(field);
    // How far a file can be extended depends on the host, and clusters of 512 bytes make far a lot of work.
    switch (random.below(5)) {
      case 0:
        return this.#change("refcount table entry", field, 0n);
      case 1:
        return this.#change(
          "refcount table entry",
          field,
          before ^ 1n << BigInt(random.below(Math.min(clusterBits + 8, 24))),
        );
      case 2:
        return this.#change(
          "refcount table entry",
          field,
          before ^ 1n << BigInt(random.below(clusterBits)),
        );
      default:
        return this.#change("refcount table entry", field, this.#otherPlace(0n));
    }
  }

  #l1Entry(): string | undefined {
    const random = this.#random;
    const tables = random.pick(this.#image.tables);
    if (tables.entries === 0) return undefined;
    const at = tables.l1 + random.below(tables.entries) * 8;
    return this.#tableEntry("L1 entry", { at, bytes: 8 });
  }

  /** Changes an L1 or L2 entry in one of the ways that make sense for both. */
  #tableEntry(what: string, field: Field): string | undefined {
    const random = this.#random;
    const before = this.#image.get(field);
    switch (random.below(4)) {
      case 0:
        return this.#change(what, field, before ^ COPIED);
      case 1:
        return this.#change(what, field, before ^ 1n << BigInt(random.below(64)));
      case 2:
        return this.#change(what, field, before ^ 1n << BigInt(random.between(9, 22)));
      default:
        return this.#change(what, field, this.#otherPlace(before & COPIED));
    }
  }

  /** The fields of an L2 table's entries, mostly one that says something. */
  #pickL2Entry(): Field | undefined {
    const random = this.#random;
    const tables = this.#image.tables.flatMap(({ l2 }) => l2);
    if (tables.length === 0) return undefined;
    const table = random.pick(tables);
    const size = this.#image.extended ? 16 : 8;
    const used: number[] = [];
    for (let at = table; at < table + this.#image.clusterSize; at += size) {
      if (this.#image.get({ at, bytes: 8 }) !== 0n) used.push(at);
    }
    const any = table + random.below(this.#image.clusterSize / size) * size;
    return { at: used.length > 0 && !random.oneIn(6) ? random.pick(used) : any, bytes: 8 };
  }

  #l2Entry(): string | undefined {
    const random = this.#random;
    const field = this.#pickL2Entry();
    if (field === undefined) return undefined;
    const before = this.#image.get(field);
    switch (random.below(8)) {
      case 0:
        return this.#change("L2 entry", field, before ^ 1n);
      case 1:
        return this.#change("L2 entry", field, before | BigInt(random.pick([0x200, 0x400])) | 1n);
      case 2: {
        const other = this.#pickL2Entry();
        return other && this.#change("L2 entry of another", field, this.#image.get(other));
      }
      case 3:
        return this.#change("L2 entry", field, before ^ COMPRESSED);
      default:
        return this.#tableEntry("L2 entry", field);
    }
  }

  #copiedFlags(): string {
    const random = this.#random;
    const tables = random.pick(this.#image.tables);
    const step = this.#image.extended ? 16 : 8;
    let flipped = 0;
    const flip = (from: number, to: number, step: number) => {
      for (let at = from; at < to; at += step) {
        const field: Field = { at, bytes: 8 };
        const before = this.#image.get(field);
        if (before === 0n || !random.oneIn(2)) continue;
        this.#image.set(field, before ^ COPIED);
        flipped++;
      }
    };
    flip(tables.l1, tables.l1 + tables.entries * 8, 8);
    for (const l2 of tables.l2) flip(l2, l2 + this.#image.clusterSize, step);
    return `${flipped} COPIED flags of the L1 table at 0x${tables.l1.toString(16)}`;
  }

  #subclusters(): string | undefined {
    if (!this.#image.extended) return undefined;
    const entry = this.#pickL2Entry();
    if (entry === undefined) return undefined;
    const random = this.#random;
    const field: Field = { at: entry.at + 8, bytes: 8 };
    const before = this.#image.get(field);
    const value = random.pick([
      0n,
      1n,
      0xffff_ffffn,
      0xffff_ffff_0000_0000n,
      MAX_U64,
      before ^ 1n << BigInt(random.below(64)),
    ]);
    return this.#change("subclusters", field, value);
  }

  #compressed(): string | undefined {
    const random = this.#random;
    const { clusterBits, clusterSize, clusters } = this.#image;
    // Rarely hit by chance.
    for (let tries = 0; tries < 50; tries++) {
      const field = this.#pickL2Entry();
      if (field === undefined) return undefined;
      const before = this.#image.get(field);
      if ((before & COMPRESSED) === 0n) continue;
      const bits = BigInt(70 - clusterBits);
      const sectors = (before & (1n << 62n) - 1n) >> bits;
      const offset = before & (1n << bits) - 1n;
      const entry = (offset: bigint, sectors: bigint) => COMPRESSED | sectors << bits | offset;
      const most = BigInt(clusterSize / 512 - 1);
      const value = random.pick([
        before | COPIED,
        entry(offset, (1n << 62n - bits) - 1n),
        entry(offset, most),
        entry(offset, 0n),
        entry(offset, sectors + 1n & most),
        entry(BigInt(random.below(clusters * clusterSize)), sectors),
        entry(BigInt(clusters * clusterSize) - 1n, most),
        entry(BigInt(clusters * clusterSize + random.below(clusterSize)), sectors),
        entry((1n << bits) - 1n, sectors),
        entry(offset ^ 1n << BigInt(random.between(9, 20)), sectors),
      ]);
      return this.#change("compressed cluster", field, value);
    }
    return undefined;
  }

  #snapshot(): string | undefined {
    const random = this.#random;
    if (this.#image.snapshots.length === 0) return undefined;
    const { entry } = random.pick(this.#image.snapshots);
    const [at, bytes, name] = random.pick(
      [
        [0, 8, "L1 offset"],
        [0, 8, "L1 offset"],
        [8, 4, "L1 entries"],
        [12, 2, "id length"],
        [14, 2, "name length"],
        [16, 4, "date"],
        [32, 4, "VM state"],
        [36, 4, "extra data"],
        [36, 4, "extra data"],
        [40, 8, "VM state"],
        [48, 8, "disk size"],
      ] as const,
    );
    const field: Field = { at: entry + at, bytes };
    const before = this.#image.get(field);
    const flip = before ^ 1n << BigInt(random.below(bytes * 8));
    const what = `snapshot's ${name}`;
    switch (name) {
      case "L1 offset":
        return this.#change(what, field, random.oneIn(3) ? flip : this.#otherPlace(0n));
      case "extra data":
        return this.#change(what, field, BigInt(random.pick([0, 8, 16, 32, 1024, 1025, 1 << 20])));
      case "L1 entries":
        // A table of many clusters makes the reference write in the middle of its check.
        return this.#change(
          what,
          field,
          random.pick([0n, before + 1n, before ^ 8n, before | 1n << 23n]),
        );
      default:
        return this.#change(what, field, flip);
    }
  }

  #bitmap(): string | undefined {
    const random = this.#random;
    const { bitmaps, bitmapsExtension } = this.#image;
    if (bitmapsExtension === undefined) return undefined;
    const flip = (what: string, field: Field, bits: number = field.bytes * 8) =>
      this.#change(what, field, this.#image.get(field) ^ 1n << BigInt(random.below(bits)));
    const { entry, table, entries } = random.pick(bitmaps);
    switch (random.below(10)) {
      case 0:
        return flip("number of bitmaps", { at: bitmapsExtension, bytes: 4 }, 3);
      case 1:
        return flip("size of the bitmap directory", { at: bitmapsExtension + 8, bytes: 8 }, 16);
      case 2:
        return this.#change(
          "bitmap directory",
          { at: bitmapsExtension + 16, bytes: 8 },
          this.#otherPlace(0n),
        );
      case 3:
        return this.#change("bitmap table", { at: entry, bytes: 8 }, this.#otherPlace(0n));
      case 4:
        return flip("bitmap table's length", { at: entry + 8, bytes: 4 }, 4);
      case 5:
        return flip("bitmap flags", { at: entry + 12, bytes: 4 }, 4);
      case 6:
        return flip("bitmap type or granularity", { at: entry + 16, bytes: 2 });
      case 7:
        return flip("bitmap name's length", { at: entry + 18, bytes: 2 });
      default: {
        if (entries === 0) return undefined;
        const field: Field = { at: table + random.below(entries) * 8, bytes: 8 };
        if (random.oneIn(2)) return flip("bitmap table entry", field);
        return this.#change("bitmap table entry", field, this.#otherPlace(0n));
      }
    }
  }

  #crypto(): string | undefined {
    const at = this.#image.cryptoExtension;
    if (at === undefined) return undefined;
    const place: Field = { at, bytes: 8 };
    const length: Field = { at: at + 8, bytes: 8 };
    return this.#random.oneIn(2)
      ? this.#change("LUKS header", place, this.#otherPlace(0n))
      : this.#change(
        "length of the LUKS header",
        length,
        this.#image.get(length) ^ 1n << BigInt(this.#random.between(12, 21)),
      );
  }

  #headerField(): string | undefined {
    const random = this.#random;
    const [at, bytes, name] = random.pick(
      [
        [24, 8, "size"],
        [36, 4, "L1 entries"],
        [40, 8, "L1 offset"],
        [40, 8, "L1 offset"],
        [48, 8, "refcount table offset"],
        [48, 8, "refcount table offset"],
        [56, 4, "refcount table clusters"],
        [60, 4, "number of snapshots"],
        [64, 8, "snapshot table offset"],
      ] as const,
    );
    const field: Field = { at, bytes };
    const before = this.#image.get(field);
    switch (name) {
      case "size":
        return this.#change(name, field, before ^ 1n << BigInt(random.below(64)));
      case "L1 entries":
        return this.#change(name, field, random.pick([0n, before - 1n, before + 1n, before + 8n]));
      case "refcount table clusters":
        return this.#change(name, field, random.pick([0n, before + 1n, before + 2n]));
      case "number of snapshots":
        return this.#change(name, field, random.pick([0n, before - 1n, before + 1n, 65537n]));
      default:
        return this.#change(
          name,
          field,
          random.oneIn(4) ? before ^ 1n << BigInt(random.below(40)) : this.#otherPlace(0n),
        );
    }
  }

  #features(): string | undefined {
    if (this.#image.version < 3) return undefined;
    const random = this.#random;
    const [at, bits] = random.pick(
      [
        // Dirty and corrupt rather often: the reference clears them when it has repaired an image.
        [72, [0, 0, 1, 1, 2, 3, 4, 5]],
        [80, [0, 1]],
        [88, [0, 1, 2]],
      ] as const,
    );
    const field: Field = { at, bytes: 8 };
    return this.#change(
      "features",
      field,
      this.#image.get(field) ^ 1n << BigInt(random.pick(bits)),
    );
  }

  #fileLength(): string | undefined {
    const { clusterSize, clusters, bytes } = this.#image;
    const random = this.#random;
    if (random.oneIn(2)) {
      // A shorter one.
      const lost = random.oneIn(2)
        ? random.below(clusters) * clusterSize
        : random.below(clusterSize);
      if (bytes.length - lost <= 512) return undefined;
      this.#length = bytes.length - lost;
    } else {
      this.#length = bytes.length + random.below(4 * clusterSize);
    }
    return `file of ${this.#length} bytes`;
  }

  #metadataCluster(): string | undefined {
    const { clusterSize, bytes } = this.#image;
    const random = this.#random;
    const to = random.pick(this.#image.metadata.slice(1));
    switch (random.below(3)) {
      case 0:
        bytes.fill(0, to, to + clusterSize);
        return `zeros over 0x${to.toString(16)}`;
      case 1: {
        const length = Math.min(64, clusterSize);
        bytes.set(random.bytes(Math.min(length, bytes.length - to)), to);
        return `noise over 0x${to.toString(16)}`;
      }
      default: {
        const from = random.pick(this.#image.metadata);
        if (from === to) return undefined;
        const length = Math.min(clusterSize, bytes.length - Math.max(from, to));
        bytes.copyWithin(to, from, from + length);
        return `0x${from.toString(16)} over 0x${to.toString(16)}`;
      }
    }
  }
}
