/**
 * Runs a qimg command line and then tries what the process, and a worker
 * started after it, may still do. Prints the outcome as JSON on standard error.
 */

/** What succeeded. */
export interface Attempts {
  /** A file was written. */
  readonly write: boolean;
  /** A port was opened. */
  readonly net: boolean;
  /** A program was started. */
  readonly run: boolean;
  /** The environment was read. */
  readonly env: boolean;
  /** The system was asked about itself. */
  readonly sys: boolean;
  /** A library was loaded. */
  readonly ffi: boolean;
  /** A file was read. */
  readonly read: boolean;
}

function succeeds(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch (error) {
    // Anything else (no such library) shows that the permission was there.
    return !(error instanceof Deno.errors.NotCapable);
  }
}

function attempt(dir: string): Attempts {
  return {
    write: succeeds(() => Deno.writeTextFileSync(`${dir}/written`, "x")),
    net: succeeds(() => Deno.listen({ hostname: "127.0.0.1", port: 0 }).close()),
    run: succeeds(() => new Deno.Command(Deno.execPath(), { args: ["--version"] }).outputSync()),
    env: succeeds(() => Deno.env.get("HOME")),
    sys: succeeds(() => Deno.hostname()),
    ffi: succeeds(() => Deno.dlopen("no-such-library", {})),
    read: succeeds(() => [...Deno.readDirSync(dir)]),
  };
}

const isWorker = "postMessage" in globalThis;

if (isWorker) {
  self.addEventListener("message", (event) => {
    const { postMessage } = globalThis as unknown as { postMessage(message: unknown): void };
    postMessage(attempt((event as MessageEvent<string>).data));
  });
} else if (import.meta.main) {
  const [dir = ".", ...args] = Deno.args;
  const { processIo, runCli } = await import("../../lib/cli/run.ts");
  await runCli(args, { ...processIo(), stderr: { writeSync: (bytes) => bytes.length } });
  const worker = new Worker(import.meta.url, { type: "module" });
  const answer = new Promise<Attempts>((resolve) =>
    worker.addEventListener("message", (event) => resolve(event.data))
  );
  worker.postMessage(dir);
  console.error(JSON.stringify({ main: attempt(dir), worker: await answer }));
  worker.terminate();
}
