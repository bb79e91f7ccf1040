/** Random requests on an image, beside a plain array that says what the disk has to hold. */
import { assert, assertEquals } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { loadCodec } from "../../../lib/codec/mod.ts";
import type { Random } from "../../_random.ts";

/** An image that is written to at random. */
export class RandomSession {
  /** What the disk holds. */
  model: Uint8Array<ArrayBuffer>;
  /** What was done, to print where something fails. */
  readonly log: string[] = [];
  /** The open image. */
  node!: BlockNode;
  readonly #random: Random;
  readonly #open: () => Promise<BlockNode>;
  readonly #version: number;

  /** A session on a disk that holds `content`; `open` opens the image. */
  constructor(
    random: Random,
    content: Uint8Array<ArrayBuffer>,
    image: { readonly open: () => Promise<BlockNode>; readonly version: number },
  ) {
    this.#random = random;
    this.#open = image.open;
    this.#version = image.version;
    this.model = content;
  }

  /** Does `count` things at random, with the image open before and closed after. */
  async run(count: number): Promise<void> {
    this.node = await this.#open();
    try {
      for (let i = 0; i < count; i++) await this.#step();
      await this.verify();
    } finally {
      await this.node[Symbol.asyncDispose]();
    }
  }

  /** Asserts that the whole disk reads as the array says. */
  async verify(): Promise<void> {
    assertEquals(this.node.length, this.model.length);
    const step = 1 << 20;
    for (let offset = 0; offset < this.model.length; offset += step) {
      await this.#compare(offset, Math.min(step, this.model.length - offset));
    }
  }

  async #compare(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(length).fill(0xee);
    await this.node.read(offset, bytes);
    for (let i = 0; i < length; i++) {
      if (bytes[i] !== this.model[offset + i]) {
        throw new Error(
          `disk byte ${offset + i} is ${bytes[i]} and not ${this.model[offset + i]} after\n` +
            this.log.join("\n"),
        );
      }
    }
  }

  /** A range that is a few bytes, a cluster, or many clusters, more often than not at a border. */
  #range(unit: number): [offset: number, length: number] {
    const random = this.#random;
    const size = this.model.length;
    let offset = random.below(size);
    if (random.oneIn(2)) offset -= offset % unit;
    let length = random.pick([random.between(1, 700), unit, random.between(1, unit * 3), unit * 5]);
    if (random.oneIn(3)) length = Math.max(length - length % 512, 512);
    length = Math.min(length, size - offset);
    return [offset, length];
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const { clusterSize } = this.node.limits;
    const kind = random.pick([
      ...["write", "write", "write", "together", "planned", "zero", "zero", "unmap", "discard"],
      ...["compressed", "compressed", "read", "reopen", "resize", "flush"],
    ]);
    const [offset, length] = this.#range(clusterSize);
    this.log.push(`${kind} ${offset} ${length}`);
    switch (kind) {
      case "write":
        return await this.#write(offset, length);
      case "together":
        return await this.#writeTogether(offset);
      case "planned":
        return await this.#writePlanned(offset);
      case "zero":
      case "unmap":
        await this.node.writeZeroes(offset, length, { unmap: kind === "unmap" });
        this.model.fill(0, offset, offset + length);
        return;
      case "discard":
        return await this.#discard(offset, length);
      case "compressed":
        return await this.#writePacked(offset - offset % clusterSize);
      case "read":
        return await this.#compare(offset, length);
      case "reopen":
        await this.node[Symbol.asyncDispose]();
        this.node = await this.#open();
        return;
      case "resize":
        return await this.#resize();
      default:
        await this.node.flush();
    }
  }

  async #write(offset: number, length: number): Promise<void> {
    const bytes = this.#content(length);
    await this.node.write(offset, bytes);
    this.model.set(bytes, offset);
  }

  /** One byte over and over, or random bytes that come again every so often. */
  #content(length: number): Uint8Array<ArrayBuffer> {
    const period = Math.min(length, this.#random.pick([1, 97, 4099]));
    const bytes = new Uint8Array(length);
    bytes.set(this.#random.bytes(period));
    for (let done = period; done < length; done *= 2) bytes.copyWithin(done, 0, done);
    return bytes;
  }

  /** Neighbouring ranges at the same time, some in one cluster. */
  async #writeTogether(offset: number): Promise<void> {
    const requests: Promise<void>[] = [];
    for (const [at, bytes] of this.#neighbours(offset)) {
      requests.push(this.node.write(at, bytes));
      this.model.set(bytes, at);
    }
    await Promise.all(requests);
  }

  /** As a planner does: host space for neighbouring ranges first, then their bytes, then the links, in any order. */
  async #writePlanned(offset: number): Promise<void> {
    const allocator = this.node.allocator!;
    const open: { publish: boolean; at: number; bytes: Uint8Array; end: () => Promise<void> }[] =
      [];
    for (const [start, bytes] of this.#neighbours(offset)) {
      for (let done = 0; done < bytes.length;) {
        const at = start + done;
        const allocation = await allocator.allocate(at, bytes.length - done);
        assert(allocation !== null);
        const part = bytes.subarray(done, done + allocation.length);
        const publish = !this.#random.oneIn(5);
        await allocation.file.write(allocation.offset, part);
        open.push({
          publish,
          at,
          bytes: part,
          end: () => publish ? allocation.publish() : allocation.abandon(),
        });
        done += allocation.length;
      }
    }
    while (open.length > 0) {
      const [next] = open.splice(this.#random.below(open.length), 1);
      this.log.push(`  ${next!.publish ? "publish" : "abandon"} ${next!.at} ${next!.bytes.length}`);
      await next!.end();
      if (next!.publish) this.model.set(next!.bytes, next!.at);
      else await this.#adopt(next!.at, next!.bytes.length, next!.bytes);
    }
  }

  /** What was given up where data lay already is gone: either content is right there, but only there. */
  async #adopt(offset: number, length: number, written: Uint8Array): Promise<void> {
    // Other allocations of the same cluster may still keep the old content back: looked at when they end.
    const bytes = new Uint8Array(length);
    await this.node.read(offset, bytes);
    for (let i = 0; i < length; i++) {
      if (bytes[i] === written[i]) this.model[offset + i] = written[i]!;
    }
  }

  *#neighbours(offset: number): Generator<[offset: number, bytes: Uint8Array]> {
    const { clusterSize } = this.node.limits;
    for (let at = offset, i = 0; i < 4 && at < this.model.length; i++) {
      const longest = this.#random.pick([300, clusterSize, clusterSize * 2]);
      const length = Math.min(this.#random.between(1, longest), this.model.length - at);
      yield [at, this.#content(length)];
      at += length + this.#random.pick([0, 0, 512, this.#random.below(clusterSize)]);
    }
  }

  async #discard(offset: number, length: number): Promise<void> {
    await this.node.discard(offset, length);
    if (this.#version < 3 && this.node.backing!.name !== "") return;
    const { clusterSize } = this.node.limits;
    const start = Math.ceil(offset / clusterSize) * clusterSize;
    const end = offset + length === this.model.length
      ? this.model.length
      : offset + length - (offset + length) % clusterSize;
    if (start < end) this.model.fill(0, start, end);
  }

  async #writePacked(offset: number): Promise<void> {
    const { clusterSize, codec: name } = this.node.packer!;
    const codec = await loadCodec(name);
    const bytes = new Uint8Array(clusterSize);
    bytes.set(this.#content(Math.min(clusterSize, this.model.length - offset)));
    const out = new Uint8Array(clusterSize - 1);
    const packed = codec.pack(bytes, out);
    if (packed === null) return;
    const extents = await this.#extents(offset, Math.min(clusterSize, this.model.length - offset));
    try {
      await this.node.packer!.writePacked(offset, out.subarray(0, packed));
    } catch (error) {
      assertEquals(ImageError.from(error).errno, "EIO");
      assert(extents.some(({ stored }) => stored), "only a stored cluster is refused");
      return;
    }
    assert(extents.every(({ stored }) => !stored), "a stored cluster is refused");
    this.model.set(bytes.subarray(0, this.model.length - offset), offset);
  }

  async #extents(offset: number, length: number): Promise<{ stored: boolean }[]> {
    const found: { stored: boolean }[] = [];
    for (let done = 0; done < length;) {
      const extent = await this.node.extent(offset + done, length - done);
      found.push({ stored: extent.compressed || extent.offset !== undefined });
      done += extent.length;
    }
    return found;
  }

  async #resize(): Promise<void> {
    const old = this.model;
    // Whole clusters: what a smaller disk leaves in its last cluster is there again when it grows, as in the reference.
    const { clusterSize } = this.node.limits;
    const change = this.#random.between(-6, 8) * this.#random.pick([1, 2, 7]);
    const clusters = Math.max(Math.ceil(old.length / clusterSize) + change, 2);
    const length = Math.min(clusters, Math.max(256, 2 ** 21 / clusterSize)) * clusterSize;
    this.log.push(`  to ${length}`);
    await this.node.resize(length, "off");
    this.model = new Uint8Array(length);
    this.model.set(old.subarray(0, length));
  }
}
