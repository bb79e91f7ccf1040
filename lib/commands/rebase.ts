import { rebaseImage } from "../ops/rebase.ts";
import { type Command, defineCommand, UsageError } from "./_command.ts";
import {
  cacheMode,
  cacheOption,
  environmentOf,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  PROGRESS_HELP,
  PROGRESS_STYLES,
  QUIET,
  UNTRUSTED,
} from "./_options.ts";

/** `qimg rebase`: changes the backing file of an image (cli.md, 13.5). */
export const rebase: Command = defineCommand({
  name: "rebase",
  description: "Change the backing file of an image",
  synopsis: [
    "[-f FMT | --image-opts] [-t CACHE] [-b BACKING [-F BACKING_FMT]] [-T CACHE]",
    "[-u] [-c] [-U] [-p] [-q] [--object OBJECT] [--untrusted] FILENAME",
  ],
  options: {
    quiet: QUIET,
    format: FORMAT,
    imageOpts: IMAGE_OPTS,
    cache: cacheOption("t", "cache", "how the host caches FILENAME, default writeback"),
    backing: {
      short: "b",
      long: ["backing"],
      value: "BACKING",
      help: ["the new backing file; '' for none"],
    },
    backingFormat: {
      short: "F",
      long: ["backing-format"],
      value: "BACKING_FMT",
      help: ["its format"],
    },
    backingCache: cacheOption(
      "T",
      "backing-cache",
      "how the host caches the new backing file, default writeback",
    ),
    unsafe: {
      short: "u",
      long: ["backing-unsafe"],
      help: [
        "change nothing but the name that is stored; the content changes unless",
        "both files are the same. Without -b: forget the backing file",
      ],
    },
    compress: {
      short: "c",
      long: ["compress"],
      help: ["write compressed clusters"],
    },
    forceShare: {
      ...FORCE_SHARE,
      help: ["open the new backing file even if others write to it meanwhile"],
    },
    progress: {
      short: "p",
      long: ["progress"],
      attached: PROGRESS_STYLES,
      help: PROGRESS_HELP,
    },
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image whose backing file is changed"] }],
  access: ({ backing, unsafe }, [filename]) => ({
    reads: unsafe ? [] : [backing],
    writes: [filename],
  }),
  async run(ctx) {
    const { quiet, backing, unsafe, cache, backingCache } = ctx.options;
    const filename = onlyImage(ctx.operands);
    if (!unsafe && backing === undefined) {
      throw new UsageError("Must specify backing file (-b) or use unsafe mode (-u)");
    }
    using progress = await ctx.progress({ style: ctx.options.progress, step: 2, quiet });
    progress.report(0);
    await rebaseImage({
      filename,
      format: ctx.options.format,
      imageOptions: ctx.options.imageOpts,
    }, {
      backing,
      backingFormat: ctx.options.backingFormat,
      unsafe,
      compress: ctx.options.compress,
      forceShare: ctx.options.forceShare,
      cache: cacheMode(cache ?? "writeback"),
      backingCache: cacheMode(backingCache ?? "writeback", { source: true }),
      onProgress: progress.report,
    }, environmentOf(ctx, ctx.options));
    return 0;
  },
});
