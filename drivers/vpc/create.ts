/**
 * Making an image (section 4 of the format's reference).
 *
 * @module
 */
import type { CreateRequest } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { alignUp, divideUp } from "../../lib/bytes/align.ts";
import { FOOTER_SIZE, HEADER_SIZE, MAX_SECTORS, SECTOR } from "./_layout.ts";
import { newDynamicHeader } from "./dynamic_header.ts";
import { newFooter } from "./footer.ts";
import { type Geometry, geometryFor, LARGEST, sectorsOf } from "./geometry.ts";

/** Bytes of a block of new images. */
const BLOCK_SIZE = 2 << 20;

/** Bytes of the table that are written at a time. */
const STEP = 1 << 20;

/**
 * Makes an image. Options are checked before anything is touched.
 *
 * @throws {ImageError} for a kind of image that there is not, and `EFBIG` above 2040 GiB.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const { options } = request;
  const subformat = options.string("subformat") ?? "dynamic";
  if (subformat !== "dynamic" && subformat !== "fixed") {
    throw new ImageError(`Parameter 'subformat' does not accept value '${subformat}'`, {
      errno: "EINVAL",
      field: "subformat",
    });
  }
  const exact = options.flag("force_size");
  const { length, geometry } = diskOf(options, exact);
  const footer = newFooter({
    length,
    geometry,
    creator: exact ? "qem2" : "qemu",
    dataOffset: subformat === "fixed" ? undefined : FOOTER_SIZE,
    date: Date.now(),
  });
  await using file = await request.createBase();
  if (subformat === "fixed") await formatFixed(file, length, footer);
  else await formatDynamic(file, length, footer);
  await file.flush();
}

/** How long the disk becomes, bytes, and of which shape. */
function diskOf(options: OptionSet, exact: boolean): { length: number; geometry: Geometry } {
  const wanted = ((options.exact("size") ?? 0n) + BigInt(SECTOR - 1)) / BigInt(SECTOR);
  // Above all limits it does not matter by how much.
  const sectors = Number(wanted);
  const geometry = exact ? LARGEST : geometryFor(sectors);
  const inGeometry = sectorsOf(geometry);
  const total = inGeometry === sectorsOf(LARGEST) ? sectors : inGeometry;
  if (total > MAX_SECTORS) throw ImageError.fromErrno("EFBIG", { field: "size" });
  return { length: total * SECTOR, geometry };
}

async function formatFixed(file: BlockNode, length: number, footer: Uint8Array): Promise<void> {
  await file.resize(length + FOOTER_SIZE, "off");
  await file.write(length, footer);
}

/** The footer in front comes last: without it the file is nobody's image. */
async function formatDynamic(file: BlockNode, length: number, footer: Uint8Array): Promise<void> {
  const entries = divideUp(length, BLOCK_SIZE);
  const tableOffset = FOOTER_SIZE + HEADER_SIZE;
  const tableEnd = tableOffset + alignUp(entries * 4, SECTOR);
  for (let at = tableOffset; at < tableEnd; at += STEP) {
    await file.write(at, new Uint8Array(Math.min(STEP, tableEnd - at)).fill(0xff));
  }
  await file.write(tableEnd, footer);
  await file.write(FOOTER_SIZE, newDynamicHeader({ tableOffset, entries, blockSize: BLOCK_SIZE }));
  await file.flush();
  await file.write(0, footer);
}
