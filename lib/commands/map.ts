import { mapBatches, type MapEntry } from "../ops/map.ts";
import { type Command, CommandError, defineCommand } from "./_command.ts";
import { hexNumber } from "./_format.ts";
import {
  environmentOf,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  OUTPUT,
  readExactSize,
  readSize,
  UNTRUSTED,
} from "./_options.ts";

const COLUMN = 16;

/** `qimg map`: shows where the data of an image lies (cli.md, 12.5). */
export const map: Command = defineCommand({
  name: "map",
  description: "Show where the data of an image lies",
  synopsis: [
    "[--image-opts | -f FMT] [--start-offset OFFSET] [--max-length LENGTH]",
    "[--output human|json] [-U] [--object OBJECT] [--untrusted] FILENAME",
  ],
  options: {
    format: FORMAT,
    output: OUTPUT,
    forceShare: FORCE_SHARE,
    start: {
      short: "s",
      long: ["start-offset"],
      value: "OFFSET",
      help: ["first byte of the disk to look at, default 0"],
      parse: (text: string) => readExactSize("start offset", text),
    },
    length: {
      short: "l",
      long: ["max-length"],
      value: "LENGTH",
      help: ["bytes of the disk to look at, default all"],
      parse: (text: string) => readSize("max length", text),
    },
    imageOpts: IMAGE_OPTS,
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image to look at"] }],
  access: (_, [filename]) => ({ reads: [filename] }),
  async run(ctx) {
    const { format, output = "human", start, length, forceShare } = ctx.options;
    const filename = onlyImage(ctx.operands);
    const batches = mapBatches(
      { filename, format, imageOptions: ctx.options.imageOpts },
      { start: start === undefined ? undefined : Number(start), length, forceShare },
      environmentOf(ctx, ctx.options),
    );
    if (output === "human") {
      await printTable(batches, ctx.out);
    } else {
      await printArray(batches, start ?? 0n, ctx.out);
    }
    return 0;
  },
});

/** Entries come in batches: there may be a hundred thousand, and each by itself would take longer. */
type Batches = AsyncIterable<readonly MapEntry[]>;

async function printTable(batches: Batches, out: (text: string) => void): Promise<void> {
  // The heading waits for the first batch: an image that cannot be opened prints nothing.
  let heading = row("Offset", "Length", "Mapped to", "File");
  for await (const batch of batches) {
    out(heading);
    heading = "";
    for (const { start, length, zero, data, offset, file } of batch) {
      if (!data || zero) continue;
      if (offset === undefined || file === undefined) {
        throw new CommandError("File contains external, encrypted or compressed clusters.");
      }
      out(row(...[start, length, offset].map(hexNumber), file));
    }
  }
}

function row(...cells: readonly string[]): string {
  return cells.map((cell, i) => i < cells.length - 1 ? cell.padEnd(COLUMN) : cell).join("") + "\n";
}

async function printArray(
  batches: Batches,
  wanted: bigint,
  out: (text: string) => void,
): Promise<void> {
  let separator = "";
  let open = "[";
  try {
    for await (const batch of batches) {
      let text = open;
      open = "";
      for (const { start, length, depth, present, zero, data, compressed, offset } of batch) {
        // Past the end of the disk there is one entry, which begins where it was looked for.
        const shownStart = Number.isSafeInteger(start) ? start : wanted;
        const place = offset === undefined ? "" : `, "offset": ${offset}`;
        text += `${separator}{ "start": ${shownStart}, "length": ${length}, "depth": ${depth}, ` +
          `"present": ${present}, "zero": ${zero}, "data": ${data}, "compressed": ${compressed}` +
          `${place}}`;
        separator = ",\n";
      }
      out(text);
    }
  } catch (error) {
    // More was to come, and the reference says so before it fails.
    out(separator);
    throw error;
  }
  out("]\n");
}
