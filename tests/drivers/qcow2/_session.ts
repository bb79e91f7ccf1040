/** The inside of an image that was made in memory, for tests of single rooms. */
import type { DriverContext } from "../../../lib/block/driver.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import { Qcow2Image } from "../../../drivers/qcow2/image.ts";
import { geometryOf, readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { loadL1 } from "../../../drivers/qcow2/l1_table.ts";
import type { MemoryNode } from "../../_memory_node.ts";
import { context, create } from "./_image.ts";

/** An open image and its file. */
export interface Inside {
  /** The image: nothing is closed, or flushed, by itself. */
  readonly image: Qcow2Image;
  /** Its file. */
  readonly file: MemoryNode;
  /** Reports and warnings so far. */
  readonly reports: string[];
}

/** Opens the inside of an image. */
export async function inside(file: MemoryNode, mode: Partial<OpenMode> = {}): Promise<Inside> {
  const using = context({ writable: true, unmap: true, ...mode });
  const header = await readHeader(file, using as DriverContext);
  const image = new Qcow2Image(file, header, geometryOf(header), using);
  await loadL1(image);
  await image.refcounts.load();
  return { image, file, reports: using.reports };
}

/** Makes an image and opens its inside. */
export async function createInside(
  options: Readonly<Record<string, string>>,
  mode: Partial<OpenMode> = {},
): Promise<Inside> {
  return await inside(await create(options), mode);
}

/** The big-endian 64-bit word at `offset` of a file. */
export function wordAt(file: MemoryNode, offset: number): bigint {
  const bytes = file.slice(offset, 8);
  return new DataView(bytes.buffer).getBigUint64(0);
}
