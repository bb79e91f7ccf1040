import { splitOptions } from "../block/options.ts";
import { amendImage, describeAmendOptions } from "../ops/amend.ts";
import { type Command, CommandError, defineCommand, UsageError } from "./_command.ts";
import { amendOptionHelp } from "./_format.ts";
import {
  addOptionList,
  asksForHelp,
  cacheMode,
  cacheOption,
  environmentOf,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  PROGRESS_HELP,
  PROGRESS_STYLES,
  QUIET,
  UNTRUSTED,
} from "./_options.ts";

/** Percent between two reports of progress. */
const PROGRESS_STEP = 1;

/** `qimg amend`: changes the options of an image (cli.md, 13.1). */
export const amend: Command = defineCommand({
  name: "amend",
  description: "Change the options of an image",
  synopsis: [
    "[--image-opts | -f FMT] [-t CACHE] [-p | --progress=bar|json] [-q] [--force]",
    "[--object OBJECT] [--untrusted] -o OPTIONS FILENAME",
  ],
  options: {
    quiet: QUIET,
    progress: {
      short: "p",
      long: ["progress"],
      attached: PROGRESS_STYLES,
      help: PROGRESS_HELP,
    },
    options: {
      short: "o",
      long: ["options"],
      value: "OPTIONS",
      help: ["options to change, key=value,...; 'help' lists them"],
      parse: addOptionList,
    },
    format: FORMAT,
    imageOpts: IMAGE_OPTS,
    cache: cacheOption("t", "cache", "how the host caches FILENAME"),
    force: {
      long: ["force"],
      help: ["allow to erase the last key of an encrypted image, whose data is lost then"],
    },
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image to change"] }],
  access: (_, [filename]) => ({ writes: [filename] }),
  async run(ctx) {
    const { options: list, format, imageOpts, progress: style, quiet, force } = ctx.options;
    if (list === undefined) throw new UsageError("Must specify options (-o)");
    using progress = await ctx.progress({ style, step: PROGRESS_STEP, quiet });
    const help = asksForHelp(list);
    if (help && format !== undefined) {
      ctx.out(amendOptionHelp(await describeAmendOptions({ format })));
      return 0;
    }
    const [filename, ...others] = ctx.operands;
    if (filename === undefined || others.length > 0) {
      throw new CommandError("Expecting one image file name");
    }
    const cache = cacheMode(ctx.options.cache ?? "writeback");
    const image = { filename, format, imageOptions: imageOpts };
    const environment = environmentOf(ctx, ctx.options);
    if (help) {
      ctx.out(amendOptionHelp(await describeAmendOptions({ image, cache }, environment)));
      return 0;
    }
    await amendImage(image, {
      options: splitOptions(list),
      force,
      cache,
      onProgress: progress.report,
    }, environment);
    return 0;
  },
});
