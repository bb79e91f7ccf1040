import { ddImage } from "../ops/dd.ts";
import { type Command, CommandError, defineCommand } from "./_command.ts";
import {
  environmentOf,
  FORCE_SHARE,
  IMAGE_OPTS,
  OBJECT,
  readInteger,
  readSize,
  UNTRUSTED,
} from "./_options.ts";

const KEYS = ["bs", "count", "if", "of", "skip"] as const;
type Key = (typeof KEYS)[number];

/** `qimg dd`: copies part of an image to a new one (cli.md, 12.4). */
export const dd: Command = defineCommand({
  name: "dd",
  description: "Copy part of an image to a new one",
  synopsis: [
    "[--image-opts | -f FMT] [-O TARGET_FMT] [-U] [--object OBJECT] [--untrusted]",
    "[bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
  ],
  options: {
    format: {
      short: "f",
      long: ["format"],
      value: "FMT",
      help: ["format of INPUT; without it the content decides"],
    },
    targetFormat: {
      short: "O",
      long: ["output-format"],
      value: "TARGET_FMT",
      help: ["format of OUTPUT, default raw"],
    },
    forceShare: FORCE_SHARE,
    imageOpts: {
      ...IMAGE_OPTS,
      help: ["INPUT is a list of options, key=value,..., and no name"],
    },
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [
    { name: "bs=BLOCK_SIZE", help: ["bytes of a block, default 512"] },
    { name: "count=BLOCKS", help: ["where to stop, in blocks from the begin of INPUT"] },
    { name: "skip=BLOCKS", help: ["where to begin, in blocks from the begin of INPUT"] },
    { name: "if=INPUT", help: ["image to read"] },
    { name: "of=OUTPUT", help: ["image to make; what is there already is lost"] },
  ],
  access(_, operands) {
    const words = new Map(operands.map(splitWord));
    return { reads: [words.get("if")], writes: [words.get("of")] };
  },
  async run(ctx) {
    let blockSize: number | undefined;
    let count: number | undefined;
    let skip: number | undefined;
    let input: string | undefined;
    let output: string | undefined;
    const readers: Readonly<Record<Key, (value: string) => void>> = {
      bs: (value) => blockSize = readSize("bs", value, { min: 1, max: 2 ** 31 - 1 }),
      count: (value) => count = readInteger("count", value),
      skip: (value) => skip = readInteger("skip", value),
      if: (value) => input = value,
      of: (value) => output = value,
    };
    for (const operand of ctx.operands) {
      const [key, value] = splitWord(operand);
      const known = KEYS.find((known) => known === key);
      if (known === undefined || value === undefined) {
        throw new CommandError(`unrecognized operand ${key}`);
      }
      readers[known](value);
    }
    if (input === undefined || output === undefined) {
      throw new CommandError("Must specify both input and output files");
    }
    await ddImage({
      source: {
        filename: input,
        format: ctx.options.format,
        imageOptions: ctx.options.imageOpts,
      },
      target: output,
      targetFormat: ctx.options.targetFormat,
      ...(blockSize === undefined ? {} : { blockSize }),
      count,
      skip,
      forceShare: ctx.options.forceShare,
    }, environmentOf(ctx, ctx.options));
    return 0;
  },
});

function splitWord(word: string): [key: string, value: string | undefined] {
  const equals = word.indexOf("=");
  return equals < 0 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)];
}
