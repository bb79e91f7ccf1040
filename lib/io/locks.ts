/**
 * Image locking as QEMU does it: shared OFD locks on single bytes of the file. Command-line reference, section 5.
 *
 * @module
 */
import type { HostFile } from "./host_file.ts";

/** What a user of an image wants to do, or lets nobody else do. */
export type LockPermission = "consistent read" | "write" | "write unchanged" | "resize";

/** What a user of an image does and does not tolerate. */
export interface LockRequest {
  /** What this user does. */
  uses: readonly LockPermission[];
  /** What others must not do meanwhile. */
  unshares: readonly LockPermission[];
}

/** The image is in use by somebody whose use conflicts. The message is the reference tool's, without the hint. */
export class LockConflictError extends Error {
  override readonly name = "LockConflictError";
  /** The permission that met a conflict. */
  readonly permission: LockPermission;
  /** Whether the conflict is about sharing the permission, not about using it. */
  readonly shared: boolean;
  /** The line to print after the message: "Is another process using the image [a.qcow2]?" */
  readonly hint: string;

  /** An error for a conflict on the image `path`. */
  constructor(path: string, permission: LockPermission, shared: boolean) {
    super(`Failed to get ${shared ? "shared " : ""}"${permission}" lock`);
    this.permission = permission;
    this.shared = shared;
    this.hint = `Is another process using the image [${path}]?`;
  }
}

/** The locks that one user holds on one image. */
export interface ImageLock extends Disposable {
  /** What is held. */
  readonly held: LockRequest;
  /** Takes what is new, tests for conflicts, then gives back what is no longer wanted; after an error all is as before. Throws {@linkcode LockConflictError}, `HostError`. */
  change(request: LockRequest): void;
  /** Gives everything back. A second call does nothing. */
  release(): void;
}

/**
 * Locks the image. Where native calls are not available there is no locking, and the answer is `undefined`. Throws
 * {@linkcode LockConflictError}, `HostError`.
 */
export function lockImage(_host: HostFile, _request: LockRequest): ImageLock | undefined {
  throw new Error("being written");
}
