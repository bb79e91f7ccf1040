/**
 * Making an image (section 4 of the format's reference).
 *
 * @module
 */
import type { CreateRequest } from "../../lib/block/driver.ts";
import { writeU32LE } from "../../lib/bytes/endian.ts";
import { BLOCK_SIZE, mapSize, MAX_DISK, newHeader, SECTOR, tooLarge } from "./header.ts";

/** Bytes of the map that are written at a time. */
const STEP = 1 << 20;

/**
 * Makes an image.
 *
 * @throws {ImageError} for a size that the format does not have; nothing was made then.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const { options } = request;
  const wanted = options.exact("size") ?? 0n;
  const sector = BigInt(SECTOR);
  const rounded = (wanted + sector - 1n) / sector * sector;
  if (rounded > MAX_DISK) throw tooLarge(rounded);
  const length = Number(rounded);
  const blocks = Math.ceil(length / BLOCK_SIZE);
  const isStatic = options.flag("static");
  await using file = await request.createBase();
  await file.write(0, newHeader(length, blocks, isStatic));
  const size = mapSize(blocks);
  for (let at = 0; at < size; at += STEP) {
    const bytes = new Uint8Array(Math.min(STEP, size - at));
    const first = at / 4;
    const count = Math.min(bytes.length / 4, blocks - first);
    if (!isStatic) bytes.fill(0xff, 0, count * 4);
    else for (let i = 0; i < count; i++) writeU32LE(bytes, i * 4, first + i);
    await file.write(SECTOR + at, bytes);
  }
  if (isStatic) await file.resize(SECTOR + size + blocks * BLOCK_SIZE, "off");
  await file.flush();
}
