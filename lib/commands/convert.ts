import { DEFAULT_FORMAT } from "../../drivers/mod.ts";
import { splitOptions } from "../block/options.ts";
import { convertImage } from "../ops/convert.ts";
import { describeCreateOptions } from "../ops/create.ts";
import { type Command, CommandError, defineCommand, type ParsedOptions } from "./_command.ts";
import { optionHelp } from "./_format.ts";
import {
  addOptionList,
  asksForHelp,
  cacheMode,
  cacheOption,
  environmentOf,
  filesInOptions,
  FORCE_SHARE,
  OBJECT,
  PROGRESS_HELP,
  PROGRESS_STYLES,
  QUIET,
  readInteger,
  readSize,
  UNTRUSTED,
} from "./_options.ts";
import { readSelector, SNAPSHOT } from "./_snapshot.ts";

const SECTOR = 512;
const SPARSE_MAX = 16 * 1024 * 1024;

const OPTIONS = {
  quiet: QUIET,
  format: {
    short: "f",
    long: ["source-format"],
    value: "FMT",
    help: ["format of the sources; without it their content decides"],
  },
  imageOpts: {
    long: ["source-image-opts", "image-opts"],
    help: ["the SOURCEs are lists of options, key=value,..., and no names"],
  },
  targetImageOpts: {
    long: ["target-image-opts"],
    help: ["TARGET is a list of options, key=value,..., and no name (with -n)"],
  },
  sourceCache: cacheOption(
    "T",
    "source-cache",
    "how the host caches the sources, default writeback",
  ),
  snapshot: SNAPSHOT,
  snapshotName: {
    short: "s",
    value: "SNAPSHOT",
    // The name that -l had before; not listed.
  },
  sparseSize: {
    short: "S",
    long: ["sparse-size"],
    value: "SIZE",
    help: ["smallest run of zeros that is left out, default 4k; 0 writes all zeros"],
    parse: readSparseSize,
  },
  targetFormat: {
    short: "O",
    long: ["output-format"],
    value: "TARGET_FMT",
    help: ["format of TARGET, default raw"],
  },
  options: {
    short: "o",
    long: ["options"],
    value: "OPTIONS",
    help: ["options of the target's format, key=value,...; 'help' lists them"],
    parse: addOptionList,
  },
  targetCache: cacheOption("t", "output-cache", "how the host caches the target, default unsafe"),
  backing: {
    short: "B",
    long: ["backing"],
    value: "BACKING",
    help: ["file that shows through where the target holds nothing"],
  },
  backingFormat: {
    short: "F",
    long: ["backing-format"],
    value: "BACKING_FMT",
    help: ["format of BACKING"],
  },
  forceShare: FORCE_SHARE,
  salvage: {
    long: ["salvage"],
    help: ["go on after read errors; what cannot be read becomes zeros"],
  },
  targetIsZero: {
    long: ["target-is-zero"],
    help: ["the existing target reads as zeros everywhere (with -n)"],
  },
  rateLimit: {
    short: "r",
    long: ["rate"],
    value: "RATE",
    help: ["most bytes to write in a second"],
    parse: (text: string) => readSize("rate limit", text),
  },
  parallel: {
    short: "m",
    long: ["parallel"],
    value: "NUMBER",
    help: ["requests at a time, 1 to 16, default 8"],
    parse: (text: string) => readInteger("number of coroutines", text, { min: 1, max: 16 }),
  },
  outOfOrder: {
    short: "W",
    long: ["oob-writes"],
    help: ["write as data comes, not from begin to end"],
  },
  copyRange: {
    short: "C",
    long: ["copy-range-offloading"],
    help: ["let the host copy where it can"],
  },
  compress: {
    short: "c",
    help: ["write compressed clusters"],
  },
  compressionLevel: {
    long: ["compression-level"],
    exact: true,
    value: "LEVEL",
    help: ["how hard to try with -c: 1 to 9, or 1 to 22 with zstd"],
    parse: (text: string) => readInteger("compression level", text, { min: 1, max: 22 }),
  },
  noCreate: {
    short: "n",
    help: ["write to a target that exists"],
  },
  bitmaps: {
    long: ["bitmaps"],
    help: ["copy the dirty bitmaps of SOURCE, too"],
  },
  skipBrokenBitmaps: {
    long: ["skip-broken-bitmaps"],
    help: ["leave out bitmaps that were not closed properly (with --bitmaps)"],
  },
  progress: {
    short: "p",
    long: ["progress"],
    exact: true,
    attached: PROGRESS_STYLES,
    help: PROGRESS_HELP,
  },
  objects: OBJECT,
  untrusted: UNTRUSTED,
} as const;

/** `qimg convert`: copies images to a new one, in the same or another format (cli.md, 12.3). */
export const convert: Command = defineCommand({
  name: "convert",
  description: "Copy images to a new one, in the same or another format",
  synopsis: [
    "[--image-opts | -f FMT] [-T CACHE] [-l SNAPSHOT] [-O TARGET_FMT] [-t CACHE] [-o OPTIONS]",
    "[-B BACKING [-F BACKING_FMT]] [-n [--target-image-opts] [--target-is-zero]]",
    "[-c [--compression-level LEVEL]] [-S SIZE] [-r RATE] [-m NUMBER] [-W] [-C]",
    "[--bitmaps [--skip-broken-bitmaps]]",
    "[--salvage] [-U] [-p] [-q] [--object OBJECT] [--untrusted] SOURCE [SOURCE2 ...] TARGET",
  ],
  options: OPTIONS,
  operands: [
    { name: "SOURCE [SOURCE2 ...]", help: ["images to copy, one behind the other"] },
    { name: "TARGET", help: ["image to make; what is there already is lost (without -n)"] },
  ],
  access({ backing, options }, operands) {
    const named = filesInOptions(options);
    return {
      reads: [...operands.slice(0, -1), backing, ...named.reads],
      writes: [...operands.slice(-1), ...named.writes],
    };
  },
  async run(ctx) {
    const {
      quiet,
      format,
      sourceCache = "writeback",
      imageOpts: imageOptions,
      targetImageOpts,
      targetCache = "unsafe",
      options: list,
    } = ctx.options;
    const targetFormat = ctx.options.targetFormat ??
      (targetImageOpts ? undefined : DEFAULT_FORMAT);
    const { snapshot = [], snapshotName } = ctx.options;
    const selected = readSelector(
      ctx,
      snapshotName === undefined ? snapshot : [snapshotName, ...snapshot],
    );
    refuseContradictions(ctx.options);
    if (asksForHelp(list)) {
      if (targetFormat === undefined) {
        throw new CommandError("Option help requires a format be specified");
      }
      // The last of several operands is the target; a single one is a source.
      const target = ctx.operands.length > 1 ? ctx.operands.at(-1) : undefined;
      ctx.out(optionHelp(await describeCreateOptions(targetFormat, target), targetFormat, target));
      return 0;
    }
    const target = ctx.operands.at(-1);
    const sources = ctx.operands.slice(0, -1);
    if (target === undefined || sources.length === 0) {
      throw new CommandError("Must specify image file name");
    }
    const sourceMode = cacheMode(sourceCache, { source: true });
    using progress = await ctx.progress({ style: ctx.options.progress, step: 1, quiet });
    progress.report(0);
    await convertImage({
      sources: sources.map((filename) => ({ filename, format, imageOptions })),
      snapshot: selected,
      target,
      targetImageOptions: targetImageOpts,
      targetFormat,
      options: splitOptions(list ?? ""),
      backing: ctx.options.backing,
      backingFormat: ctx.options.backingFormat,
      compress: ctx.options.compress,
      compressionLevel: ctx.options.compressionLevel,
      noCreate: ctx.options.noCreate,
      targetIsZero: ctx.options.targetIsZero,
      sparseSize: ctx.options.sparseSize,
      parallel: ctx.options.parallel,
      outOfOrder: ctx.options.outOfOrder,
      rateLimit: ctx.options.rateLimit,
      salvage: ctx.options.salvage,
      quiet,
      copyRange: ctx.options.copyRange,
      forceShare: ctx.options.forceShare,
      bitmaps: ctx.options.bitmaps,
      skipBrokenBitmaps: ctx.options.skipBrokenBitmaps,
      onProgress: (fraction, totalBytes) => {
        // The begin is shown once, before anything is opened.
        if (fraction > 0) progress.report(fraction, totalBytes);
      },
      sourceCache: sourceMode,
      get targetCache() {
        // A wrong name is found when the target's turn comes, after the sources.
        return cacheMode(targetCache);
      },
    }, environmentOf(ctx, ctx.options));
    return 0;
  },
});

function readSparseSize(text: string): number {
  const size = readSize("buffer size for sparse output", text);
  if (size % SECTOR !== 0 || size > SPARSE_MAX) {
    throw new CommandError(
      "Invalid buffer size for sparse output specified. Valid sizes are multiples of " +
        `${SECTOR} up to ${SPARSE_MAX}. Select 0 to disable sparse detection (fully allocates output).`,
    );
  }
  return size;
}

function refuseContradictions(options: ParsedOptions<typeof OPTIONS>): void {
  // In the order in which the reference finds them.
  const contradictions: readonly (readonly [boolean, string])[] = [
    [
      options.skipBrokenBitmaps && !options.bitmaps,
      "Use of --skip-broken-bitmaps requires --bitmaps",
    ],
    [
      options.copyRange && options.compress,
      "Cannot enable copy offloading when -c is used",
    ],
    [
      options.copyRange && options.sparseSize !== undefined,
      "Cannot enable copy offloading when -S is used",
    ],
    [
      options.copyRange && options.salvage,
      "Cannot use copy offloading in salvaging mode",
    ],
    [
      options.noCreate && options.options !== undefined,
      "-o has no effect when skipping image creation",
    ],
    [
      options.targetImageOpts && !options.noCreate,
      "--target-image-opts requires use of -n flag",
    ],
    [
      options.targetIsZero && !options.noCreate,
      "--target-is-zero requires use of -n flag",
    ],
  ];
  for (const [holds, message] of contradictions) {
    if (holds) throw new CommandError(message);
  }
}
