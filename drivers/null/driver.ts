/**
 * The protocols that store nothing: what is written is gone, what is read is zeros.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type {
  BlockNode,
  Extent,
  NodeAddress,
  NodeChild,
  NodeLimits,
} from "../../lib/block/node.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { alignUp } from "../../lib/bytes/align.ts";

const SECTOR = 512;
const DEFAULT_SIZE = 2 ** 30;

const SIZE = "size";
const ZEROES = "read-zeroes";
const LATENCY = "latency-ns";

const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: SIZE, type: "size", help: "Virtual disk size", strong: true },
  { name: ZEROES, type: "bool", help: "Say that everything reads as zeros", strong: true },
  { name: LATENCY, type: "num", help: "How long a request takes, nanoseconds" },
];

/** `null-co`. */
export const nullCo: ProtocolDriver = nullDriver("null-co");

/** `null-aio`, which is the same here. */
export const nullAio: ProtocolDriver = nullDriver("null-aio");

function nullDriver(name: string): ProtocolDriver {
  return {
    name,
    openOptions: OPEN_OPTIONS,
    open(filename, context, options = new OptionSet(OPEN_OPTIONS)) {
      try {
        return Promise.resolve(openNode(name, filename, context, options));
      } catch (error) {
        return Promise.reject(error);
      }
    },
  };
}

function openNode(
  driver: string,
  filename: string,
  context: DriverContext,
  options: OptionSet,
): BlockNode {
  const name = `${driver}://`;
  const refuse = (message: string, field?: string) =>
    new ImageError(message, { errno: "EINVAL", file: name, ...(field && { field }) });
  if (filename !== "" && filename !== name) {
    throw refuse(`The only allowed filename for this driver is '${name}'`);
  }
  const size = options.number(SIZE) ?? DEFAULT_SIZE;
  if (size > Number.MAX_SAFE_INTEGER - SECTOR) throw refuse("size is invalid", SIZE);
  const latency = BigInt.asIntN(64, options.exact(LATENCY) ?? 0n);
  if (latency < 0n) throw refuse("latency-ns is invalid", LATENCY);
  const isExact = !options.has(SIZE) && !options.has(ZEROES);
  return new NullNode(context, {
    driver,
    size,
    latency: Number(latency) / 1e6,
    saysZero: options.flag(ZEROES),
    address: {
      exact: isExact ? name : undefined,
      options: filename === "" ? {} : { filename },
    },
  });
}

/** What a node is made from. */
interface NullSettings {
  readonly driver: string;
  /** Bytes. */
  readonly size: number;
  /** How long a request takes, milliseconds. */
  readonly latency: number;
  /** The node says that it reads as zeros. */
  readonly saysZero: boolean;
  readonly address: NodeAddress;
}

class NullNode implements BlockNode {
  readonly driver: string;
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits = { requestAlignment: 1, clusterSize: 0, zeroAlignment: 0 };
  readonly children: readonly NodeChild[] = [];
  readonly address: NodeAddress;
  readonly fixedLength = true;
  readonly exactLength: number;
  readonly #context: DriverContext;
  readonly #latency: number;
  readonly #saysZero: boolean;

  constructor(context: DriverContext, settings: NullSettings) {
    this.#context = context;
    this.driver = settings.driver;
    this.readOnly = !context.mode.writable;
    this.exactLength = settings.size;
    this.length = alignUp(settings.size, SECTOR);
    this.address = settings.address;
    this.#latency = settings.latency;
    this.#saysZero = settings.saysZero;
  }

  /** It is known for good only once the node is open. */
  get filename(): string {
    return this.#context.filename;
  }

  /** Zeros, also where the node does not promise them: a buffer's old bytes are nobody's business. */
  async read(_offset: number, into: Uint8Array): Promise<void> {
    await this.#pass();
    into.fill(0);
  }

  async write(): Promise<void> {
    requireWritable(this);
    await this.#pass();
  }

  async writeZeroes(): Promise<void> {
    requireWritable(this);
    await this.#pass();
  }

  discard(): Promise<void> {
    return Promise.resolve();
  }

  extent(offset: number, length: number): Promise<Extent> {
    return Promise.resolve(
      this.#saysZero
        ? { length, state: "zero", compressed: false, file: this, offset }
        : { length, state: "data", compressed: false, unknown: true },
    );
  }

  async flush(): Promise<void> {
    if (this.#context.mode.cache.noFlush) return;
    await this.#pass();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number> {
    return Promise.resolve(0);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  /** Takes as long as a request is to take. Requests at the same time wait at the same time. */
  async #pass(): Promise<void> {
    if (this.#latency === 0) return;
    await new Promise((resolve) => setTimeout(resolve, this.#latency));
  }
}
