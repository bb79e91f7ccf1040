import { CodecError } from "./_codec.ts";

/** From how many bytes on a copy is worth a call. */
const LONG = 32;

/**
 * Appends `length` bytes that `out` has `distance` bytes before `written` already, and answers how many it
 * has then. A distance below the length repeats what was just appended.
 *
 * @throws {CodecError} for bytes before the beginning of `out`, or behind its end.
 */
export function copyBack(
  out: Uint8Array,
  written: number,
  distance: number,
  length: number,
): number {
  if (distance === 0 || distance > written) {
    throw new CodecError("a match lies before the beginning of the data");
  }
  const end = written + length;
  if (end > out.length) throw new CodecError("the data are longer than their cluster");
  let from = written - distance;
  if (distance === 1 && length >= LONG) out.fill(out[from]!, written, end);
  else if (distance >= length && length >= LONG) out.copyWithin(written, from, from + length);
  else for (let at = written; at < end;) out[at++] = out[from++]!;
  return end;
}
