import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";

const SECTOR = 512;

/**
 * Takes an existing export for a new image: the old content's signature goes, the size must do. Answers
 * that nothing is new.
 *
 * @throws {ImageError} for an export that does not open, or is too small.
 */
export async function overwriteExport(
  filename: string,
  options: OptionSet,
  context: DriverContext,
  open: ProtocolDriver["open"],
): Promise<boolean> {
  const how = options.string("preallocation") ?? "off";
  if (how !== "off") {
    throw new ImageError(`Unsupported preallocation mode '${how}'`, {
      errno: "ENOTSUP",
      field: "preallocation",
    });
  }
  await using node = await openForOverwriting(filename, context, open);
  const size = options.number("size") ?? 0;
  // It may well be longer: nobody can change that.
  if (size > (node.exactLength ?? node.length)) {
    throw new ImageError("Cannot grow NBD nodes", { errno: "EINVAL", file: node.filename });
  }
  const head = Math.min(node.length, SECTOR);
  if (head > 0) await node.writeZeroes(0, head, { unmap: true });
  return false;
}

async function openForOverwriting(
  filename: string,
  context: DriverContext,
  open: ProtocolDriver["open"],
): Promise<BlockNode> {
  try {
    return await open(filename, { ...context, mode: { ...context.mode, writable: true } });
  } catch (error) {
    throw ImageError.from(error).prefixed(
      "Protocol driver 'nbd' does not support creating new images, so an existing image must be " +
        "selected as the target; however, opening the given target as an existing image failed: ",
    );
  }
}
