import { commitImage } from "../ops/commit.ts";
import { type Command, defineCommand } from "./_command.ts";
import {
  cacheMode,
  cacheOption,
  environmentOf,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  PROGRESS_HELP,
  PROGRESS_STYLES,
  QUIET,
  readSize,
  UNTRUSTED,
} from "./_options.ts";

/** `qimg commit`: writes the content of an image into its backing file (cli.md, 13.4). */
export const commit: Command = defineCommand({
  name: "commit",
  description: "Write the content of an image into its backing file",
  synopsis: [
    "[-f FMT | --image-opts] [-t CACHE] [-b BASE] [-d] [-r RATE] [-p] [-q]",
    "[--object OBJECT] [--untrusted] FILENAME",
  ],
  options: {
    quiet: QUIET,
    format: FORMAT,
    imageOpts: IMAGE_OPTS,
    cache: cacheOption("t", "cache", "how the host caches the images, default writeback"),
    base: {
      short: "b",
      long: ["base"],
      value: "BASE",
      help: ["image of the chain to write to, default the backing file; implies -d"],
    },
    drop: {
      short: "d",
      long: ["drop"],
      help: ["do not empty FILENAME afterwards"],
    },
    rateLimit: {
      short: "r",
      long: ["rate"],
      value: "RATE",
      help: ["most bytes to write in a second"],
      parse: (text: string) => readSize("rate limit", text),
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
  operands: [{ name: "FILENAME", help: ["image whose content is written"] }],
  access: ({ base }, [filename]) => ({ reads: [base], writes: [filename] }),
  async run(ctx) {
    const { quiet, cache, base, drop, rateLimit } = ctx.options;
    const filename = onlyImage(ctx.operands);
    const mode = cacheMode(cache ?? "writeback");
    {
      const style = ctx.options.progress;
      using progress = await ctx.progress({ style, step: 1, quiet, endsLine: true });
      await commitImage({
        filename,
        format: ctx.options.format,
        imageOptions: ctx.options.imageOpts,
      }, {
        base,
        drop: drop || base !== undefined,
        rateLimit,
        cache: mode,
        onProgress: progress.report,
      }, environmentOf(ctx, ctx.options));
      progress.report(1);
    }
    if (!quiet) ctx.out("Image committed.\n");
    return 0;
  },
});
