/** Devices of the host, where tests may use them. */

/** Whether this process may open files below /dev; Deno allows that only with all permissions. */
export const mayOpenDevices: boolean = canOpen("/dev/null");

function canOpen(path: string): boolean {
  try {
    Deno.openSync(path).close();
    return true;
  } catch {
    return false;
  }
}

/** Whether {@linkcode loopDevice} works here: on Linux, for root, with `losetup`. */
export const hasLoopDevices: boolean = canMakeLoops();

function canMakeLoops(): boolean {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  try {
    return losetup("--find").success;
  } catch {
    return false;
  }
}

/** A block device whose content is a file. */
export interface LoopDevice extends Disposable {
  /** Its path. */
  readonly path: string;
}

/** Makes a block device of the file `path`, until it is disposed of. */
export function loopDevice(path: string, { readOnly = false } = {}): LoopDevice {
  const made = losetup(...(readOnly ? ["--read-only"] : []), "--find", "--show", path);
  if (!made.success) throw new Error(`losetup: ${text(made.stderr)}`);
  const device = text(made.stdout);
  return {
    path: device,
    [Symbol.dispose]() {
      losetup("--detach", device);
    },
  };
}

function losetup(...args: readonly string[]): Deno.CommandOutput {
  return new Deno.Command("losetup", { args: [...args] }).outputSync();
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes).trim();
}
