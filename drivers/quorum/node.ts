import type { ImageDetails } from "../../lib/block/capabilities.ts";
import { closeAll } from "../../lib/block/close_all.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { NodeAccess } from "../../lib/block/mode.ts";
import type {
  BlockNode,
  Extent,
  NodeAddress,
  NodeChild,
  NodeLimits,
  ZeroFlags,
} from "../../lib/block/node.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { firstDifference } from "../../lib/bytes/equal.ts";
import { partiesOf, partiesOfBytes, winnerOf } from "./vote.ts";

/** How a quorum decides. */
export interface QuorumSettings {
  /** How many have to agree. */
  readonly threshold: number;
  /** Of two members that differ it is told where, and nothing is read any more. */
  readonly isBlkverify: boolean;
  /** Who is outvoted gets what the others have. */
  readonly rewriteCorrupted: boolean;
  /** The first member that can be read is believed. */
  readonly fifo: boolean;
}

/** How a request to a member ended. */
type Outcome = { readonly error: ImageError } | undefined;

/** Several disks that ought to be one. What is read is what enough of them say. */
export class QuorumNode implements BlockNode {
  readonly driver = "quorum";
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly fixedLength = true;
  readonly address: NodeAddress = {
    exact: undefined,
    options: {},
    noFolder: "Cannot generate a base directory for quorum nodes",
  };
  readonly lock: (access: NodeAccess) => Promise<void>;
  readonly length: number;
  readonly #members: readonly BlockNode[];
  readonly #settings: QuorumSettings;
  readonly #context: DriverContext;
  #failure: ImageError | undefined;

  /**
   * A node of `members`, which are closed with it.
   *
   * @throws {ImageError} `Could not refresh total sector count: …` if they are not of one length.
   */
  constructor(members: readonly BlockNode[], settings: QuorumSettings, context: DriverContext) {
    this.#members = members;
    this.#settings = settings;
    this.#context = context;
    this.children = members.map((node, index) => ({ name: `children.${index}`, node })).reverse();
    this.readOnly = !context.mode.writable || members.some(({ readOnly }) => readOnly);
    this.length = members[0]!.length;
    if (members.some(({ length }) => length !== this.length)) {
      throw ImageError.fromErrno("EIO", { file: context.filename })
        .prefixed("Could not refresh total sector count: ");
    }
    const largest = (of: (limits: NodeLimits) => number) =>
      Math.max(...members.map(({ limits }) => of(limits)));
    this.limits = {
      requestAlignment: largest((limits) => limits.requestAlignment),
      clusterSize: 0,
      zeroAlignment: largest((limits) => limits.zeroAlignment),
    };
    this.lock = async (access) => {
      for (const member of members) await member.lock?.(access);
    };
  }

  get filename(): string {
    return this.#context.filename;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#settings.fifo) await this.#readFirst(offset, into);
    else await this.#readAll(offset, into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    this.#requireEnough(await this.#ask((member) => member.write(offset, from)));
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    const unmap = flags.unmap && this.#context.mode.unmap;
    this.#requireEnough(
      await this.#ask((member) => member.writeZeroes(offset, length, { ...flags, unmap })),
    );
  }

  /** Members that forget in different ways would not agree any more. */
  discard(): Promise<void> {
    return Promise.resolve();
  }

  /** Zeros are where all members have them; where one that fails is asked, there are data. */
  async extent(offset: number, length: number): Promise<Extent> {
    let zero = length;
    let data = 0;
    for (const member of this.#members) {
      try {
        const run = await zeroRun(member, offset, length);
        if (run.isZero) zero = Math.min(zero, run.length);
        else data = Math.max(data, run.length);
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        data = length;
        break;
      }
    }
    return data > 0
      ? { length: data, state: "data", compressed: false }
      : { length: zero, state: "zero", compressed: false };
  }

  async flush(): Promise<void> {
    this.#requireEnough(await this.#ask((member) => member.flush()));
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  async allocatedSize(): Promise<number | undefined> {
    const sizes = await Promise.all(this.#members.map((member) => member.allocatedSize()));
    return sizes.reduce((sum, size) =>
      sum === undefined || size === undefined ? undefined : sum + size
    );
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve({});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeAll(this.#members.map((member) => () => member[Symbol.asyncDispose]()));
  }

  async #readFirst(offset: number, into: Uint8Array): Promise<void> {
    let failure: unknown;
    for (const member of this.#members) {
      try {
        return await member.read(offset, into);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  async #readAll(offset: number, into: Uint8Array): Promise<void> {
    const copies = this.#members.map((_, index) =>
      index === 0 ? into : new Uint8Array(into.length)
    );
    const outcomes = await this.#ask((member, index) => member.read(offset, copies[index]!));
    this.#requireEnough(outcomes);
    const parties = partiesOfBytes(
      copies.entries().filter(([index]) => outcomes[index] === undefined),
    );
    if (parties.length === 1) {
      into.set(parties[0]!.value);
      return;
    }
    if (this.#settings.isBlkverify) this.#tellDifference(offset, copies[0]!, copies[1]!);
    const winner = winnerOf(parties)!;
    if (winner.members.length < this.#settings.threshold) {
      throw ImageError.fromErrno("EIO", { file: this.filename });
    }
    // A copy: the array of the first member is the caller's own.
    const right = winner.value.slice();
    into.set(right);
    if (this.#settings.rewriteCorrupted) await this.#rewrite(offset, right, winner.members);
  }

  /** Whether those who were wrong can be put right or not does not change what was read. */
  async #rewrite(offset: number, right: Uint8Array, members: readonly number[]): Promise<void> {
    await this.#ask(async (member, index) => {
      if (!members.includes(index)) await member.write(offset, right);
    });
  }

  #tellDifference(offset: number, first: Uint8Array, second: Uint8Array): never {
    const at = offset + firstDifference(first, second);
    const message = `quorum: offset=${offset} bytes=${first.length} ` +
      `contents mismatch at offset ${at}`;
    this.#context.report(message);
    this.#failure = ImageError.fromErrno("EIO", { file: this.filename, cause: message });
    throw this.#failure;
  }

  /** Asks all members at once and waits for all of them. */
  async #ask(request: (member: BlockNode, index: number) => Promise<void>): Promise<Outcome[]> {
    return await Promise.all(this.#members.map(async (member, index) => {
      try {
        await request(member, index);
        return undefined;
      } catch (error) {
        return { error: ImageError.from(error) };
      }
    }));
  }

  /** @throws {ImageError} what most of the failed members say, if not enough of them did what they should. */
  #requireEnough(outcomes: readonly Outcome[]): void {
    const failures = outcomes.flatMap((outcome) => outcome === undefined ? [] : [outcome.error]);
    if (outcomes.length - failures.length >= this.#settings.threshold) return;
    const parties = partiesOf(failures.entries(), (a, b) => a.errno === b.errno);
    throw winnerOf(parties)?.value ?? ImageError.fromErrno("EIO", { file: this.filename });
  }
}

/** The first run of a disk that reads as zeros, or does not, through whatever is behind it. */
async function zeroRun(
  top: BlockNode,
  offset: number,
  length: number,
): Promise<{ readonly length: number; readonly isZero: boolean }> {
  let most = length;
  for (let image: BlockNode | null = top; image !== null;) {
    if (offset >= image.length) return { length: most, isZero: true };
    const extent = await image.extent(offset, Math.min(most, image.length - offset));
    most = extent.length;
    if (extent.state === "zero") return { length: most, isZero: true };
    if (extent.state === "data") return { length: most, isZero: extent.hole === true };
    image = image.backing?.node ?? null;
  }
  return { length: most, isZero: true };
}
