/**
 * The main module of the copy engine's workers: does jobs as they come.
 *
 * @module
 */
import type { JobMessage, ResultMessage, SetupMessage } from "./job.ts";
import { JobRunner } from "./runner.ts";

/** What there is in a worker in place of a window. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<SetupMessage | JobMessage>) => void) | null;
  postMessage(message: ResultMessage): void;
}

const scope = globalThis as unknown as WorkerScope;
let runner: JobRunner | undefined;
// A job waits while files are opened or a codec is loaded; the next one must not overtake it.
let last: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }) => {
  if ("slots" in data) {
    runner = new JobRunner(data.slots, { forMuch: true });
    return;
  }
  last = last.then(() => doJob(data));
};

async function doJob({ id, job }: JobMessage): Promise<void> {
  try {
    scope.postMessage({ id, result: await runner!.run(job) });
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    scope.postMessage({ id, result: undefined, error: text });
  }
}
