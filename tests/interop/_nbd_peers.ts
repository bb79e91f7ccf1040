/** NBD servers and clients of others. */

import { useReference } from "../_reference.ts";

/** Whether a program is installed. */
export function isInstalled(program: string): boolean {
  try {
    return new Deno.Command(program, { args: ["--version"], stdout: "null", stderr: "null" })
      .outputSync().success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** For `Deno.test({ ignore })` of tests that cannot do without libnbd's programs. */
export const ignoreWithoutLibnbd: boolean = !["nbdinfo", "nbdcopy"].every(isInstalled) &&
  !Deno.env.get("QIMG_REQUIRE_REFERENCE");

/** A `qemu-nbd` that has begun to listen. */
export interface ReferenceServer extends AsyncDisposable {
  /** Its socket. */
  readonly socket: string;
}

/** Starts `qemu-nbd` on a socket in `dir`, which must be short enough. */
export async function startReference(
  dir: string,
  args: readonly string[],
  name = "reference.sock",
): Promise<ReferenceServer> {
  const socket = `${dir}/${name}`;
  const pidFile = `${socket}.pid`;
  await useReference(
    ["--fork", "--persistent", "--pid-file", pidFile, "--socket", socket, ...args],
    { cwd: dir, tool: "qemu-nbd" },
  );
  const pid = Number(await Deno.readTextFile(pidFile));
  return {
    socket,
    async [Symbol.asyncDispose]() {
      Deno.kill(pid, "SIGTERM");
      // It removes its socket when all is done.
      while (await exists(`/proc/${pid}/stat`)) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}
