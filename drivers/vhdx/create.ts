/**
 * Making an image (section 5 of the format's reference).
 *
 * @module
 */
import type { CreateRequest } from "../../lib/block/driver.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { alignUp, divideUp } from "../../lib/bytes/align.ts";
import { writeU32LE } from "../../lib/bytes/endian.ts";
import {
  BlockState,
  CHUNK_SECTORS,
  HEADERS_AT,
  MIB,
  putSignature,
  REGION_TABLES_AT,
} from "./_layout.ts";
import { ENTRY_SIZE } from "./block_table.ts";
import { newHeaders } from "./headers.ts";
import { newMetadata, tableEntries } from "./metadata.ts";
import { createParameters } from "./options.ts";
import { SIGNATURE } from "./probe.ts";
import { newRegionTable } from "./regions.ts";

/** Who made the file: it says so in UTF-16 behind the signature. */
const CREATOR = "qimg";

/** Bytes of the table that are written at a time. */
const STEP = 1 << 20;

/** Between the table and the first block, metadata and some room. */
const BEHIND_TABLE = 5 * MIB;

const SECTOR = 512;

/**
 * Makes an image. Options are checked before anything is touched.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const { length, logLength, blockSize, isFixed, zeroState } = createParameters(request.options);
  const chunkRatio = CHUNK_SECTORS * SECTOR / blockSize;
  const entries = tableEntries({ length, blockSize, chunkRatio, hasParent: false });
  const table = { offset: MIB + logLength, length: alignUp(entries * ENTRY_SIZE, MIB) };
  const metadata = { offset: table.offset + table.length, length: MIB };
  const dataOffset = metadata.offset + BEHIND_TABLE;
  await using file = await request.createBase();
  await file.resize(isFixed ? dataOffset + length : dataOffset, "off");
  await writeTable(file, table.offset, divideUp(length, blockSize), chunkRatio, (block) => {
    if (zeroState) return { state: BlockState.zero, offset: 0 };
    if (!isFixed) return { state: BlockState.notPresent, offset: 0 };
    return {
      state: BlockState.fullyPresent,
      offset: alignUp(dataOffset + block * blockSize, MIB),
    };
  });
  await file.write(metadata.offset, newMetadata({ length, blockSize, isFixed }));
  const regions = newRegionTable({ table, metadata });
  for (const at of REGION_TABLES_AT) await file.write(at, regions);
  // Before its headers are there the file is nobody's image.
  await file.flush();
  for (const [i, header] of newHeaders(logLength).entries()) {
    await file.write(HEADERS_AT[i]!, header);
  }
  await file.write(0, identifier());
  await file.flush();
}

function identifier(): Uint8Array {
  const bytes = new Uint8Array(SIGNATURE.length + CREATOR.length * 2);
  putSignature(bytes, SIGNATURE);
  for (let i = 0; i < CREATOR.length; i++) {
    bytes[SIGNATURE.length + i * 2] = CREATOR.charCodeAt(i);
  }
  return bytes;
}

/** Writes the entries of all blocks; those of sector bitmaps, between them, stay zero. */
async function writeTable(
  file: BlockNode,
  position: number,
  blocks: number,
  chunkRatio: number,
  entryOf: (block: number) => { readonly state: number; readonly offset: number },
): Promise<void> {
  // Offsets of blocks have all their bits above those of the state.
  const end = blocks === 0 ? 0 : blocks + Math.floor((blocks - 1) / chunkRatio);
  for (let first = 0; first < end; first += STEP / ENTRY_SIZE) {
    const count = Math.min(STEP / ENTRY_SIZE, end - first);
    const bytes = new Uint8Array(count * ENTRY_SIZE);
    for (let i = 0; i < count; i++) {
      const index = first + i;
      if (index % (chunkRatio + 1) === chunkRatio) continue;
      const { state, offset } = entryOf(index - Math.floor(index / (chunkRatio + 1)));
      writeU32LE(bytes, i * ENTRY_SIZE, offset % 2 ** 32 + state);
      writeU32LE(bytes, i * ENTRY_SIZE + 4, Math.floor(offset / 2 ** 32));
    }
    await file.write(position + first * ENTRY_SIZE, bytes);
  }
}
