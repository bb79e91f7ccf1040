import { type BitmapAction, changeBitmap } from "../ops/bitmap.ts";
import { type Command, type CommandContext, CommandError, defineCommand } from "./_command.ts";
import { environmentOf, IMAGE_OPTS, OBJECT, readSize, UNTRUSTED } from "./_options.ts";

const OPTIONS = {
  format: {
    short: "f",
    value: "FMT",
    help: ["format of FILENAME; without it the content decides"],
  },
  imageOpts: IMAGE_OPTS,
  add: { long: ["add"], help: ["make BITMAP, which follows writes to the image from now on"] },
  granularity: {
    short: "g",
    long: ["granularity"],
    value: "SIZE",
    help: [
      "bytes of the disk for a bit of the new BITMAP: a power of two from 512 to 2G;",
      "default is the cluster size, but at least 4k and at most 64k",
    ],
    parse: (text: string) => readSize("granularity", text),
  },
  remove: { long: ["remove"], help: ["delete BITMAP"] },
  clear: { long: ["clear"], help: ["make everything clean in BITMAP"] },
  enable: { long: ["enable"], help: ["let BITMAP follow writes"] },
  disable: { long: ["disable"], help: ["let BITMAP no longer follow writes"] },
  merge: {
    long: ["merge"],
    value: "SOURCE",
    help: ["make dirty in BITMAP what is dirty in the bitmap SOURCE"],
    parse: (text: string, previous: unknown): readonly string[] => [
      ...(previous as readonly string[] | undefined ?? []),
      text,
    ],
  },
  sourceFile: {
    short: "b",
    long: ["source-file"],
    value: "SRC_FILENAME",
    help: ["image that has SOURCE, if it is not FILENAME"],
  },
  sourceFormat: {
    short: "F",
    long: ["source-format"],
    value: "SRC_FMT",
    help: ["format of SRC_FILENAME; without it the content decides"],
  },
  objects: OBJECT,
  untrusted: UNTRUSTED,
} as const;

/** `qimg bitmap`: changes the dirty bitmaps of an image (cli.md, 13.3). */
export const bitmap: Command = defineCommand({
  name: "bitmap",
  description: "Change a dirty bitmap of an image",
  synopsis: [
    "(--add [-g SIZE] | --remove | --clear | --enable | --disable | --merge SOURCE)...",
    "[-b SRC_FILENAME [-F SRC_FMT]] [-f FMT | --image-opts] [--object OBJECT] [--untrusted]",
    "FILENAME BITMAP",
  ],
  options: OPTIONS,
  operands: [
    { name: "FILENAME", help: ["image that has BITMAP"] },
    { name: "BITMAP", help: ["name of the bitmap; what is to be done is done in the given order"] },
  ],
  access: ({ sourceFile }, [filename]) => ({ reads: [sourceFile], writes: [filename] }),
  async run(ctx) {
    const { granularity, sourceFile, sourceFormat, format, imageOpts } = ctx.options;
    const actions = actionsOf(ctx);
    if (actions.length === 0) {
      throw new CommandError(
        "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
      );
    }
    const has = (wanted: BitmapAction["action"]) => actions.some(({ action }) => action === wanted);
    if (granularity && !has("add")) {
      throw new CommandError("granularity only supported with --add");
    }
    if (sourceFormat !== undefined && sourceFile === undefined) {
      throw new CommandError("-F only supported with -b");
    }
    if (sourceFile !== undefined && !has("merge")) {
      throw new CommandError("Merge bitmap source file only supported with --merge");
    }
    const [filename, name, ...others] = ctx.operands;
    if (filename === undefined || name === undefined || others.length > 0) {
      throw new CommandError("Expecting filename and bitmap name");
    }
    await changeBitmap({ filename, format, imageOptions: imageOpts }, {
      bitmap: name,
      actions,
      granularity,
      source: sourceFile === undefined ? undefined : { filename: sourceFile, format: sourceFormat },
    }, environmentOf(ctx, ctx.options));
    return 0;
  },
});

/** What is to be done, in the order of the command line. */
function actionsOf({ given, options }: CommandContext<typeof OPTIONS>): BitmapAction[] {
  const actions: BitmapAction[] = [];
  const sources = options.merge?.values();
  for (const name of given) {
    switch (name) {
      case "add":
      case "remove":
      case "clear":
      case "enable":
      case "disable":
        actions.push({ action: name });
        break;
      case "merge":
        // A value for each time that it was given.
        actions.push({ action: name, from: sources!.next().value! });
        break;
    }
  }
  return actions;
}
