/**
 * Image locking as QEMU does it, so that the two see each other: shared OFD locks on single bytes of
 * the file. Command-line reference, section 5.
 *
 * @module
 */
import type { NativeFile } from "./native.ts";

/** What a user of an image does, or lets nobody else do. */
export type LockPermission = "consistent read" | "write" | "write unchanged" | "resize";

/** In the order of their bytes, which is also the order of the tests. */
const PERMISSIONS: readonly LockPermission[] = [
  "consistent read",
  "write",
  "write unchanged",
  "resize",
];

/** Byte `USES + i` says: I use permission i. */
const USES = 100;
/** Byte `UNSHARES + i` says: I do not let others have permission i. */
const UNSHARES = 200;

/** What a user of an image does, and does not tolerate. */
export interface LockRequest {
  /** What this user does. */
  uses: readonly LockPermission[];
  /** What others must not do meanwhile. */
  unshares: readonly LockPermission[];
}

/** Somebody uses the image in a way that conflicts. The message is the reference tool's, without the hint. */
export class LockConflictError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "LockConflictError";
  /** The permission that met the conflict. */
  readonly permission: LockPermission;
  /** Whether it is about not sharing the permission, rather than about using it. */
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

/**
 * The locks that one user of an image holds. They live with the descriptor: closing it releases them,
 * and the process' end does.
 */
export class ImageLock implements Disposable {
  readonly #file: NativeFile;
  #held: ReadonlySet<number> = new Set();

  private constructor(file: NativeFile) {
    this.#file = file;
  }

  /**
   * Locks the image that `file` is a descriptor of; the descriptor must have no other lock and stay open as
   * long as the lock is wanted. Throws {@linkcode LockConflictError}, and `HostError` where the host
   * cannot lock.
   */
  static acquire(file: NativeFile, request: LockRequest): ImageLock {
    const lock = new ImageLock(file);
    lock.change(request);
    return lock;
  }

  /**
   * Takes what is new, tests all that is wanted for conflicts, then gives back what is wanted no longer;
   * after an error all is as before. Throws {@linkcode LockConflictError}, and `HostError` where the
   * host cannot lock.
   */
  change(request: LockRequest): void {
    const wanted = new Set([
      ...bytesOf(USES, request.uses),
      ...bytesOf(UNSHARES, request.unshares),
    ]);
    const before = this.#held;
    try {
      // Locked before tested: of two that come at once at least one sees the other.
      for (const byte of wanted) {
        if (!before.has(byte)) this.#file.lockByte(byte);
      }
      this.#test(request);
    } catch (error) {
      this.#unlockAllBut(before, wanted);
      throw error;
    }
    this.#unlockAllBut(wanted, before);
    this.#held = wanted;
  }

  /** Gives everything back; the descriptor stays open. */
  release(): void {
    this.change({ uses: [], unshares: [] });
  }

  /** Gives everything back. */
  [Symbol.dispose](): void {
    this.release();
  }

  #test({ uses, unshares }: LockRequest): void {
    for (
      const [wanted, theirs, shared] of [[uses, UNSHARES, false], [unshares, USES, true]] as const
    ) {
      for (const [i, permission] of PERMISSIONS.entries()) {
        if (!wanted.includes(permission)) continue;
        if (this.#file.isByteLocked(theirs + i)) {
          throw new LockConflictError(this.#file.path, permission, shared);
        }
      }
    }
  }

  #unlockAllBut(kept: ReadonlySet<number>, bytes: ReadonlySet<number>): void {
    for (const byte of bytes) {
      if (!kept.has(byte)) this.#file.unlockByte(byte);
    }
  }
}

function bytesOf(base: number, permissions: readonly LockPermission[]): number[] {
  return PERMISSIONS.flatMap((permission, i) => permissions.includes(permission) ? [base + i] : []);
}
