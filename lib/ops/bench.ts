/**
 * Measuring how many requests a second an image answers. Command-line reference, section 13.2.
 *
 * @module
 */
import { ImageError, reasonText } from "../block/error.ts";
import { type CacheMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { requireRange } from "../block/range.ts";
import { alignUp } from "../bytes/align.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import { alignedBytes } from "../io/aligned_buffer.ts";
import { breathe } from "./copy/pace.ts";
import { Latencies } from "./latencies.ts";
import { RequestQueue } from "./request_queue.ts";

/** Which requests, and how many. */
export interface BenchOptions {
  /** Writing instead of reading: what the image holds there is lost. */
  readonly write?: boolean;
  /** Requests in all, default 75000. */
  readonly count?: number;
  /**
   * Requests at a time, default 64. There are never more than 64, as many as the reference's pool has
   * threads, and fewer if their buffers would need more than 256 MiB.
   */
  readonly depth?: number;
  /** Where the first one begins, bytes, default 0. */
  readonly offset?: number;
  /** Bytes of a request, default 4096. */
  readonly bufferSize?: number;
  /**
   * Bytes from the begin of a request to that of the next one, which wraps around at the end of the disk;
   * by default, and if it is 0, the size of a request.
   */
  readonly stepSize?: number;
  /** The byte that is written, default 0. */
  readonly pattern?: number;
  /** A flush after as many writes, and after the last one; 0, the default, for none. */
  readonly flushInterval?: number;
  /** Whether a flush waits for the requests before it, and those after it wait for the flush; default true. */
  readonly drain?: boolean;
  /** How the host caches the image, default writeback. */
  readonly cache?: CacheMode;
  /** Files have to be open for direct I/O, as the host's own asynchronous requests would need. */
  readonly nativeAio?: boolean;
  /** `-U`. */
  readonly forceShare?: boolean;
  /** Called once the image is open and before the first request. */
  readonly onStart?: () => void;
}

/** How long the requests took. Flushes take part in {@linkcode seconds} alone. */
export interface BenchResult {
  /** From the first request to the end of the last one. */
  readonly seconds: number;
  /** Requests that were answered. */
  readonly count: number;
  /** Times from a request to its answer, nanoseconds. */
  readonly latency: {
    /** The shortest. */
    readonly min: number;
    /** The mean. */
    readonly mean: number;
    /** The longest. */
    readonly max: number;
    /** What that many percent did not exceed, 1.6% too much at most. */
    readonly percentiles: readonly (readonly [percent: number, nanoseconds: number])[];
  };
}

/** Requests at a time. */
const MOST_SLOTS = 64;

/** Bytes that the buffers of all requests take together, unless one takes more. */
const MOST_MEMORY = 256 << 20;

/** What a result tells of latencies. */
const PERCENTILES = [50, 90, 95, 99, 99.9, 99.99];

/** Milliseconds after which signals get through. */
const BREATH = 20;

/**
 * Sends requests to an image and measures how long they take.
 *
 * With several at a time, what lies plainly in local files is read and written through handles of their
 * own, one a request, so that a device has all of them to do; what the page cache has this thread copies
 * by turns with those that wait for devices. One after the other, and what only the image itself can read
 * or write, they are the image's.
 *
 * ```ts
 * import { benchImage, createImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * const { count, latency } = await benchImage({ filename }, { count: 1000, depth: 4, write: true });
 * assertEquals([count, latency.min <= latency.max], [1000, true]);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Failed request: …`, `Failed flush request: …`, and what opening throws.
 */
export async function benchImage(
  image: ImageReference,
  options: BenchOptions = {},
  environment: Environment = QUIET,
): Promise<BenchResult> {
  const { write = false, forceShare = false, cache = READ_ONLY.cache, nativeAio = false } = options;
  const mode = { ...READ_ONLY, writable: write, forceShare, cache, nativeAio };
  await using node = await openImage(image, mode, environment);
  options.onStart?.();
  const latencies = new Latencies();
  using bench = await Bench.prepare(node, options, latencies, environment.signal);
  const started = performance.now();
  await bench.run();
  const seconds = (performance.now() - started) / 1000;
  // Not the node but others have written; on closing it would see no need for it.
  if (write) await node.flush();
  const { count, min, mean, max } = latencies;
  const percentiles = PERCENTILES.map((percent) =>
    [percent, latencies.percentile(percent)] as const
  );
  return { seconds, count, latency: { min, mean, max, percentiles } };
}

/** One run. */
class Bench implements Disposable {
  readonly #node: BlockNode;
  readonly #write: boolean;
  readonly #count: number;
  readonly #step: number;
  readonly #size: number;
  /** Of the disk, which no request changes. */
  readonly #length: number;
  readonly #flushInterval: number;
  readonly #drain: boolean;
  /** One a slot for reading; all writes are of the same bytes. */
  readonly #buffers: readonly Uint8Array[];
  readonly #queue: RequestQueue | undefined;
  readonly #latencies: Latencies;
  readonly #signal: AbortSignal | undefined;
  #offset: number;
  #issued = 0;
  #pending = 0;
  /** Until the requests on their way are done and flushed. */
  #drained: PromiseWithResolvers<void> | undefined;
  readonly #flushes: Promise<void>[] = [];
  #lastBreath = performance.now();
  #isStopped = false;

  private constructor(
    node: BlockNode,
    options: BenchOptions,
    { buffers, queue, latencies, signal }: {
      readonly buffers: readonly Uint8Array[];
      readonly queue: RequestQueue | undefined;
      readonly latencies: Latencies;
      readonly signal: AbortSignal | undefined;
    },
  ) {
    const { write = false, count = 75000, offset = 0, bufferSize = 4096, stepSize = 0 } = options;
    this.#node = node;
    this.#write = write;
    this.#count = count;
    this.#offset = offset;
    this.#size = bufferSize;
    this.#length = node.length;
    this.#step = stepSize === 0 ? bufferSize : stepSize;
    this.#flushInterval = write ? options.flushInterval ?? 0 : 0;
    this.#drain = options.drain ?? true;
    this.#buffers = buffers;
    this.#queue = queue;
    this.#latencies = latencies;
    this.#signal = signal;
  }

  /** Provides buffers and handles. */
  static async prepare(
    node: BlockNode,
    options: BenchOptions,
    latencies: Latencies,
    signal: AbortSignal | undefined,
  ): Promise<Bench> {
    const { write = false, count = 75000, depth = 64, offset = 0, bufferSize = 4096 } = options;
    const stride = alignUp(bufferSize, PAGE);
    const fitting = write ? MOST_SLOTS : Math.max(Math.floor(MOST_MEMORY / stride), 1);
    const slots = Math.min(depth, count, MOST_SLOTS, fitting);
    try {
      // Before memory is taken for nothing.
      requireRange(node, offset, bufferSize);
      const buffers = provideBuffers(write ? 1 : slots, bufferSize, stride);
      buffers[0]!.fill(write ? options.pattern ?? 0 : 0);
      const all = Array.from({ length: slots }, (_, slot) => buffers[write ? 0 : slot]!);
      const queue = slots > 1 ? await RequestQueue.open(node, slots, write) : undefined;
      return new Bench(node, options, { buffers: all, queue, latencies, signal });
    } catch (error) {
      throw failedRequest("request", error);
    }
  }

  /** Sends all requests. */
  async run(): Promise<void> {
    const slots = this.#buffers.map((buffer, slot) => this.#serve(slot, buffer));
    const outcomes = await Promise.allSettled(slots);
    // Those that were sent without waiting for them.
    outcomes.push(...await Promise.allSettled(this.#flushes));
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") throw outcome.reason;
    }
  }

  /** Closes the handles. */
  [Symbol.dispose](): void {
    this.#queue?.[Symbol.dispose]();
  }

  /** Sends one request after the other. */
  async #serve(slot: number, buffer: Uint8Array): Promise<void> {
    try {
      let now = performance.now();
      while (!this.#isStopped) {
        if (this.#drained !== undefined) {
          await this.#drained.promise;
          now = performance.now();
          continue;
        }
        if (this.#issued === this.#count) return;
        if (now - this.#lastBreath > BREATH) {
          await this.#breathe(now);
          now = performance.now();
          continue;
        }
        const offset = this.#offset;
        this.#offset = (offset + this.#step) % this.#length;
        this.#issued++;
        this.#pending++;
        const flush = this.#isTimeToFlush();
        if (flush && this.#drain) this.#drained = Promise.withResolvers();
        const started = now;
        try {
          const answer = this.#request(slot, offset, buffer);
          const count = answer instanceof Promise ? await answer : answer;
          if (count !== this.#size) await this.#requestThrough(offset, buffer);
        } catch (error) {
          await this.#requestAgain(error, offset, buffer);
        } finally {
          this.#pending--;
        }
        now = performance.now();
        this.#latencies.add((now - started) * 1e6);
        if (flush && !this.#drain) this.#flushAlong();
        if (this.#drained !== undefined && this.#pending === 0) await this.#flushDrained();
      }
    } catch (error) {
      this.#isStopped = true;
      this.#drained?.resolve();
      throw error;
    }
  }

  /** While all requests are answered at once, nothing else is heard. */
  async #breathe(now: number): Promise<void> {
    this.#lastBreath = now;
    await breathe();
    this.#signal?.throwIfAborted();
  }

  #isTimeToFlush(): boolean {
    const interval = this.#flushInterval;
    return interval > 0 && (this.#issued % interval === 0 || this.#issued === this.#count);
  }

  async #flushDrained(): Promise<void> {
    try {
      await this.#node.flush();
    } catch (error) {
      throw failedRequest("request", error);
    }
    this.#drained!.resolve();
    this.#drained = undefined;
  }

  #flushAlong(): void {
    const flush = this.#node.flush().catch((error) => {
      this.#isStopped = true;
      throw failedRequest("flush request", error);
    });
    // It is looked at in the end.
    flush.catch(() => {});
    this.#flushes.push(flush);
  }

  /** Answers with the bytes that were read or written; throws whatever. */
  #request(
    slot: number,
    offset: number,
    buffer: Uint8Array,
  ): Promise<number | null> | number | null {
    if (this.#queue === undefined || offset + this.#size > this.#length) {
      return this.#requestThrough(offset, buffer);
    }
    return this.#write
      ? this.#queue.write(slot, offset, buffer)
      : this.#queue.read(slot, offset, buffer);
  }

  /** The same by the image itself. */
  async #requestThrough(offset: number, buffer: Uint8Array): Promise<number> {
    requireRange(this.#node, offset, this.#size);
    await (this.#write ? this.#node.write(offset, buffer) : this.#node.read(offset, buffer));
    return this.#size;
  }

  /** What a handle could not do the image may, or knows what to say of it. */
  async #requestAgain(failure: unknown, offset: number, buffer: Uint8Array): Promise<void> {
    try {
      if (failure instanceof ImageError) throw failure;
      await this.#requestThrough(offset, buffer);
    } catch (error) {
      throw failedRequest("request", error);
    }
  }
}

const PAGE = 4096;

/** Buffers that begin on pages, which direct I/O needs and the system copies to faster. */
function provideBuffers(count: number, length: number, stride: number): Uint8Array[] {
  try {
    if (count * stride > MOST_MEMORY) return [new Uint8Array(length)];
    const memory = alignedBytes(count * stride);
    return Array.from(
      { length: count },
      (_, index) => memory.subarray(index * stride, index * stride + length),
    );
  } catch (error) {
    if (error instanceof RangeError) throw ImageError.fromErrno("ENOMEM", { cause: error });
    throw error;
  }
}

function failedRequest(what: "request" | "flush request", error: unknown): ImageError {
  const { errno, file, field } = ImageError.from(error);
  return new ImageError(`Failed ${what}: ${reasonText(error)}`, {
    errno,
    file,
    field,
    cause: error,
  });
}
