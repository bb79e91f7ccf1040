import { ImageError } from "../../lib/block/error.ts";
import type { NodeAccess } from "../../lib/block/mode.ts";
import { HostError } from "../../lib/io/errno.ts";
import type { HostFile } from "../../lib/io/host_file.ts";
import { ImageLock, LockConflictError } from "../../lib/io/locks.ts";
import type { NativeFile } from "../../lib/io/native.ts";
import { ProcessLock } from "./_locks.ts";

/** The locks of one open file. */
export interface FileLock extends Disposable {
  /** Takes what is new and gives back what is wanted no longer. */
  change(access: NodeAccess): void;
}

/**
 * Locks an open file against other users: against those of other processes where native calls are
 * available, at least against those of this process where not.
 *
 * @throws {ImageError} `Failed to get … lock` with a hint, if another user is in the way.
 */
export function lockFile(
  host: HostFile,
  native: NativeFile | undefined,
  access: NodeAccess,
): FileLock {
  return explained(host.path, () => {
    if (native !== undefined) return ImageLock.acquire(native, access);
    const lock = new ProcessLock(host);
    lock.change(access);
    return lock;
  });
}

/** Changes what a lock holds; the same errors. */
export function changeLock(host: HostFile, lock: FileLock, access: NodeAccess): void {
  explained(host.path, () => lock.change(access));
}

function explained<T>(filename: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof LockConflictError) {
      throw new ImageError(error.message, {
        errno: "EAGAIN",
        hint: error.hint,
        file: filename,
        cause: error,
      });
    }
    if (error instanceof HostError) {
      throw new ImageError(`Failed to ${error.operation} '${filename}': ${error.message}`, {
        errno: error.errno,
        file: filename,
        cause: error,
      });
    }
    throw error;
  }
}
