/** External memory for which the collector is reminded once, bytes. */
const STEP = 32 << 10;

/** What keeps an engine from leaving out what nobody reads. */
let waste: readonly number[] = [];

/**
 * Reminds the collector of `bytes` of dead memory outside of its heap: what the platform allocates there for
 * a moment it counts late, so that each thread gathers up to 64 MiB of it. It runs by how much of its own
 * heap is used, so a little of that is used up.
 */
export function remindCollector(bytes: number): void {
  for (let rest = bytes; rest >= STEP; rest -= STEP) waste = new Array(1000).fill(waste.length);
}
