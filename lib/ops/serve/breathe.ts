/** Lets everybody else do something first: long work in one go would hold all other clients. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
