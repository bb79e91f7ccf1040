/**
 * Replaying the log (section 4 of the format's reference).
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { readU32LE } from "../../lib/bytes/endian.ts";
import { hasSignature, invalid, MIB } from "./_layout.ts";
import { NO_GUID } from "./guid.ts";
import type { Headers } from "./headers.ts";
import {
  descriptorBytes,
  LOG_SECTOR,
  type LogEntry,
  LogRing,
  LogSignature,
  readDescriptors,
} from "./log.ts";

/**
 * Does to the file what the entries say, and empties the log. Whoever is interrupted can begin anew.
 *
 * @throws {ImageError} `EINVAL` for entries that cannot be true.
 */
export async function replaySequence(
  file: BlockNode,
  headers: Headers,
  entries: readonly LogEntry[],
): Promise<void> {
  const ring = new LogRing(file, headers);
  await headers.update({ data: true });
  for (const entry of entries) await replayEntry(file, ring, entry);
  await file.flush();
  await headers.update({ logGuid: NO_GUID });
}

async function replayEntry(file: BlockNode, ring: LogRing, entry: LogEntry): Promise<void> {
  const { flushedOffset, lastOffset } = entry;
  if (flushedOffset > BigInt(file.length)) throw invalid(file, "log: flushed file offset");
  let data = entry.position + descriptorBytes(entry.descriptors);
  const sector = new Uint8Array(LOG_SECTOR);
  for await (const descriptor of readDescriptors(ring, entry)) {
    if (descriptor === undefined) throw invalid(file, "log: descriptor");
    if (descriptor.kind === "zero") {
      const end = descriptor.offset + descriptor.length;
      if (end > Number.MAX_SAFE_INTEGER) throw invalid(file, "log: zero descriptor");
      await zero(file, Number(descriptor.offset), Number(end));
      continue;
    }
    if (descriptor.offset > Number.MAX_SAFE_INTEGER - LOG_SECTOR) {
      throw invalid(file, "log: data descriptor");
    }
    await ring.read(data, sector);
    data += LOG_SECTOR;
    const sequence = BigInt(readU32LE(sector, 4)) << 32n |
      BigInt(readU32LE(sector, LOG_SECTOR - 4));
    if (!hasSignature(sector, LogSignature.data) || sequence !== entry.sequence) {
      throw invalid(file, "log: data sector");
    }
    sector.set(descriptor.leading);
    sector.set(descriptor.trailing, LOG_SECTOR - descriptor.trailing.length);
    await file.write(Number(descriptor.offset), sector);
  }
  if (BigInt(file.length) >= lastOffset) return;
  if (lastOffset > Number.MAX_SAFE_INTEGER - MIB) throw invalid(file, "log: last file offset");
  await file.resize(alignUp(Number(lastOffset), MIB), "off");
}

/** Only what is there has to be written: a file grows by zeros. */
async function zero(file: BlockNode, offset: number, end: number): Promise<void> {
  const inside = Math.min(end, file.length) - offset;
  if (inside > 0) await file.writeZeroes(offset, inside, { unmap: true });
  if (end > file.length) await file.resize(end, "off");
}
