/**
 * Changing metadata through the log (sections 3 and 4 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { isAligned } from "../../lib/bytes/align.ts";
import { readU32LE, writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";
import { MIB, putSignature, setSum } from "./_layout.ts";
import { newGuid, NO_GUID } from "./guid.ts";
import type { Headers } from "./headers.ts";
import { ENTRY_AT, LOG_SECTOR, LogSignature } from "./log.ts";

/** An entry with one data descriptor: a sector for that, a sector of data. */
const ENTRY_LENGTH = 2 * LOG_SECTOR;

/** Changes sectors of metadata so that each is, at any time, as it was or as it will be. */
export class LogWriter {
  readonly #file: BlockNode;
  readonly #headers: Headers;
  /** Where the next entry goes. */
  #position = 0;
  #sequence = 1n;
  /** An entry may be in the log that the file is not true to. */
  #isStuck = false;

  /** A writer to the empty log of an image. */
  constructor(file: BlockNode, headers: Headers) {
    this.#file = file;
    this.#headers = headers;
  }

  /**
   * Changes the sector of 4096 bytes at `offset` of the file. What it refers to is safe before it is
   * changed, and it is safe itself when this resolves.
   *
   * @throws {ImageError} `EINVAL` for an image without a proper log; `EIO` after an error that left an entry in
   * the log: it has to be replayed first.
   */
  async change(offset: number, bytes: Uint8Array): Promise<void> {
    const { logOffset, logLength } = this.#headers;
    if (logLength === 0 || !isAligned(logLength, MIB)) {
      throw ImageError.fromErrno("EINVAL", { file: this.#file.filename, field: "log length" });
    }
    if (this.#isStuck) {
      throw ImageError.fromErrno("EIO", { file: this.#file.filename, field: "log" });
    }
    const logGuid = newGuid();
    const position = this.#position;
    const entry = this.#entry(offset, bytes, logGuid);
    await this.#file.flush();
    // Until the entry is whole there is nothing to replay, whatever the headers say.
    await this.#headers.update({ logGuid });
    this.#isStuck = true;
    await this.#file.write(logOffset + position, entry);
    await this.#file.flush();
    await this.#file.write(offset, bytes);
    await this.#file.flush();
    await this.#headers.update({ logGuid: NO_GUID });
    this.#isStuck = false;
    this.#position = (position + ENTRY_LENGTH) % logLength;
    this.#sequence++;
  }

  #entry(offset: number, bytes: Uint8Array, logGuid: Uint8Array): Uint8Array {
    const entry = new Uint8Array(ENTRY_LENGTH);
    putSignature(entry, LogSignature.entry);
    writeU32LE(entry, ENTRY_AT.length, ENTRY_LENGTH);
    // Nothing in front of it is still to be replayed.
    writeU32LE(entry, ENTRY_AT.tail, this.#position);
    writeU64LE(entry, ENTRY_AT.sequence, this.#sequence);
    writeU32LE(entry, ENTRY_AT.descriptors, 1);
    entry.set(logGuid, ENTRY_AT.logGuid);
    writeU64LE(entry, ENTRY_AT.flushedOffset, this.#file.length);
    writeU64LE(entry, ENTRY_AT.lastOffset, this.#file.length);
    const descriptor = entry.subarray(ENTRY_AT.firstDescriptor);
    putSignature(descriptor, LogSignature.dataDescriptor);
    writeU32LE(descriptor, 4, readU32LE(bytes, LOG_SECTOR - 4));
    descriptor.set(bytes.subarray(0, 8), 8);
    writeU64LE(descriptor, 16, offset);
    writeU64LE(descriptor, 24, this.#sequence);
    const data = entry.subarray(LOG_SECTOR);
    data.set(bytes);
    putSignature(data, LogSignature.data);
    writeU32LE(data, 4, Number(this.#sequence >> 32n));
    writeU32LE(data, LOG_SECTOR - 4, Number(this.#sequence & 0xffffffffn));
    setSum(entry);
    return entry;
  }
}
