import { ImageError } from "./error.ts";
import type { BlockNode, ZeroFlags } from "./node.ts";

/** Bytes that are written at a time. */
const STEP = 1 << 20;

/**
 * Writes `length` zeros at the guest's `offset` by means of `write`, for formats in which nothing says
 * "zero".
 *
 * @throws {ImageError} `ENOTSUP` if the flags do not want them written, and what `write` throws.
 */
export async function writeZeroData(
  { filename }: Pick<BlockNode, "filename">,
  offset: number,
  length: number,
  { noFallback = false }: ZeroFlags,
  write: (offset: number, zeros: Uint8Array) => Promise<void>,
): Promise<void> {
  if (noFallback) throw ImageError.fromErrno("ENOTSUP", { file: filename });
  const zeros = new Uint8Array(Math.min(length, STEP));
  for (let done = 0; done < length; done += zeros.length) {
    await write(offset + done, zeros.subarray(0, length - done));
  }
}
