/**
 * What `dist/qimg.js` begins with: one module that is the program, and the main module of its workers
 * where it is started as one.
 */

if (globalThis.constructor.name === "DedicatedWorkerGlobalScope") {
  await import("../lib/ops/copy/worker.ts");
} else {
  await import("../main.ts");
}
