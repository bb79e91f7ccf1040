import { DEFAULT_FORMAT } from "../../drivers/mod.ts";
import { splitOptions } from "../block/options.ts";
import { createImage, describeCreateOptions } from "../ops/create.ts";
import { type Command, defineCommand, UsageError } from "./_command.ts";
import { optionHelp } from "./_format.ts";
import {
  addOptionList,
  asksForHelp,
  environmentOf,
  filesInOptions,
  OBJECT,
  QUIET,
  readExactSize,
  UNTRUSTED,
} from "./_options.ts";

/** `qimg create`: makes a new image (cli.md, 9). */
export const create: Command = defineCommand({
  name: "create",
  description: "Make a new image",
  synopsis: [
    "[-f FMT] [-o OPTIONS] [-b BACKING [-F BACKING_FMT]] [-u]",
    "[-q] [--object OBJECT] [--untrusted] FILENAME [SIZE]",
  ],
  options: {
    quiet: QUIET,
    format: {
      short: "f",
      long: ["format"],
      value: "FMT",
      help: ["format of the new image, default raw"],
    },
    backing: {
      short: "b",
      long: ["backing"],
      value: "BACKING",
      help: ["file that shows through where the new image holds nothing"],
    },
    backingFormat: {
      short: "F",
      long: ["backing-format"],
      value: "BACKING_FMT",
      help: ["format of BACKING"],
    },
    unsafeBacking: {
      short: "u",
      long: ["backing-unsafe"],
      help: ["do not open BACKING; SIZE is required then"],
    },
    options: {
      short: "o",
      long: ["options"],
      value: "OPTIONS",
      help: ["options of the format, key=value,...; 'help' lists them"],
      parse: addOptionList,
    },
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [
    { name: "FILENAME", help: ["image to make; what is there already is lost"] },
    {
      name: "SIZE",
      help: [
        "virtual size in bytes, or with a suffix (k, M, G, T, P, E) in multiples of 1024;",
        "may be left out with BACKING, whose size is taken then",
      ],
    },
  ],
  access({ backing, options }, [filename]) {
    const named = filesInOptions(options);
    return { reads: [backing, ...named.reads], writes: [filename, ...named.writes] };
  },
  async run(ctx) {
    const { options: list, format = DEFAULT_FORMAT, quiet } = ctx.options;
    const [filename, sizeText, extra] = ctx.operands;
    if (asksForHelp(list)) {
      ctx.out(optionHelp(await describeCreateOptions(format, filename), format, filename));
      return 0;
    }
    if (filename === undefined) throw new UsageError("Expecting image file name");
    const size = sizeText === undefined ? undefined : readExactSize("image size", sizeText);
    if (extra !== undefined) throw new UsageError(`Unexpected argument: ${extra}`);
    await createImage({
      filename,
      format,
      size,
      backing: ctx.options.backing,
      backingFormat: ctx.options.backingFormat,
      unsafeBacking: ctx.options.unsafeBacking,
      options: splitOptions(list ?? ""),
      announce: (line) => {
        if (!quiet) ctx.out(`${line}\n`);
      },
    }, environmentOf(ctx, ctx.options));
    return 0;
  },
});
