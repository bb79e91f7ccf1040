import type { DriverContext } from "../../lib/block/driver.ts";
import { closeAll } from "../../lib/block/close_all.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { ImageDetails } from "../../lib/block/capabilities.ts";
import type { NodeAccess } from "../../lib/block/mode.ts";
import type {
  BlockNode,
  Extent,
  NodeAddress,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import { outerDetails } from "../../lib/block/outer_details.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { firstDifference } from "../../lib/bytes/equal.ts";
import { errnoNumber } from "../../lib/io/errno.ts";

/** What zeros are written with at once, bytes. */
const BOUNCE = 1 << 20;

/** Shows an image and compares it, request by request, with a plain copy of its disk. */
export class BlkverifyNode implements BlockNode {
  readonly driver = "blkverify";
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly address: NodeAddress;
  readonly lock: (access: NodeAccess) => Promise<void>;
  readonly #test: BlockNode;
  readonly #raw: BlockNode;
  readonly #context: DriverContext;
  /** The first difference: whatever comes after it is of no use. */
  #failure: ImageError | undefined;

  /** A node that shows `test`; both are closed with it. */
  constructor(test: BlockNode, raw: BlockNode, address: NodeAddress, context: DriverContext) {
    this.#test = test;
    this.#raw = raw;
    this.#context = context;
    this.address = address;
    this.readOnly = test.readOnly || raw.readOnly || !context.mode.writable;
    const { requestAlignment } = test.limits;
    this.limits = {
      requestAlignment: Math.max(requestAlignment, raw.limits.requestAlignment),
      clusterSize: 0,
      zeroAlignment: 0,
    };
    this.children = [{ name: "test", node: test }, { name: "raw", node: raw }];
    this.lock = async (access) => {
      await test.lock?.(access);
      await raw.lock?.(access);
    };
  }

  get filename(): string {
    return this.#context.filename;
  }

  get length(): number {
    return this.#test.length;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    const copy = new Uint8Array(into.length);
    await this.#both("read", offset, into.length, [
      () => this.#test.read(offset, into),
      () => this.#raw.read(offset, copy),
    ]);
    const at = firstDifference(into, copy);
    if (at >= 0) {
      this.#fail("read", offset, into.length, `contents mismatch at offset ${offset + at}`);
    }
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    await this.#both("write", offset, from.length, [
      () => this.#test.write(offset, from),
      () => this.#raw.write(offset, from),
    ]);
  }

  /** With data, so that both have the same. */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    if (flags.noFallback) throw ImageError.fromErrno("ENOTSUP", { file: this.filename });
    for (let done = 0; done < length; done += BOUNCE) {
      await this.write(offset + done, new Uint8Array(Math.min(length - done, BOUNCE)));
    }
  }

  /** What is of no use may differ. */
  discard(): Promise<void> {
    return Promise.resolve();
  }

  /** Where the copy is; whoever reads there would compare nothing. */
  async extent(offset: number, length: number): Promise<Extent> {
    return { ...await this.#raw.extent(offset, length), guarded: true };
  }

  /** The copy is there for this run only. */
  flush(): Promise<void> {
    return this.#test.flush();
  }

  /** The copy is what the reference resizes; behind the end of the image nothing is compared. */
  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    await this.#raw.resize(length, how);
  }

  /** What two disks take says nothing of one. */
  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Clusters, and whether it was closed well: all that the reference asks the copy for. */
  details(): Promise<ImageDetails> {
    return outerDetails(this.#raw);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeAll(this.children.map(({ node }) => () => node[Symbol.asyncDispose]()));
  }

  /** Does both, which have to end alike. */
  async #both(
    what: "read" | "write",
    offset: number,
    length: number,
    requests: readonly [() => Promise<void>, () => Promise<void>],
  ): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const [test, raw] = await Promise.all(requests.map(outcome)) as [Outcome, Outcome];
    if (test.number !== raw.number) {
      this.#fail(what, offset, length, `return value mismatch ${test.number} != ${raw.number}`);
    }
    if (test.error !== undefined) throw test.error;
  }

  #fail(what: string, offset: number, length: number, how: string): never {
    const message = `blkverify: ${what} offset=${offset} bytes=${length} ${how}`;
    this.#context.report(message);
    this.#failure = ImageError.fromErrno("EIO", { file: this.filename, cause: message });
    throw this.#failure;
  }
}

/** How a request ended. */
interface Outcome {
  /** 0, or the error's number below zero. */
  readonly number: number;
  /** What it threw. */
  readonly error?: unknown;
}

async function outcome(request: () => Promise<void>): Promise<Outcome> {
  try {
    await request();
    return { number: 0 };
  } catch (error) {
    const { errno = "EIO" } = ImageError.from(error);
    return { number: -errnoNumber(errno), error };
  }
}
