import { ImageError } from "../../lib/block/error.ts";
import { Incompatible } from "./_layout.ts";
import { hasFeature } from "./header.ts";
import { updateFeatures } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";

/** A number as the reference's `%#x` prints it: zero has no prefix. */
export function hex(value: number): string {
  return value === 0 ? "0" : `0x${value.toString(16)}`;
}

/** Found in a table entry by code that cannot wait: whoever can, reports it with {@linkcode signalCorruption}. */
export class DamagedEntry extends Error {
  /** Always `"DamagedEntry"`. */
  override readonly name = "DamagedEntry";
}

/**
 * Reports a corruption (section 8) and answers with the `EIO` to throw. A
 * fatal one in a writable image marks it corrupt and makes it unusable; only
 * the first one of an open image is reported.
 */
export async function signalCorruption(
  image: Qcow2Image,
  text: string,
  fatal = true,
): Promise<ImageError> {
  const { context, header } = image;
  const marks = fatal && context.mode.writable;
  const error = ImageError.fromErrno("EIO", { file: context.filename, cause: new Error(text) });
  if (image.corruptionReported && (!marks || hasFeature(header, Incompatible.corrupt))) {
    return error;
  }
  image.corruptionReported = true;
  if (!marks) {
    context.report(
      `qcow2: Image is corrupt: ${text}; further non-fatal corruption events will be suppressed`,
    );
    return error;
  }
  context.report(
    `qcow2: Marking image as corrupt: ${text}; further corruption events will be suppressed`,
  );
  image.broken = true;
  try {
    await updateFeatures(image, { set: Incompatible.corrupt });
  } catch {
    // The mark is for later openings; this one refuses everything from now on anyway.
  }
  return error;
}
