/**
 * The main module of the copy engine's workers: does jobs as they come, or works hand in hand with the
 * thread that started it.
 *
 * @module
 */
import { Assistant } from "./assist.ts";
import type { JobMessage, ResultMessage, WorkerMessage } from "./job.ts";
import { JobRunner } from "./runner.ts";

/** What there is in a worker in place of a window. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<WorkerMessage>) => void) | null;
  postMessage(message: ResultMessage | null): void;
}

const scope = globalThis as unknown as WorkerScope;
let runner: JobRunner | undefined;
// A job waits while files are opened or a codec is loaded; the next one must not overtake it.
let last: Promise<void> = Promise.resolve();
let assistant: Assistant | undefined;

scope.onmessage = ({ data }) => {
  if ("slots" in data) runner = new JobRunner(data.slots, { forMuch: true });
  else if ("job" in data) last = last.then(() => doJob(data));
  else if ("partner" in data) assistant = new Assistant(data.partner, data.buffers);
  else if ("file" in data) last = last.then(() => assistant!.open(data.file));
  else {last = last.then(() => {
      assistant!.write(data.batch, data.write);
      if (data.tell) scope.postMessage(null);
    });}
};

async function doJob({ id, job }: JobMessage): Promise<void> {
  try {
    scope.postMessage({ id, result: await runner!.run(job) });
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    scope.postMessage({ id, result: undefined, error: text });
  }
}
