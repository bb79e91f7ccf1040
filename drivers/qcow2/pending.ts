/** Allocations whose bytes are still being written. */
export class PendingRuns {
  /** Resolves when nothing in a guest range is pending. */
  settled(_offset: number, _length: number): Promise<void> {
    throw new Error("being written");
  }
}
