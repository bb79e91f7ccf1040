/** QED images in memory, without the command line and without files. */
import type { DriverContext } from "../../../lib/block/driver.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { qed } from "../../../drivers/qed/driver.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";

/** Bytes of a cluster of the images here, unless told otherwise. */
export const CLUSTER = 4096;

/** Makes an image of 1 MiB with the smallest clusters and tables, and answers with its file, open again. */
export async function create(options: Readonly<Record<string, string>> = {}): Promise<MemoryNode> {
  const file = new MemoryNode({ filename: "test.qed" });
  const all = { size: "1M", cluster_size: `${CLUSTER}`, table_size: "2", ...options };
  await qed.create!({
    filename: "test.qed",
    options: new OptionSet(qed.createOptions!, Object.entries(all)),
    createBase: () => Promise.resolve(file),
    context: context({ writable: true }),
  });
  return file.copy();
}

/** Opens an image, by default to write to it, in front of `backing`. Disposing of the node closes both. */
export async function open(
  file: MemoryNode,
  backing: BlockNode | null = null,
  using: DriverContext = context({ writable: true }),
): Promise<BlockNode> {
  const node = await qed.open(file, new OptionSet(qed.openOptions), using);
  node.backing!.attach(backing);
  return node;
}

/** A field that is read or changed by hand. */
export interface Field {
  /** Where it is, bytes. */
  readonly at: number;
  /** What it is: a 64-bit number as which the file has it. */
  readonly value: bigint;
}

/** Sets 64-bit fields of an image. */
export async function patch(file: MemoryNode, ...fields: readonly Field[]): Promise<void> {
  for (const { at, value } of fields) {
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setBigUint64(0, value, true);
    await file.write(at, new Uint8Array(bytes.buffer));
  }
}

/** A 64-bit field of an image. */
export function field(file: MemoryNode, at: number): bigint {
  return new DataView(file.slice(at, 8).buffer).getBigUint64(0, true);
}

/** `length` bytes of one value. */
export function filled(length: number, value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).fill(value);
}

/** Reads a part of a disk. */
export async function readOf(node: BlockNode, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await node.read(offset, bytes);
  return bytes;
}
