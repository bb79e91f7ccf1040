import { splitOptions } from "../block/options.ts";
import { measureImage } from "../ops/measure.ts";
import { type Command, CommandError, defineCommand } from "./_command.ts";
import {
  addOptionList,
  environmentOf,
  FORCE_SHARE,
  IMAGE_OPTS,
  OBJECT,
  OUTPUT,
  readExactSize,
  UNTRUSTED,
} from "./_options.ts";
import { readSelector, SNAPSHOT } from "./_snapshot.ts";

/** `qimg measure`: calculates how large a new image would be (cli.md, 12.6). */
export const measure: Command = defineCommand({
  name: "measure",
  description: "Calculate how large a new image would be",
  synopsis: [
    "[-O TARGET_FMT] [-o OPTIONS] [--output human|json]",
    "(--size SIZE | [--image-opts | -f FMT] [-l SNAPSHOT] [-U] [--object OBJECT] [--untrusted] FILENAME)",
  ],
  options: {
    targetFormat: {
      short: "O",
      long: ["target-format"],
      value: "TARGET_FMT",
      help: ["format of the new image, default raw"],
    },
    format: {
      short: "f",
      long: ["format"],
      value: "FMT",
      help: ["format of FILENAME; without it the content decides"],
    },
    options: {
      short: "o",
      long: ["options"],
      value: "OPTIONS",
      help: ["options of the new image, key=value,..."],
      parse: addOptionList,
    },
    output: OUTPUT,
    size: {
      long: ["size"],
      value: "SIZE",
      help: ["virtual size of the new image"],
      parse: (text: string) => readExactSize("image size", text),
    },
    snapshot: SNAPSHOT,
    forceShare: FORCE_SHARE,
    imageOpts: IMAGE_OPTS,
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image whose content the new one would get"] }],
  access: (_, [filename]) => ({ reads: [filename] }),
  async run(ctx) {
    const { targetFormat, format, options, output = "human", size, forceShare } = ctx.options;
    const snapshot = readSelector(ctx, ctx.options.snapshot);
    const { imageOpts: imageOptions } = ctx.options;
    const [filename, extra] = ctx.operands;
    if (extra !== undefined) {
      throw new CommandError("At most one filename argument is allowed.");
    }
    if (
      filename === undefined && (imageOptions || format !== undefined || snapshot !== undefined)
    ) {
      throw new CommandError("--image-opts, -f, and -l require a filename argument.");
    }
    if (filename === undefined && size === undefined) {
      throw new CommandError("Either --size N or one filename must be specified.");
    }
    if (filename !== undefined && size !== undefined) {
      throw new CommandError("--size N cannot be used together with a filename.");
    }
    const result = await measureImage({
      format: targetFormat,
      options: splitOptions(options ?? ""),
      size,
      source: filename === undefined ? undefined : { filename, format, imageOptions },
      snapshot,
      forceShare,
    }, environmentOf(ctx, ctx.options));
    // Numbers are printed with all digits only up to 2^53.
    const [required, fullyAllocated] = [BigInt(result.required), BigInt(result.fullyAllocated)];
    if (output === "json") {
      ctx.json({
        // Here they have a sign in the reference.
        required: BigInt.asIntN(64, required),
        "fully-allocated": BigInt.asIntN(64, fullyAllocated),
        bitmaps: result.bitmaps,
      });
    } else {
      ctx.out(`required size: ${required}\nfully allocated size: ${fullyAllocated}\n`);
      if (result.bitmaps !== undefined) ctx.out(`bitmaps size: ${result.bitmaps}\n`);
    }
    return 0;
  },
});
