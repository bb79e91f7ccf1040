/**
 * Several disks that vote on what they hold. Command-line reference, section 4.3.
 *
 * @module
 */
import { closeAll } from "../../lib/block/close_all.ts";
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { QuorumNode, type QuorumSettings } from "./node.ts";

const CHILDREN = "children";
const THRESHOLD = "vote-threshold";
const BLKVERIFY = "blkverify";
const REWRITE = "rewrite-corrupted";
const PATTERN = "read-pattern";

const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: THRESHOLD, type: "num", help: "How many have to agree", strong: true },
  { name: BLKVERIFY, type: "bool", help: "Tell where two members differ", strong: true },
  {
    name: REWRITE,
    type: "bool",
    help: "Write to who is outvoted what the others have",
    strong: true,
  },
  { name: PATTERN, type: "str", help: "Whom to believe: quorum or fifo", strong: true },
];

/** The driver. */
export const quorum: ProtocolDriver = {
  name: "quorum",
  openOptions: OPEN_OPTIONS,
  open: (_filename, context, options = new OptionSet(OPEN_OPTIONS)) => openQuorum(context, options),
};

async function openQuorum(context: DriverContext, options: OptionSet): Promise<BlockNode> {
  const count = context.countChildren!(CHILDREN);
  if (count === undefined) throw invalid("Option children is not a valid array", CHILDREN);
  if (count < 1) throw invalid("Number of provided children must be 1 or more", CHILDREN);
  const settings = readSettings(options, count);
  if (settings.rewriteCorrupted && !context.mode.writable) {
    throw new ImageError("Block node is read-only", { errno: "EACCES", field: REWRITE });
  }
  const members: BlockNode[] = [];
  try {
    for (let i = 0; i < count; i++) {
      members.push(await context.requireChild!({ name: `${CHILDREN}.${i}`, as: "image" }));
    }
    return new QuorumNode(members, settings, context);
  } catch (error) {
    await closeAll(members.map((member) => () => member[Symbol.asyncDispose]()));
    throw error;
  }
}

/** @throws {ImageError} for what contradicts itself or the number of members. */
function readSettings(options: OptionSet, count: number): QuorumSettings {
  const threshold = Number(BigInt.asIntN(32, options.settled().exact(THRESHOLD) ?? 0n));
  if (threshold < 1) throw invalid(`Parameter '${THRESHOLD}' expects a value >= 1`, THRESHOLD);
  if (threshold > count) throw invalid("threshold may not exceed children count", THRESHOLD);
  const pattern = options.string(PATTERN) ?? "quorum";
  if (pattern !== "quorum" && pattern !== "fifo") {
    throw invalid("Please set read-pattern as fifo or quorum", PATTERN);
  }
  const fifo = pattern === "fifo";
  const isBlkverify = !fifo && options.flag(BLKVERIFY);
  if (isBlkverify && (count !== 2 || threshold !== 2)) {
    throw invalid(
      "blkverify=on can only be set if there are exactly two files and vote-threshold is 2",
      BLKVERIFY,
    );
  }
  const rewriteCorrupted = !fifo && options.flag(REWRITE);
  if (rewriteCorrupted && isBlkverify) {
    throw invalid("rewrite-corrupted=on cannot be used with blkverify=on", REWRITE);
  }
  return { threshold, isBlkverify, rewriteCorrupted, fifo };
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}
