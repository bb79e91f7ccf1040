import { ImageError } from "../block/error.ts";
import type { Preallocation } from "../block/node.ts";
import { OptionSet } from "../block/options.ts";
import { resizeImage, SHRINK_WARNING } from "../ops/resize.ts";
import { type Command, CommandError, defineCommand, UsageError } from "./_command.ts";
import { environmentOf, FORMAT, IMAGE_OPTS, OBJECT, QUIET, UNTRUSTED } from "./_options.ts";

const PREALLOCATIONS: readonly Preallocation[] = ["off", "metadata", "falloc", "full"];

/** `qimg resize`: changes the virtual size of an image (cli.md, 13.6). */
export const resize: Command = defineCommand({
  name: "resize",
  description: "Change the virtual size of an image",
  synopsis: [
    "[--image-opts | -f FMT] [--preallocation PREALLOC] [--shrink] [-q] [--object OBJECT] [--untrusted]",
    "FILENAME [+-]SIZE",
  ],
  options: {
    quiet: QUIET,
    format: FORMAT,
    preallocation: {
      long: ["preallocation"],
      value: "PREALLOC",
      help: ["how to provide the added space: off, metadata, falloc or full"],
      parse(text: string): Preallocation {
        const mode = PREALLOCATIONS.find((mode) => mode === text);
        if (mode === undefined) throw new CommandError(`Invalid preallocation mode '${text}'`);
        return mode;
      },
    },
    shrink: {
      long: ["shrink"],
      help: ["allow to make the image smaller; what lies beyond its new end is lost"],
    },
    imageOpts: IMAGE_OPTS,
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [
    { name: "FILENAME", help: ["image to resize"] },
    {
      name: "[+-]SIZE",
      help: [
        "virtual size in bytes, or with a suffix (k, M, G, T, P, E) in multiples of 1024;",
        "with a sign it is added to or taken from the present size",
      ],
    },
  ],
  ordered: { most: 2, excess: "Extra argument(s) in command line" },
  access: (_, [filename]) => ({ writes: [filename] }),
  async run(ctx) {
    const [filename, sizeText] = ctx.operands;
    if (filename === undefined || sizeText === undefined || ctx.operands.length > 2) {
      throw new UsageError("Expecting image file name and size");
    }
    const relative = sizeText.startsWith("+") ? 1 : sizeText.startsWith("-") ? -1 : 0;
    const { preallocation, shrink } = ctx.options;
    const size = readBytes(relative === 0 ? sizeText : sizeText.slice(1));
    // A refusal comes with a warning that explains it, which is printed after it.
    const warnings: string[] = [];
    try {
      await resizeImage({
        filename,
        format: ctx.options.format,
        imageOptions: ctx.options.imageOpts,
      }, {
        size,
        relative,
        shrink,
        ...(preallocation === undefined ? {} : { preallocation }),
      }, {
        ...environmentOf(ctx, ctx.options),
        warn: (text) => text === SHRINK_WARNING ? void warnings.push(text) : ctx.warn(text),
      });
    } catch (error) {
      ctx.report(error);
      return 1;
    } finally {
      for (const warning of warnings) ctx.warn(warning);
    }
    if (!ctx.options.quiet) ctx.out("Image resized.\n");
    return 0;
  },
});

/** The size has the words of a driver option when it is wrong. */
function readBytes(text: string): bigint {
  const options = new OptionSet([{ name: "size", type: "size", help: "" }], [["size", text]]);
  const size = options.exact("size");
  if (size === undefined) throw new ImageError("Parameter 'size' is missing");
  return size;
}
