/**
 * The two headers, of which one counts (sections 1 and 3 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { isAligned } from "../../lib/bytes/align.ts";
import {
  readU16LE,
  readU32LE,
  readU64LE,
  writeU16LE,
  writeU32LE,
  writeU64LE,
} from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import {
  hasSignature,
  HEADER_SIZE,
  HEADERS_AT,
  invalid,
  isSummed,
  MIB,
  putSignature,
  setSum,
} from "./_layout.ts";
import { GUID_SIZE, newGuid, NO_GUID } from "./guid.ts";

const SIGNATURE = "head";
const VERSION = 1;

const AT = {
  sequence: 8,
  fileWriteGuid: 16,
  dataWriteGuid: 32,
  logGuid: 48,
  logVersion: 64,
  version: 66,
  logLength: 68,
  logOffset: 72,
  end: 80,
} as const;

/** What changes with a header. */
export interface HeaderChanges {
  /** The guest will see other data. */
  readonly data?: boolean;
  /** Entries with this GUID are in the log; {@linkcode NO_GUID}: there are none. */
  readonly logGuid?: Uint8Array;
}

/** The headers of an open image. */
export class Headers {
  readonly #file: BlockNode;
  readonly #copies: [Uint8Array, Uint8Array];
  #active: 0 | 1;
  /** What says that the file was written, for all that is done through this opening. */
  readonly #session = newGuid();

  private constructor(file: BlockNode, copies: [Uint8Array, Uint8Array], active: 0 | 1) {
    this.#file = file;
    this.#copies = copies;
    this.#active = active;
  }

  /**
   * Reads both headers, and finds the one that counts.
   *
   * @throws {ImageError} `No valid VHDX header found`, `EINVAL` for a log that cannot be.
   */
  static async read(file: BlockNode): Promise<Headers> {
    const copies: [Uint8Array, Uint8Array] = [
      new Uint8Array(HEADER_SIZE),
      new Uint8Array(HEADER_SIZE),
    ];
    await readPadded(file, HEADERS_AT[0], copies[0]);
    await readPadded(file, HEADERS_AT[1], copies[1]);
    const active = activeOf(copies);
    if (active === undefined) {
      throw new ImageError("No valid VHDX header found", {
        errno: "EINVAL",
        file: file.filename,
        field: "header",
      });
    }
    const headers = new Headers(file, copies, active);
    headers.#checkLog();
    return headers;
  }

  /** What says which data the disk has: images in front of this one remember it. */
  get dataWriteGuid(): Uint8Array {
    return this.#guid(AT.dataWriteGuid);
  }

  /** What the entries of the log have that count; {@linkcode NO_GUID} if there are none. */
  get logGuid(): Uint8Array {
    return this.#guid(AT.logGuid);
  }

  /** Where the log is. */
  get logOffset(): number {
    return Number(readU64LE(this.#current, AT.logOffset));
  }

  /** How long it is. */
  get logLength(): number {
    return readU32LE(this.#current, AT.logLength);
  }

  /** Whether there is a log to look at. */
  get hasLog(): boolean {
    return this.logLength > 0 && !equalBytes(this.logGuid, NO_GUID);
  }

  /**
   * Changes both headers, one after the other: one of them is whole at any time. What was written before
   * is safe before.
   */
  async update({ data = false, logGuid }: HeaderChanges): Promise<void> {
    const dataGuid = data ? newGuid() : undefined;
    for (let i = 0; i < 2; i++) {
      const next = this.#active === 0 ? 1 : 0;
      const bytes = this.#current.slice();
      writeU64LE(bytes, AT.sequence, readU64LE(bytes, AT.sequence) + 1n);
      bytes.set(this.#session, AT.fileWriteGuid);
      if (dataGuid !== undefined) bytes.set(dataGuid, AT.dataWriteGuid);
      if (logGuid !== undefined) bytes.set(logGuid, AT.logGuid);
      setSum(bytes);
      await this.#file.write(HEADERS_AT[next], bytes);
      await this.#file.flush();
      this.#copies[next] = bytes;
      this.#active = next;
    }
  }

  get #current(): Uint8Array {
    return this.#copies[this.#active];
  }

  #guid(at: number): Uint8Array {
    return this.#current.slice(at, at + GUID_SIZE);
  }

  #checkLog(): void {
    const offset = readU64LE(this.#current, AT.logOffset);
    if (
      offset < MIB || offset > Number.MAX_SAFE_INTEGER ||
      !isAligned(this.logOffset, MIB) || readU16LE(this.#current, AT.logVersion) !== 0
    ) throw invalid(this.#file, "log");
    if (this.hasLog && !isAligned(this.logLength, MIB)) throw invalid(this.#file, "log length");
  }
}

/** Which of two headers counts. */
function activeOf([first, second]: readonly [Uint8Array, Uint8Array]): 0 | 1 | undefined {
  if (!isValid(first)) return isValid(second) ? 1 : undefined;
  if (!isValid(second)) return 0;
  const [a, b] = [readU64LE(first, AT.sequence), readU64LE(second, AT.sequence)];
  if (a !== b) return a > b ? 0 : 1;
  // Some programs write the same header twice.
  return equalBytes(first.subarray(0, AT.end), second.subarray(0, AT.end)) ? 0 : undefined;
}

function isValid(bytes: Uint8Array): boolean {
  return hasSignature(bytes, SIGNATURE) && readU16LE(bytes, AT.version) === VERSION &&
    isSummed(bytes);
}

/** The two headers of a new image, whose log follows them. */
export function newHeaders(logLength: number): [Uint8Array, Uint8Array] {
  const header = new Uint8Array(HEADER_SIZE);
  putSignature(header, SIGNATURE);
  header.set(newGuid(), AT.fileWriteGuid);
  header.set(newGuid(), AT.dataWriteGuid);
  header.set(NO_GUID, AT.logGuid);
  writeU16LE(header, AT.version, VERSION);
  writeU32LE(header, AT.logLength, logLength);
  writeU64LE(header, AT.logOffset, MIB);
  const second = header.slice();
  const [sequence] = crypto.getRandomValues(new Uint32Array(1));
  writeU64LE(header, AT.sequence, sequence!);
  writeU64LE(second, AT.sequence, sequence! + 1);
  setSum(header);
  setSum(second);
  return [header, second];
}
