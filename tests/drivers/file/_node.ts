/** Nodes on real files for the tests of this folder. */
import { file } from "../../../drivers/file/driver.ts";
import { type OpenMode, READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";

/** Writable, with unmapping. */
export const WRITABLE: OpenMode = { ...READ_ONLY, writable: true, unmap: true };

/** Opens a file with the protocol driver. */
export function openFile(path: string, mode: OpenMode = WRITABLE): Promise<BlockNode> {
  return file.open(path, driverContext(path, mode, QUIET));
}

/** The bytes of a node's range. */
export async function readRange(
  node: BlockNode,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  // Not zeros, so that bytes that nobody fills are seen.
  const bytes = new Uint8Array(length).fill(0xee);
  await node.read(offset, bytes);
  return bytes;
}
