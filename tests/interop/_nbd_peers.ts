/** NBD servers and clients of others. */

/** Whether a program is installed: `question` is an argument with which it does nothing but end well. */
export function isInstalled(program: string, question = "--version"): boolean {
  try {
    return new Deno.Command(program, { args: [question], stdout: "null", stderr: "null" })
      .outputSync().success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** For `Deno.test({ ignore })` of tests that cannot do without libnbd's programs. */
export const ignoreWithoutLibnbd: boolean =
  !["nbdinfo", "nbdcopy"].every((program) => isInstalled(program)) &&
  !Deno.env.get("QIMG_REQUIRE_REFERENCE");

/** A server that has begun to listen. */
export interface ReferenceServer extends AsyncDisposable {
  /** Its socket. */
  readonly socket: string;
}

/** For `Deno.test({ ignore })` of tests that cannot do without nbdkit. */
export const ignoreWithoutNbdkit: boolean = !isInstalled("nbdkit") &&
  !Deno.env.get("QIMG_REQUIRE_REFERENCE");

/** Starts `qemu-nbd` on a socket in `dir`, which must be short enough. */
export async function startReference(
  dir: string,
  args: readonly string[],
  name = "reference.sock",
): Promise<ReferenceServer> {
  const socket = `${dir}/${name}`;
  return await start("qemu-nbd", ["--persistent", "--socket", socket, ...args], dir, socket);
}

/** Starts `nbdkit` on a socket in `dir`, which must be short enough. */
export async function startNbdkit(
  dir: string,
  args: readonly string[],
  name = "nbdkit.sock",
): Promise<ReferenceServer> {
  const socket = `${dir}/${name}`;
  return await start("nbdkit", ["--foreground", "--unix", socket, ...args], dir, socket);
}

async function start(
  program: string,
  args: readonly string[],
  cwd: string,
  socket: string,
): Promise<ReferenceServer> {
  const child = new Deno.Command(program, {
    args: [...args],
    cwd,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let hasEnded = false;
  child.status.then(() => hasEnded = true);
  while (!await accepts(socket)) {
    if (hasEnded) throw new Error(`${program} ${args.join(" ")} has ended`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return {
    socket,
    async [Symbol.asyncDispose]() {
      if (!hasEnded) child.kill("SIGTERM");
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
