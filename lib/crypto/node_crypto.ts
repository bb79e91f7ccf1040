/** The parts of the platform that the modules here are handed. */
export type NodeCrypto = typeof import("node:crypto");

let loading: Promise<NodeCrypto> | undefined;

/** Loads `node:crypto`, once: it takes 15 ms of a start, so only those who meet encryption pay. */
export function loadNodeCrypto(): Promise<NodeCrypto> {
  return loading ??= import("node:crypto");
}
