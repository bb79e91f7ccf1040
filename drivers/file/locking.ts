import { ImageError } from "../../lib/block/error.ts";
import type { NodeAccess } from "../../lib/block/mode.ts";
import { HostError } from "../../lib/io/errno.ts";
import type { HostFile } from "../../lib/io/host_file.ts";
import { ImageLock, LockConflictError, type LockRequest } from "../../lib/io/locks.ts";
import type { NativeFile } from "../../lib/io/native.ts";

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

/** By file, the requests of all who have it open. */
const holders = new Map<string, Set<ProcessLock>>();

const NOTHING: LockRequest = { uses: [], unshares: [] };

/**
 * What one user of a file holds where there are no native calls. Other processes do not see it, but to
 * copy a file onto itself is refused all the same.
 */
class ProcessLock implements Disposable {
  readonly #host: HostFile;
  readonly #key: string;
  #held = NOTHING;

  /** A lock that holds nothing yet. Throws `HostError`. */
  constructor(host: HostFile) {
    const { device, inode } = host.stat();
    this.#host = host;
    this.#key = inode === undefined ? host.path : `${device}:${inode}`;
  }

  /** Takes what is wanted and gives back the rest, or throws {@linkcode LockConflictError} and changes nothing. */
  change(request: LockRequest): void {
    const users = holders.get(this.#key) ?? new Set();
    for (const other of users) {
      if (other === this) continue;
      for (const permission of request.uses) {
        if (other.#held.unshares.includes(permission)) {
          throw new LockConflictError(this.#host.path, permission, false);
        }
      }
      for (const permission of request.unshares) {
        if (other.#held.uses.includes(permission)) {
          throw new LockConflictError(this.#host.path, permission, true);
        }
      }
    }
    this.#held = request;
    holders.set(this.#key, users.add(this));
  }

  /** Gives everything back. */
  [Symbol.dispose](): void {
    this.#held = NOTHING;
    const users = holders.get(this.#key);
    users?.delete(this);
    if (users?.size === 0) holders.delete(this.#key);
  }
}
