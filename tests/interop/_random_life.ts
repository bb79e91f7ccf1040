/**
 * The life of a qcow2 image, at random: everything that its commands can do to
 * it, beside a plain model of what it has to hold.
 */
import { assert, assertEquals } from "@std/assert";
import { loadCodec } from "../../lib/codec/mod.ts";
import { openImage } from "../../lib/graph/open.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import {
  amendImage,
  applySnapshot,
  changeBitmap,
  checkImage,
  commitImage,
  createImage,
  createSnapshot,
  deleteSnapshot,
  ImageError,
  rebaseImage,
  resizeImage,
} from "../../lib/mod.ts";
import { type OpenMode, READ_ONLY } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { Random } from "../_random.ts";
import { runReference, useReference } from "../_reference.ts";

/** What an image is at first. */
export interface Shape {
  /** Bytes. */
  readonly clusterSize: number;
  /** Refcount width. */
  readonly refcountBits: number;
  /** Extended L2 entries. */
  readonly extendedL2: boolean;
  /** 2 or 3. */
  readonly version: number;
  /** A raw backing file. */
  readonly hasBacking: boolean;
}

/** An internal snapshot, as it should be. */
interface ModelSnapshot {
  readonly name: string;
  readonly disk: Uint8Array<ArrayBuffer>;
}

/** A bitmap, as it should be. */
interface ModelBitmap {
  readonly granularity: number;
  enabled: boolean;
  /** By piece of the disk. */
  dirty: Uint8Array<ArrayBuffer>;
}

/** Widths of refcounts that soon have no room. */
const NARROW = 4;
/** Most clusters of a disk. */
const MOST_CLUSTERS = 640;
const MOST_BYTES = 10 << 20;

const NAME = "a.qcow2";

/** An image and the model of it. */
export class RandomLife {
  /** What was done, to print where something fails. */
  readonly log: string[] = [];
  readonly #random: Random;
  readonly #dir: string;
  readonly #clusterSize: number;
  #version: number;
  #refcountBits: number;
  #disk: Uint8Array<ArrayBuffer>;
  #snapshots: ModelSnapshot[] = [];
  readonly #bitmaps = new Map<string, ModelBitmap>();
  /** Name and bytes of the backing file. */
  #backing: { readonly name: string; bytes: Uint8Array<ArrayBuffer> } | undefined;
  #number = 0;

  private constructor(random: Random, dir: string, shape: Shape) {
    this.#random = random;
    this.#dir = dir;
    this.#clusterSize = shape.clusterSize;
    this.#version = shape.version;
    this.#refcountBits = shape.refcountBits;
    this.#disk = new Uint8Array(this.#anySize());
  }

  /** Makes an image in a folder. */
  static async begin(random: Random, dir: string, shape: Shape): Promise<RandomLife> {
    const life = new RandomLife(random, dir, shape);
    if (shape.hasBacking) life.#backing = await life.#newBacking();
    const { name, bytes } = life.#backing ?? {};
    if (bytes !== undefined) life.#disk.set(bytes.subarray(0, life.#disk.length));
    await createImage({
      filename: life.#file(NAME),
      format: "qcow2",
      size: life.#disk.length,
      options: [
        ["cluster_size", String(shape.clusterSize)],
        ["refcount_bits", String(shape.refcountBits)],
        ["compat", shape.version === 2 ? "0.10" : "1.1"],
        ...shape.extendedL2 ? [["extended_l2", "on"] as const] : [],
        ...random.oneIn(5) && shape.version > 2 ? [["lazy_refcounts", "on"] as const] : [],
      ],
      ...name === undefined ? {} : { backing: name, backingFormat: "raw" },
    });
    return life;
  }

  /** Lets `count` things happen; after each the image is sound. */
  async run(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.#step();
      await this.#check();
    }
  }

  #file(name: string): string {
    return `${this.#dir}/${name}`;
  }

  get #image(): { filename: string; format: string } {
    return { filename: this.#file(NAME), format: "qcow2" };
  }

  /** Whole clusters: what a smaller disk leaves in its last cluster is there again when it grows. */
  #anySize(): number {
    const most = Math.min(MOST_CLUSTERS, Math.floor(MOST_BYTES / this.#clusterSize));
    return this.#random.between(1, most) * this.#clusterSize;
  }

  async #newBacking(): Promise<{ name: string; bytes: Uint8Array<ArrayBuffer> }> {
    const random = this.#random;
    const bytes = new Uint8Array(Math.max(this.#anySize() - random.pick([0, 0, 512]), 512));
    for (let at = 0; at < bytes.length; at += 16384) {
      if (random.oneIn(2)) bytes.fill(random.between(1, 255), at, at + random.between(1, 20000));
    }
    const name = `base${this.#number++}.raw`;
    await Deno.writeFile(this.#file(name), bytes);
    return { name, bytes };
  }

  async #step(): Promise<void> {
    const kind = this.#random.pick([
      ...["guest", "guest", "guest", "create", "create", "apply", "delete", "resize"],
      ...["bitmap", "bitmap", "merge", "amend", "commit", "rebase"],
    ]);
    switch (kind) {
      case "guest":
        return await this.#guest();
      case "create":
        return await this.#createSnapshot();
      case "apply":
        return await this.#applySnapshot();
      case "delete":
        return await this.#deleteSnapshot();
      case "resize":
        return await this.#resize();
      case "bitmap":
        return await this.#changeBitmap();
      case "merge":
        return await this.#mergeBitmap();
      case "amend":
        return await this.#amend();
      case "commit":
        return await this.#commit();
      default:
        return await this.#rebase();
    }
  }

  /** Does something, which may fail in one of the ways given; whether it was done. */
  async #attempt(
    what: string,
    does: () => Promise<void>,
    refusals: readonly (RegExp | false)[] = [],
  ): Promise<boolean> {
    this.log.push(what);
    try {
      await does();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.log.push(`  ${error.message}`);
      if (refusals.some((pattern) => pattern && pattern.test(error.message))) return false;
      throw error;
    }
    const due = refusals.find((pattern) => pattern && pattern.flags.includes("u"));
    assert(!due, `should have been refused: ${due}`);
    return true;
  }

  async #open(changes: Partial<OpenMode>): Promise<BlockNode> {
    return await openImage(this.#image, { ...READ_ONLY, ...changes }, QUIET);
  }

  // --- What the guest does

  async #guest(): Promise<void> {
    await using node = await this.#open({ writable: true, unmap: true });
    for (let left = this.#random.between(1, 6); left > 0; left--) await this.#request(node);
  }

  async #request(node: BlockNode): Promise<void> {
    const random = this.#random;
    const size = this.#disk.length;
    const unit = this.#clusterSize;
    let offset = random.below(size);
    if (random.oneIn(2)) offset -= offset % unit;
    const length = Math.min(
      random.pick([random.between(1, 3000), unit, random.between(1, unit * 2), unit * 3]),
      size - offset,
    );
    const kind = random.pick(["write", "write", "zero", "unmap", "discard", "compressed"]);
    this.log.push(`${kind} ${offset} ${length}`);
    switch (kind) {
      case "write": {
        const bytes = this.#content(length);
        await node.write(offset, bytes);
        this.#disk.set(bytes, offset);
        return this.#mark(offset, length);
      }
      case "zero":
      case "unmap":
        await node.writeZeroes(offset, length, { unmap: kind === "unmap" });
        this.#disk.fill(0, offset, offset + length);
        return this.#mark(offset, length);
      case "discard":
        return await this.#discard(node, offset, length);
      default:
        return await this.#writePacked(node, offset - offset % unit);
    }
  }

  #content(length: number): Uint8Array<ArrayBuffer> {
    const period = Math.min(length, this.#random.pick([1, 97, 4099]));
    const bytes = new Uint8Array(length);
    bytes.set(this.#random.bytes(period));
    for (let done = period; done < length; done *= 2) bytes.copyWithin(done, 0, done);
    return bytes;
  }

  async #discard(node: BlockNode, offset: number, length: number): Promise<void> {
    await node.discard(offset, length);
    this.#mark(offset, length);
    if (this.#version < 3 && this.#backing !== undefined) return;
    const unit = this.#clusterSize;
    const start = Math.ceil(offset / unit) * unit;
    const end = offset + length - (offset + length) % unit;
    if (start < end) this.#disk.fill(0, start, end);
  }

  async #writePacked(node: BlockNode, offset: number): Promise<void> {
    const unit = this.#clusterSize;
    const codec = await loadCodec(node.packer!.codec);
    const bytes = this.#content(unit);
    const packed = new Uint8Array(unit - 1);
    const length = codec.pack(bytes, packed);
    if (length === null) return;
    try {
      await node.packer!.writePacked(offset, packed.subarray(0, length));
    } catch (error) {
      // Only clusters that nothing is stored for can be.
      assertEquals(ImageError.from(error).errno, "EIO");
      return this.#mark(offset, unit);
    }
    this.#disk.set(bytes, offset);
    this.#mark(offset, unit);
  }

  #mark(offset: number, length: number): void {
    for (const bitmap of this.#bitmaps.values()) {
      if (bitmap.enabled) markRange(bitmap, offset, length);
    }
  }

  // --- Snapshots

  async #createSnapshot(): Promise<void> {
    const name = `s${this.#number++}`;
    const done = await this.#attempt(
      `snapshot -c ${name}`,
      () => createSnapshot(this.#image, name),
      [this.#refcountBits <= NARROW && /Invalid argument/],
    );
    if (done) this.#snapshots.push({ name, disk: this.#disk.slice() });
  }

  async #applySnapshot(): Promise<void> {
    if (this.#snapshots.length === 0) return;
    const { name, disk } = this.#random.pick(this.#snapshots);
    const done = await this.#attempt(
      `snapshot -a ${name}`,
      () => applySnapshot(this.#image, name),
      [
        this.#refcountBits <= NARROW && /Invalid argument/,
        this.#bitmaps.size > 0 && /active dirty bitmaps/u,
        this.#version < 3 && disk.length !== this.#disk.length && /not supported/u,
      ],
    );
    if (done) this.#disk = disk.slice();
  }

  async #deleteSnapshot(): Promise<void> {
    if (this.#snapshots.length === 0) return;
    const { name } = this.#random.pick(this.#snapshots);
    await this.#attempt(`snapshot -d ${name}`, () => deleteSnapshot(this.#image, name));
    this.#snapshots = this.#snapshots.filter((snapshot) => snapshot.name !== name);
  }

  // --- Sizes

  async #resize(): Promise<void> {
    const size = this.#anySize();
    const grows = size > this.#disk.length;
    const shows = (this.#backing?.bytes.length ?? 0) > this.#disk.length;
    const preallocation = grows ? this.#random.pick(["off", "metadata", "falloc"] as const) : "off";
    const done = await this.#attempt(
      `resize ${size} ${preallocation}`,
      () => resizeImage(this.#image, { size, shrink: true, preallocation }),
      [
        this.#version < 3 && this.#snapshots.length > 0 && /v2 image which has snapshots/u,
        this.#version < 3 && grows && shows && /zero out/,
      ],
    );
    if (!done) return;
    const disk = new Uint8Array(size);
    disk.set(this.#disk.subarray(0, size));
    this.#disk = disk;
    for (const bitmap of this.#bitmaps.values()) {
      const dirty = new Uint8Array(Math.ceil(size / bitmap.granularity));
      dirty.set(bitmap.dirty.subarray(0, dirty.length));
      bitmap.dirty = dirty;
    }
  }

  // --- Bitmaps

  async #changeBitmap(): Promise<void> {
    const names = [...this.#bitmaps.keys()];
    if (names.length === 0 || (names.length < 3 && this.#random.oneIn(2))) {
      return await this.#addBitmap();
    }
    const name = this.#random.pick(names);
    const bitmap = this.#bitmaps.get(name)!;
    const action = this.#random.pick(["remove", "clear", "enable", "disable"] as const);
    await this.#attempt(
      `bitmap --${action} ${name}`,
      () => changeBitmap(this.#image, { bitmap: name, actions: [{ action }] }),
    );
    if (action === "remove") this.#bitmaps.delete(name);
    else if (action === "clear") bitmap.dirty.fill(0);
    else bitmap.enabled = action === "enable";
  }

  async #addBitmap(): Promise<void> {
    const name = `b${this.#number++}`;
    const granularity = 512 << this.#random.below(9);
    const done = await this.#attempt(
      `bitmap --add -g ${granularity} ${name}`,
      () => changeBitmap(this.#image, { bitmap: name, granularity, actions: [{ action: "add" }] }),
      [this.#version < 3 && /qcow2 v2 files/u],
    );
    if (!done) return;
    const dirty = new Uint8Array(Math.ceil(this.#disk.length / granularity));
    this.#bitmaps.set(name, { granularity, enabled: true, dirty });
  }

  async #mergeBitmap(): Promise<void> {
    const names = [...this.#bitmaps.keys()];
    if (names.length < 2) return;
    const [from, into] = [this.#random.pick(names), this.#random.pick(names)];
    if (from === into) return;
    await this.#attempt(
      `bitmap --merge ${from} ${into}`,
      () => changeBitmap(this.#image, { bitmap: into, actions: [{ action: "merge", from }] }),
    );
    const [source, target] = [this.#bitmaps.get(from)!, this.#bitmaps.get(into)!];
    for (const [offset, length] of runsOf(source, this.#disk.length)) {
      markRange(target, offset, length);
    }
  }

  // --- Options

  async #amend(): Promise<void> {
    const random = this.#random;
    const [key, value] = random.pick(
      [
        ["refcount_bits", String(2 ** random.between(0, 6))],
        ["refcount_bits", "16"],
        ["lazy_refcounts", random.pick(["on", "off"])],
        ["compat", random.pick(["0.10", "1.1", "1.1"])],
      ] as const,
    );
    // To go back to the old version means to lose the bitmaps.
    if (value === "0.10" && this.#bitmaps.size > 0) return;
    const done = await this.#attempt(
      `amend ${key}=${value}`,
      () => amendImage(this.#image, { options: [[key, value]] }),
      [
        key === "refcount_bits" && /^Cannot decrease refcount entry width/,
        this.#version < 3 && key !== "compat" && /compatibility level 1\.1/,
        value === "0.10" && /refcount_bits=16|prevent downgrade|incompatible features/,
        value === "0.10" && /Could not|Cannot/,
      ],
    );
    if (!done) return;
    if (key === "compat") this.#version = value === "0.10" ? 2 : 3;
    if (key === "refcount_bits") this.#refcountBits = Number(value);
  }

  // --- Backing files

  async #commit(): Promise<void> {
    // What snapshots do not hold they show of the backing file, which now changes.
    if (this.#backing === undefined || this.#snapshots.length > 0 || this.#bitmaps.size > 0) return;
    const drop = this.#random.oneIn(3);
    await this.#attempt(`commit${drop ? " -d" : ""}`, () => commitImage(this.#image, { drop }));
    const old = this.#backing.bytes;
    const bytes = new Uint8Array(Math.max(old.length, this.#disk.length));
    bytes.set(old);
    bytes.set(this.#disk);
    this.#backing.bytes = bytes;
    assertEquals(await Deno.readFile(this.#file(this.#backing.name)), bytes, "the backing file");
  }

  async #rebase(): Promise<void> {
    if (this.#snapshots.length > 0 || this.#bitmaps.size > 0) return;
    const next = this.#random.oneIn(3) ? undefined : await this.#newBacking();
    const compress = this.#random.oneIn(3);
    await this.#attempt(
      `rebase -b ${next?.name ?? "nothing"}${compress ? " -c" : ""}`,
      () =>
        rebaseImage(this.#image, {
          backing: next?.name ?? "",
          compress,
          ...next === undefined ? {} : { backingFormat: "raw" },
        }),
    );
    this.#backing = next;
  }

  // --- Whether all is as it should be

  async #check(): Promise<void> {
    const lines: string[] = [];
    const outcome = await checkImage(this.#image, {}, {
      ...QUIET,
      report: (line) => void lines.push(line),
    });
    assert(outcome !== undefined);
    const { corruptions, leaks, checkErrors } = outcome.result;
    assertEquals([corruptions, leaks, checkErrors], [0, 0, 0], lines.join("\n"));
  }

  /** Asserts that the reference finds the image sound and in it all that the model has. */
  async verify(): Promise<void> {
    const cwd = this.#dir;
    const check = await runReference(["check", "-f", "qcow2", NAME], { cwd });
    assertEquals([check.code, check.stderr], [0, ""], check.stdout);
    await Deno.writeFile(this.#file("model"), this.#disk);
    const compared = await runReference(
      ["compare", "-f", "qcow2", "-F", "raw", NAME, "model"],
      { cwd },
    );
    assertEquals([compared.code, compared.stdout], [0, "Images are identical.\n"]);
    const info = JSON.parse(await useReference(["info", "--output=json", NAME], { cwd }));
    assertEquals(info["virtual-size"], this.#disk.length);
    assertEquals(
      (info.snapshots ?? []).map(({ name }: { name: string }) => name),
      this.#snapshots.map(({ name }) => name),
    );
    for (const { name, disk } of this.#snapshots) {
      const args = ["convert", "-l", name, "-f", "qcow2", "-O", "raw", NAME, "snapshot"];
      await useReference(args, { cwd });
      const found = await Deno.readFile(this.#file("snapshot"));
      // The disk is as long as the image is now.
      const length = Math.min(found.length, disk.length);
      assertEquals(differenceOf(found.subarray(0, length), disk.subarray(0, length)), -1, name);
    }
    await this.#verifyBitmaps(info["format-specific"].data.bitmaps ?? []);
    await this.#verifyContent();
  }

  async #verifyBitmaps(found: readonly Record<string, unknown>[]): Promise<void> {
    assertEquals(
      found.map(({ name, granularity, flags }) => [name, granularity, flags]),
      Array.from(
        this.#bitmaps,
        ([name, { granularity, enabled }]) => [name, granularity, enabled ? ["auto"] : []],
      ),
    );
    if (this.#bitmaps.size === 0) return;
    await using node = await this.#open({});
    for (const [name, bitmap] of this.#bitmaps) {
      const runs: [number, number][] = [];
      await node.bitmaps!.visitDirty!(name, (offset, length) => {
        const last = runs.at(-1);
        if (last !== undefined && last[0] + last[1] === offset) last[1] += length;
        else runs.push([offset, length]);
      });
      assertEquals(runs, [...runsOf(bitmap, this.#disk.length)], `bitmap ${name}`);
    }
  }

  /** What we read ourselves. */
  async #verifyContent(): Promise<void> {
    await using node = await this.#open({});
    const bytes = new Uint8Array(this.#disk.length);
    await node.read(0, bytes);
    assertEquals(differenceOf(bytes, this.#disk), -1);
  }
}

function differenceOf(one: Uint8Array, other: Uint8Array): number {
  return one.findIndex((byte, i) => byte !== other[i]);
}

function markRange(bitmap: ModelBitmap, offset: number, length: number): void {
  const { granularity, dirty } = bitmap;
  dirty.fill(1, Math.floor(offset / granularity), Math.ceil((offset + length) / granularity));
}

/** Dirty runs of bytes of a disk. */
function* runsOf(
  { granularity, dirty }: ModelBitmap,
  size: number,
): Generator<[offset: number, length: number]> {
  for (let i = 0; i < dirty.length; i++) {
    if (dirty[i] === 0) continue;
    let end = i + 1;
    while (end < dirty.length && dirty[end] === 1) end++;
    yield [i * granularity, Math.min(end * granularity, size) - i * granularity];
    i = end;
  }
}
