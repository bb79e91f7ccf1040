/**
 * Image locks for a process without native calls. Other processes do not see them, but copying a file
 * onto itself is refused all the same.
 *
 * @module
 */
import { LockConflictError, type LockRequest } from "../../lib/io/locks.ts";
import type { HostFile } from "../../lib/io/host_file.ts";

/** By file, the requests of all who have it open. */
const holders = new Map<string, Set<ProcessLock>>();

const NOTHING: LockRequest = { uses: [], unshares: [] };

/** What one user of a file in this process holds. */
export class ProcessLock implements Disposable {
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
