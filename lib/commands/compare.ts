import { CompareError, compareImages, type CompareResult } from "../ops/compare.ts";
import { type Command, CommandError, defineCommand, UsageError } from "./_command.ts";
import {
  cacheMode,
  cacheOption,
  environmentOf,
  FORCE_SHARE,
  IMAGE_OPTS,
  objectOption,
  PROGRESS_HELP,
  PROGRESS_STYLES,
  QUIET,
  UNTRUSTED,
} from "./_options.ts";

const EXIT_DIFFERENT = 1;
const EXIT_CANNOT_OPEN = 2;

/** `qimg compare`: compares the contents of two images (cli.md, 12.2). */
export const compare: Command = defineCommand({
  name: "compare",
  description: "Compare the contents of two images",
  synopsis: [
    "[--image-opts | [-f FMT] [-F FMT]] [-T CACHE] [-s] [-p] [-q] [-U] [--object OBJECT] [--untrusted]",
    "FILENAME1 FILENAME2",
  ],
  options: {
    quiet: QUIET,
    cache: cacheOption("T", "cache", "how the host caches the images, default writeback"),
    leftFormat: {
      short: "f",
      long: ["a-format", "left-format"],
      value: "FMT",
      help: ["format of FILENAME1; without it the content decides"],
    },
    rightFormat: {
      short: "F",
      long: ["b-format", "right-format"],
      value: "FMT",
      help: ["format of FILENAME2; without it the content decides"],
    },
    forceShare: FORCE_SHARE,
    strict: {
      short: "s",
      long: ["strict"],
      help: ["sizes, and what is allocated, have to agree too"],
    },
    progress: {
      short: "p",
      long: ["progress"],
      attached: PROGRESS_STYLES,
      help: PROGRESS_HELP,
    },
    imageOpts: {
      ...IMAGE_OPTS,
      help: ["both FILENAMEs are lists of options, key=value,..., and no names"],
    },
    objects: objectOption({ exitCode: EXIT_CANNOT_OPEN }),
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME1, FILENAME2", help: ["images to compare"] }],
  access: (_, operands) => ({ reads: operands }),
  async run(ctx) {
    const { quiet, cache, strict, forceShare, imageOpts: imageOptions } = ctx.options;
    const [left, right, extra] = ctx.operands;
    if (left === undefined || right === undefined || extra !== undefined) {
      throw new UsageError("Expecting two image file names");
    }
    using progress = await ctx.progress({ style: ctx.options.progress, step: 2, quiet });
    const print = quiet ? () => {} : ctx.out;
    let warned = false;
    const warnOfSizes = () => {
      if (!warned) print("Warning: Image size mismatch!\n");
      warned = true;
    };
    try {
      const result = await compareImages(
        { filename: left, format: ctx.options.leftFormat, imageOptions },
        { filename: right, format: ctx.options.rightFormat, imageOptions },
        {
          strict,
          forceShare,
          onProgress: progress.report,
          onSizeMismatch: warnOfSizes,
          ...(cache === undefined
            ? {}
            : { cache: cacheMode(cache, { source: true, exitCode: EXIT_CANNOT_OPEN }) }),
        },
        environmentOf(ctx, ctx.options),
      );
      if ("sizesDiffer" in result && result.sizesDiffer) warnOfSizes();
      print(verdict(result));
      return result.kind === "identical" ? 0 : EXIT_DIFFERENT;
    } catch (error) {
      if (!(error instanceof CompareError)) throw error;
      const { message, exitCode, hint, cause } = error;
      throw new CommandError(message, { exitCode, hint, cause });
    }
  },
});

function verdict(result: CompareResult): string {
  switch (result.kind) {
    case "size":
      return "Strict mode: Image size mismatch!\n";
    case "status":
      return `Strict mode: Offset ${result.offset} block status mismatch!\n`;
    case "content":
      return `Content mismatch at offset ${result.offset}!\n`;
    case "identical":
      return "Images are identical.\n";
  }
}
