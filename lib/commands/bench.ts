import type { JsonValue } from "../bytes/json.ts";
import { CACHE_MODES, type CacheMode } from "../block/mode.ts";
import { benchImage, type BenchResult } from "../ops/bench.ts";
import { type Command, CommandError, defineCommand } from "./_command.ts";
import {
  environmentOf,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  onlyImage,
  OUTPUT,
  readExactSize,
  readInteger,
  readSize,
  UNTRUSTED,
} from "./_options.ts";

/** What numbers of C's type `int` reach. */
const INT_MAX = 2 ** 31 - 1;

const AIO_MODES = ["threads", "native", "io_uring"];

/** `qimg bench`: measures how fast an image answers (cli.md, 13.2). */
export const bench: Command = defineCommand({
  name: "bench",
  description: "Measure how many requests a second an image answers",
  synopsis: [
    "[--image-opts | -f FMT] [-c COUNT] [-d DEPTH] [-i AIO] [-n] [-o OFFSET]",
    "[-s BUFFER_SIZE] [-S STEP_SIZE] [-t CACHE]",
    "[-w [--pattern BYTE] [--flush-interval INTERVAL [--no-drain]]]",
    "[--output human|json] [-q] [-U] [--untrusted] FILENAME",
  ],
  options: {
    count: {
      short: "c",
      long: ["count"],
      value: "COUNT",
      help: ["requests in all, default 75000"],
      parse: (text: string) => readInteger("request count", text, { min: 1, max: INT_MAX }),
    },
    depth: {
      short: "d",
      long: ["depth"],
      value: "DEPTH",
      help: ["requests at a time, default 64"],
      parse: (text: string) => readInteger("queue depth", text, { min: 1, max: INT_MAX }),
    },
    format: FORMAT,
    aio: {
      short: "i",
      long: ["aio"],
      value: "AIO",
      help: [
        "threads (the default), native or io_uring: requests are made in the same",
        "way with all; native wants a cache mode that passes by the host's cache",
      ],
      parse(text: string, previous: unknown): string {
        if (!AIO_MODES.includes(text)) throw new CommandError(`Invalid aio option: ${text}`);
        // Nothing takes it back.
        return previous === "native" ? previous : text;
      },
    },
    native: { short: "n", long: ["native"], help: ["the same as -i native"] },
    offset: {
      short: "o",
      long: ["offset"],
      value: "OFFSET",
      help: ["where the first request begins, default 0"],
      parse: (text: string) => readExactSize("offset", text),
    },
    bufferSize: {
      short: "s",
      long: ["buffer-size"],
      value: "BUFFER_SIZE",
      help: ["bytes of a request, default 4096"],
      parse: (text: string) => readSize("buffer size", text, { min: 1, max: INT_MAX }),
    },
    stepSize: {
      short: "S",
      long: ["step-size"],
      value: "STEP_SIZE",
      help: ["bytes from one request to the next, default BUFFER_SIZE"],
      parse: (text: string) => readSize("step size", text, { max: INT_MAX }),
    },
    cache: {
      short: "t",
      long: ["cache"],
      value: "CACHE",
      help: [
        "how FILENAME is cached by the host, default writeback",
        "(writeback, none, writethrough, directsync, unsafe)",
      ],
      parse(text: string): CacheMode {
        const mode = Object.hasOwn(CACHE_MODES, text) ? CACHE_MODES[text] : undefined;
        if (mode === undefined) throw new CommandError("Invalid cache mode");
        return mode;
      },
    },
    write: {
      short: "w",
      long: ["write"],
      help: ["write, and lose what FILENAME holds; without it, read"],
    },
    pattern: {
      long: ["pattern"],
      value: "BYTE",
      help: ["what is written, default 0"],
      parse: (text: string) => readInteger("pattern byte", text, { max: 255 }),
    },
    flushInterval: {
      long: ["flush-interval"],
      value: "INTERVAL",
      help: ["flush after as many requests, default 0: never"],
      parse: (text: string) => readInteger("flush interval", text, { max: INT_MAX }),
    },
    noDrain: {
      long: ["no-drain"],
      help: ["send flushes and requests without waiting for one another"],
    },
    output: { ...OUTPUT, exact: true },
    quiet: { short: "q", help: ["accepted, and changes nothing"] },
    forceShare: FORCE_SHARE,
    imageOpts: IMAGE_OPTS,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image to measure"] }],
  access: ({ write }, [filename]) => write ? { writes: [filename] } : { reads: [filename] },
  async run(ctx) {
    const { format, output = "human", imageOpts, forceShare, write, cache, noDrain } = ctx.options;
    const { count = 75000, depth = 64, offset = 0n, bufferSize = 4096, pattern = 0 } = ctx.options;
    const { flushInterval = 0 } = ctx.options;
    const filename = onlyImage(ctx.operands);
    const stepSize = ctx.options.stepSize || bufferSize;
    if (flushInterval > 0 && !write) {
      throw new CommandError("--flush-interval is only available in write tests");
    }
    if (flushInterval > 0 && flushInterval < depth) {
      throw new CommandError("Flush interval can't be smaller than depth");
    }
    const kind = write ? "write" : "read";
    const result = await benchImage(
      { filename, format, imageOptions: imageOpts },
      {
        write,
        count,
        depth,
        offset: Number(offset),
        bufferSize,
        stepSize,
        pattern,
        flushInterval,
        drain: !noDrain,
        ...(cache === undefined ? {} : { cache }),
        nativeAio: ctx.options.native || ctx.options.aio === "native",
        forceShare,
        onStart() {
          if (output === "json") return;
          ctx.out(
            `Sending ${count} ${kind} requests, ${bufferSize} bytes each, ${depth} in parallel ` +
              `(starting at offset ${offset}, step size ${stepSize})\n`,
          );
          if (flushInterval > 0) ctx.out(`Sending flush every ${flushInterval} requests\n`);
          // Who watches sees what takes so long.
          ctx.flush();
        },
      },
      environmentOf(ctx, ctx.options),
    );
    if (output === "human") {
      ctx.out(`Run completed in ${result.seconds.toFixed(3)} seconds.\n`);
    } else {
      ctx.json({
        operation: kind,
        "buffer-size": bufferSize,
        depth,
        offset: Number(offset),
        "step-size": stepSize,
        ...shownResult(result, bufferSize),
      });
    }
    return 0;
  },
});

/** Rates a second; times in nanoseconds. */
function shownResult(
  { seconds, count, latency }: BenchResult,
  bufferSize: number,
): Record<string, JsonValue> {
  const { min, mean, max, percentiles } = latency;
  return {
    requests: count,
    bytes: count * bufferSize,
    "seconds": seconds,
    "requests-per-second": Math.round(count / seconds),
    "bytes-per-second": Math.round(count * bufferSize / seconds),
    "latency-ns": {
      min,
      mean: Math.round(mean),
      max,
      ...Object.fromEntries(percentiles.map(([percent, value]) => [`p${percent}`, value])),
    },
  };
}
