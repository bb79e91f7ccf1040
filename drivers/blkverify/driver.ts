/**
 * An image compared with a plain copy of its disk. Command-line reference, section 4.3.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { BlkverifyNode } from "./node.ts";

const PREFIX = "blkverify:";

const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "x-raw", type: "str", help: "Name of the plain copy" },
  { name: "x-image", type: "str", help: "Name of the image" },
];

/** The driver. Names are `blkverify:RAW:IMAGE`. */
export const blkverify: ProtocolDriver = {
  name: "blkverify",
  openOptions: OPEN_OPTIONS,
  open: (filename, context, options = new OptionSet(OPEN_OPTIONS)) =>
    openBlkverify(filename, context, options),
};

async function openBlkverify(
  filename: string,
  context: DriverContext,
  options: OptionSet,
): Promise<BlockNode> {
  const named = filename.startsWith(PREFIX) ? splitName(filename) : undefined;
  const raw = await context.requireChild!({
    name: "raw",
    as: "file",
    filename: options.string("x-raw") ?? named?.raw,
  });
  try {
    const test = await context.requireChild!({
      name: "test",
      as: "image",
      filename: options.string("x-image") ?? named?.image,
    });
    const isPlain = [raw, test].every((node) => !node.filename.startsWith("json:"));
    return new BlkverifyNode(test, raw, {
      exact: isPlain ? `${PREFIX}${raw.filename}:${test.filename}` : undefined,
      options: {},
      noFolder: "Cannot generate a base directory for blkverify nodes",
    }, context);
  } catch (error) {
    await raw[Symbol.asyncDispose]();
    throw error;
  }
}

/** @throws {ImageError} for a name with one colon only. */
function splitName(filename: string): { raw: string; image: string } {
  const [, raw, image] = /^blkverify:([^:]*):(.*)$/s.exec(filename) ?? [];
  if (raw === undefined || image === undefined) {
    throw new ImageError("blkverify requires raw copy and original image path", {
      errno: "EINVAL",
      file: filename,
    });
  }
  return { raw, image };
}
