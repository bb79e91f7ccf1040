/**
 * Copies `from`, which nobody uses any more, to the begin of `into`, and gives its memory back at once: left
 * to the collector, what the platform answers with adds up to 64 MiB in every thread. `owned` is the length
 * of its buffer in bytes if that is of its own; one of another length may hold other things and is left alone.
 */
export function moveTo(into: Uint8Array, from: Uint8Array, owned: number = from.length): void {
  into.set(from);
  const { buffer } = from;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === owned) buffer.transfer(0);
}
