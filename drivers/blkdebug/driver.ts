/**
 * Errors on demand: a node that fails when rules say so. Command-line reference, section 4.3.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, NodeAddress } from "../../lib/block/node.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { LIMIT_OPTIONS, readLimits } from "./limits.ts";
import { BlkdebugNode } from "./node.ts";
import { RuleBook } from "./rules.ts";
import { readConfig } from "./config_file.ts";
import { rulesOf, sectionsOfOptions } from "./sections.ts";

const PREFIX = "blkdebug:";

const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "config", type: "str", help: "File with rules", strong: true },
  { name: "x-image", type: "str", help: "Name of the node below" },
  { name: "inject-error.", type: "str", help: "Rules by which requests fail", strong: true },
  { name: "set-state.", type: "str", help: "Rules that change the state", strong: true },
  ...LIMIT_OPTIONS,
];

/** The driver. Names are `blkdebug:CONFIG:IMAGE`, where `CONFIG` may be empty. */
export const blkdebug: ProtocolDriver = {
  name: "blkdebug",
  openOptions: OPEN_OPTIONS,
  open: (filename, context, options = new OptionSet(OPEN_OPTIONS)) =>
    openBlkdebug(filename, context, options),
};

async function openBlkdebug(
  filename: string,
  context: DriverContext,
  options: OptionSet,
): Promise<BlockNode> {
  const named = filename.startsWith(PREFIX) ? splitName(filename) : undefined;
  const config = options.string("config") ?? named?.config;
  const rules = new RuleBook(rulesOf([
    ...config === undefined ? [] : readConfig(config),
    ...sectionsOfOptions(options),
  ]));
  const image = await context.requireChild!({
    name: "image",
    as: "file",
    filename: options.string("x-image") ?? named?.image,
  });
  try {
    const limits = readLimits(options, image.limits.requestAlignment);
    const address = addressOf(config, image, options);
    return new BlkdebugNode({ image, rules, limits, address }, context);
  } catch (error) {
    await image[Symbol.asyncDispose]();
    throw error;
  }
}

/** @throws {ImageError} for a name with one colon only. */
function splitName(filename: string): { config?: string; image: string } {
  const rest = filename.slice(PREFIX.length);
  const colon = rest.indexOf(":");
  if (colon < 0) {
    throw new ImageError("blkdebug requires both config file and image path", {
      errno: "EINVAL",
      file: filename,
    });
  }
  const image = rest.slice(colon + 1);
  return colon === 0 ? { image } : { config: rest.slice(0, colon), image };
}

/** A name alone says it where nothing but the file with the rules is given. */
function addressOf(config: string | undefined, image: BlockNode, options: OptionSet): NodeAddress {
  const isPlain = OPEN_OPTIONS.every(({ name }) =>
    name === "config" || name === "x-image" ||
    (name.endsWith(".") ? options.keys(name).length === 0 : !options.has(name))
  );
  const exact = isPlain && image.filename !== "" && !image.filename.startsWith("json:")
    ? `${PREFIX}${config ?? ""}:${image.filename}`
    : undefined;
  return { exact, options: config === undefined ? {} : { config } };
}
