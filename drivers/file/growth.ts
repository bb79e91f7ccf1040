import { ImageError } from "../../lib/block/error.ts";
import type { Preallocation } from "../../lib/block/node.ts";
import { alignedBytes } from "../../lib/io/aligned_buffer.ts";
import type { HostFile } from "../../lib/io/host_file.ts";
import type { NativeFile } from "../../lib/io/native.ts";
import { failed } from "./_errors.ts";

const ZEROS_LENGTH = 1 << 20;
/** The largest block that direct I/O may ask for. */
const FIRST_BLOCK = 4096;
const SECTOR = 512;

let zeroBytes: Uint8Array | undefined;

/** Writes zeros over a range, in steps. Throws `HostError`. */
export function writeZeroBytes(host: HostFile, offset: number, length: number): void {
  const zeros = zeroBytes ??= alignedBytes(ZEROS_LENGTH);
  for (let done = 0; done < length; done += ZEROS_LENGTH) {
    const rest = length - done;
    host.writeAt(offset + done, rest < ZEROS_LENGTH ? zeros.subarray(0, rest) : zeros);
  }
}

/**
 * Sets the length of a regular file from `before` to `after`; raw reference, section 3.
 *
 * A file that was empty gets its first block written, so that it is allocated and direct I/O can find
 * out the alignment that it needs. After an error the old length is restored.
 *
 * @throws {ImageError} `Could not resize file: …`, `Could not preallocate new data: …`.
 */
export function setFileLength(
  host: HostFile,
  native: NativeFile | undefined,
  before: number,
  after: number,
  how: Preallocation,
): void {
  const filename = host.path;
  if (how === "metadata") {
    throw new ImageError(`Unsupported preallocation mode: ${how}`, {
      errno: "ENOTSUP",
      file: filename,
    });
  }
  if (after < before && how !== "off") {
    throw new ImageError("Cannot use preallocation for shrinking files", {
      errno: "ENOTSUP",
      file: filename,
    });
  }
  const guarded = (prefix: string, body: () => void) => {
    try {
      body();
    } catch (error) {
      try {
        host.truncate(before);
      } catch {
        // The first error is the one to know of.
      }
      throw failed(prefix, error, filename);
    }
  };
  const COULD_NOT_RESIZE = "Could not resize file: ";
  const COULD_NOT_PREALLOCATE = "Could not preallocate new data: ";
  // Above that no offset would be exact any more, and further up not even a 64-bit one.
  if (!Number.isSafeInteger(after)) {
    const errno = after < 2 ** 63 ? "EFBIG" : "EINVAL";
    throw ImageError.fromErrno(errno, { file: filename }).prefixed(
      how === "falloc" ? COULD_NOT_PREALLOCATE : COULD_NOT_RESIZE,
    );
  }
  if (how === "falloc" && native !== undefined) {
    guarded(COULD_NOT_PREALLOCATE, () => {
      if (after > before) native.preallocate(before, after - before);
    });
  } else {
    guarded(COULD_NOT_RESIZE, () => host.truncate(after));
    if (how !== "off") {
      // Without native calls writing is the only way to reserve space.
      guarded("Could not write zeros for preallocation: ", () => {
        writeZeroBytes(host, before, after - before);
      });
      guarded("Could not flush file to disk: ", () => host.sync());
      return;
    }
  }
  if (before === 0 && after > 0) {
    try {
      writeZeroBytes(host, 0, after < FIRST_BLOCK ? SECTOR : FIRST_BLOCK);
    } catch {
      // A file without its first block is as good a file.
    }
  }
}
