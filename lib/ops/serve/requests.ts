/**
 * What clients may ask for.
 *
 * @module
 */
import { readU32BE, readU64BE } from "../../bytes/endian.ts";
import type { Errno } from "../../io/errno.ts";
import { COMMAND, COMMAND_FLAG, LIMIT } from "../../nbd/constants.ts";
import type { ReceivedRequest } from "../../nbd/transmission.ts";
import { commandWord } from "../../nbd/words.ts";
import type { Agreement, ReplyStyle, SelectedContext } from "./handshake.ts";

/** A request that can be done. */
export interface CheckedRequest {
  /** Its command. */
  readonly command: number;
  /** Its flags. */
  readonly flags: number;
  /** First byte. */
  readonly offset: number;
  /** Bytes, all of them within the export. */
  readonly length: number;
  /** What a block status is to tell. */
  readonly contexts: readonly SelectedContext[];
}

/** Why a request is not done. The text is for the client. */
export class Refusal extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "Refusal";
  /** The error for the client. */
  readonly errno: Errno;

  /** Refuses with an error and a text. */
  constructor(errno: Errno, message: string) {
    super(message);
    this.errno = errno;
  }
}

const { read, write, flush, trim, cache, writeZeroes, blockStatus } = COMMAND;
const { fua, noHole, dontFragment, requestOne, fastZero, payloadLength } = COMMAND_FLAG;

/** The flags that commands take beside FUA, which means nothing to those that do not write. */
const FLAGS: Readonly<Record<number, number>> = {
  [read]: dontFragment,
  [write]: payloadLength,
  [flush]: 0,
  [trim]: 0,
  [cache]: 0,
  [writeZeroes]: noHole | fastZero,
  [blockStatus]: requestOne | payloadLength,
};

/** What flags mean depends on what was agreed upon. */
const STYLE_FLAGS: Readonly<Record<ReplyStyle, number>> = {
  simple: fua | noHole | fastZero,
  structured: fua | noHole | fastZero | dontFragment | requestOne,
  extended: fua | noHole | fastZero | dontFragment | requestOne | payloadLength,
};

/** Whether a command changes the disk. */
export function isWriting(command: number): boolean {
  return command === write || command === trim || command === writeZeroes;
}

/** Whether data follow a request. */
export function hasPayload({ command, flags }: ReceivedRequest, style: ReplyStyle): boolean {
  return command === write || (style === "extended" && (flags & payloadLength) !== 0);
}

/** What to say of a request with more data than anybody may send or get. */
export function tooLong(length: bigint): string {
  return `len (${length}) is larger than max len (${LIMIT.transfer})`;
}

/**
 * Whether a request can be done with an export of `size` bytes. `payload` is what followed it, if it is no
 * write.
 *
 * @throws {Refusal} if not.
 */
export function checkRequest(
  { command, flags, offset, length }: ReceivedRequest,
  payload: Uint8Array | undefined,
  { style, contexts: selected }: Agreement,
  { size, readOnly }: { readonly size: number; readonly readOnly: boolean },
): CheckedRequest {
  const allowed = FLAGS[command];
  if (allowed === undefined) {
    throw new Refusal("EINVAL", `invalid request type (${command}) received`);
  }
  if ((flags & ~((allowed | fua) & STYLE_FLAGS[style])) !== 0) {
    const word = `unsupported flags for command ${commandWord(command)}`;
    throw new Refusal("EINVAL", `${word} (got 0x${flags.toString(16)})`);
  }
  if (isWriting(command) && readOnly) throw new Refusal("EPERM", "Export is read-only");
  if (command === flush) return { command, flags, offset: 0, length: 0, contexts: [] };
  if ((command === read || command === cache) && length > LIMIT.transfer) {
    throw new Refusal("EINVAL", tooLong(length));
  }
  let [contexts, wanted] = [selected, length];
  if (command === blockStatus) {
    if (selected.length === 0) throw new Refusal("EINVAL", "CMD_BLOCK_STATUS not negotiated");
    if (payload !== undefined) [contexts, wanted] = readStatusPayload(payload, selected);
    if (wanted === 0n) throw new Refusal("EINVAL", "need non-zero length");
  }
  if (offset + wanted > size) {
    throw new Refusal(
      command === write || command === writeZeroes ? "ENOSPC" : "EINVAL",
      `operation past EOF; From: ${offset}, Len: ${wanted}, Size: ${size}`,
    );
  }
  return { command, flags, offset: Number(offset), length: Number(wanted), contexts };
}

/** A block status for some of the contexts only: these, and the length that is meant. */
function readStatusPayload(
  payload: Uint8Array,
  selected: readonly SelectedContext[],
): [contexts: readonly SelectedContext[], length: bigint] {
  const count = (payload.length - 8) / 4;
  if (Number.isInteger(count) && count >= 1 && count <= selected.length) {
    const ids = new Set(Array.from({ length: count }, (_, i) => readU32BE(payload, 8 + 4 * i)));
    const contexts = selected.filter(({ id }) => ids.has(id));
    // No number twice, and none that no context has.
    if (contexts.length === count) return [contexts, readU64BE(payload, 0)];
  }
  throw new Refusal("EINVAL", "CMD_BLOCK_STATUS payload not valid");
}
