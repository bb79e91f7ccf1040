/** NBD servers and clients of others. */

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
  const child = new Deno.Command("qemu-nbd", {
    args: ["--persistent", "--socket", socket, ...args],
    cwd: dir,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let hasEnded = false;
  child.status.then(() => hasEnded = true);
  while (!await accepts(socket)) {
    if (hasEnded) throw new Error(`qemu-nbd ${args.join(" ")} has ended`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return {
    socket,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.status;
    },
  };
}

async function accepts(socket: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path: socket })).close();
    return true;
  } catch {
    return false;
  }
}
