/**
 * What ends the haggling. NBD reference, section 2.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { isAligned, isPowerOfTwo } from "../../lib/bytes/align.ts";
import { LIMIT, REPLY_ERROR, REPLY_ERROR_BIT } from "../../lib/nbd/constants.ts";
import type { BlockSizes } from "../../lib/nbd/negotiation.ts";
import { optionWord } from "../../lib/nbd/words.ts";

/** A channel is left in good order after such a failure: the server gets a word of goodbye. */
export class Refusal extends ImageError {}

/** What the server must not say, or this client does not take. */
export function refused(message: string): Refusal {
  return new Refusal(message, { errno: "EINVAL" });
}

/** What is not NBD, and deserves no word. */
export function invalid(message: string, cause?: unknown): ImageError {
  return new ImageError(message, { errno: "EINVAL", cause });
}

/** Whether a reply to an option is an error. */
export function isError(type: number): boolean {
  return type >= REPLY_ERROR_BIT;
}

/** The error that a server answered an option with; `text` is what it says of it. */
export function serverError(option: number, type: number, text: string): Refusal {
  const hints = type === REPLY_ERROR.tlsRequired ? ["Did you forget a valid tls-creds?"] : [];
  if (text !== "") hints.push(`server reported: ${text}`);
  return new Refusal(refusalWords(type, `option ${option} (${optionWord(option)})`), {
    errno: "EINVAL",
    hint: hints.length === 0 ? undefined : hints.join("\n"),
  });
}

/** @throws {ImageError} for bounds of requests that make no sense, or not with an export of `size` bytes. */
export function requireBlockSizes({ minimum, preferred, maximum }: BlockSizes, size: number): void {
  if (!isPowerOfTwo(minimum)) {
    throw refused(`server minimum block size ${minimum} is not a power of two`);
  }
  if (!isPowerOfTwo(preferred) || preferred < minimum) {
    throw refused(`server preferred block size ${preferred} is not valid`);
  }
  if (maximum < minimum) throw refused(`server maximum block size ${maximum} is not valid`);
  if (!isAligned(size, minimum)) {
    throw refused(`export size ${size} is not multiple of minimum block size ${minimum}`);
  }
  if (minimum > LIMIT.transfer) {
    throw refused(`server minimum block size ${minimum} is larger than any request`);
  }
}

function refusalWords(type: number, what: string): string {
  switch (type) {
    case REPLY_ERROR.unsupported:
      return `Unsupported option type for ${what}`;
    case REPLY_ERROR.policy:
      return `Denied by server for ${what}`;
    case REPLY_ERROR.invalid:
      return `Invalid parameters for ${what}`;
    case REPLY_ERROR.platform:
      return `Server lacks support for ${what}`;
    case REPLY_ERROR.tlsRequired:
      return `TLS negotiation required before ${what}`;
    case REPLY_ERROR.unknown:
      return "Requested export not available";
    case REPLY_ERROR.shutdown:
      return `Server shutting down before ${what}`;
    case REPLY_ERROR.blockSizeRequired:
      return `Server requires INFO_BLOCK_SIZE for ${what}`;
    default:
      return `Unknown error code when asking for ${what}`;
  }
}
