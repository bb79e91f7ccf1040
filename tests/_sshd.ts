/**
 * SSH servers for tests: OpenSSH's own on loopback with keys that are thrown away, its SFTP server without
 * SSH around it, and programs that behave badly in the place of the client.
 */
import { tempDir } from "./_temp.ts";

const SSHD = "/usr/sbin/sshd";
const SFTP_SERVER = "/usr/lib/openssh/sftp-server";

/** How long a server may take to begin, milliseconds. */
const BEGINNING = 30_000;

function isInstalled(...paths: string[]): boolean {
  return paths.every((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

const required = Deno.env.has("QIMG_REQUIRE_REFERENCE");

/** For `Deno.test({ ignore })` of tests that need OpenSSH's server; it is required where the reference is. */
export const sshd = {
  ignore: !required &&
    !isInstalled(SSHD, "/usr/bin/ssh", "/usr/bin/ssh-keygen", "/usr/bin/ssh-agent"),
} as const;

/** The same for its SFTP server alone. */
export const sftpServer = { ignore: !required && !isInstalled(SFTP_SERVER) } as const;

/** A program named `ssh` that this process and those that it starts find first. */
export interface StandIn extends AsyncDisposable {
  /** A folder for anything, resolved. */
  readonly dir: string;
}

/** Puts a shell script in the place of `ssh`; `DIR` in it is the folder. */
export async function standInForSsh(script: string): Promise<StandIn> {
  const dir = await tempDir();
  await Deno.mkdir(dir.file("bin"));
  const text = `#!/bin/sh\n${script.replaceAll("DIR", dir.path)}\n`;
  await Deno.writeTextFile(dir.file("bin/ssh"), text, { mode: 0o755 });
  const path = Deno.env.get("PATH") ?? "";
  Deno.env.set("PATH", `${dir.file("bin")}:${path}`);
  return {
    dir: dir.path,
    async [Symbol.asyncDispose]() {
      Deno.env.set("PATH", path);
      await dir[Symbol.asyncDispose]();
    },
  };
}

/** An `ssh` that speaks to an SFTP server on this machine, whatever the host; its arguments are in `arguments`. */
export function localSftp(before = ""): Promise<StandIn> {
  return standInForSsh(
    `if [ "$(printf '%s\\n' "$@" | grep -x -e -G)" ]; then
       printf 'user tester\\nhostname ignored\\nport 22\\n'; exit 0
     fi
     printf '%s\\n' "$@" > DIR/arguments
     ${before}
     exec ${SFTP_SERVER}`,
  );
}

/** A running `sshd`. */
export interface Sshd extends StandIn {
  /** Its port on 127.0.0.1. */
  readonly port: number;
  /** The name of a file in `dir`. */
  url(name: string): string;
}

/**
 * Starts OpenSSH's server on loopback. The `ssh` that is found first knows its key, and has one that lets it
 * in; so has the agent in `SSH_AUTH_SOCK`.
 */
export async function startSshd(): Promise<Sshd> {
  await using stack = new AsyncDisposableStack();
  const ssh = stack.use(await standInForSsh(`exec /usr/bin/ssh -F DIR/config "$@"`));
  const { dir } = ssh;
  for (const name of ["host_key", "user_key"]) {
    await must("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", `${dir}/${name}`]);
  }
  await Deno.rename(`${dir}/user_key.pub`, `${dir}/authorized_keys`);
  const port = freePort();
  await Deno.writeTextFile(`${dir}/sshd_config`, serverConfig(dir, port));
  await Deno.writeTextFile(`${dir}/config`, clientConfig(dir));
  const key = (await Deno.readTextFile(`${dir}/host_key.pub`)).split(" ").slice(0, 2).join(" ");
  await Deno.writeTextFile(`${dir}/known_hosts`, `[127.0.0.1]:${port} ${key}\n`);
  // Where the server runs as root it wants an empty folder, which packages leave to the system's start.
  if (Deno.uid() === 0) await Deno.mkdir("/run/sshd", { recursive: true, mode: 0o755 });

  const log = `${dir}/sshd_log`;
  const server = start(SSHD, ["-D", "-E", log, "-f", `${dir}/sshd_config`]);
  stack.defer(() => stop(server));
  await until(async () => (await Deno.readTextFile(log)).includes("Server listening"), "sshd");
  await startAgent(dir, stack);
  const kept = stack.move();
  return {
    dir,
    port,
    url: (name) => `ssh://127.0.0.1:${port}${dir}/${name}`,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function serverConfig(dir: string, port: number): string {
  return [
    "ListenAddress 127.0.0.1",
    `Port ${port}`,
    `HostKey ${dir}/host_key`,
    `AuthorizedKeysFile ${dir}/authorized_keys`,
    "PidFile none",
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    "MaxStartups 100",
    "Subsystem sftp internal-sftp",
    "",
  ].join("\n");
}

function clientConfig(dir: string): string {
  return [
    "Host *",
    `IdentityFile ${dir}/user_key`,
    "IdentitiesOnly yes",
    "IdentityAgent none",
    `UserKnownHostsFile ${dir}/known_hosts`,
    "GlobalKnownHostsFile /dev/null",
    "",
  ].join("\n");
}

/** The reference knows keys from agents. */
async function startAgent(dir: string, stack: AsyncDisposableStack): Promise<void> {
  const socket = `${dir}/agent`;
  const agent = start("ssh-agent", ["-D", "-a", socket]);
  stack.defer(() => stop(agent));
  const before = Deno.env.get("SSH_AUTH_SOCK");
  Deno.env.set("SSH_AUTH_SOCK", socket);
  stack.defer(() => {
    if (before === undefined) Deno.env.delete("SSH_AUTH_SOCK");
    else Deno.env.set("SSH_AUTH_SOCK", before);
  });
  await until(async () => (await Deno.lstat(socket)).isSocket === true, "ssh-agent");
  await must("ssh-add", ["-q", `${dir}/user_key`]);
}

/** Waits until something that may fail at first is so. */
async function until(isSo: () => Promise<boolean>, what: string): Promise<void> {
  const end = performance.now() + BEGINNING;
  while (!await isSo().catch(() => false)) {
    if (performance.now() > end) throw new Error(`${what} does not begin`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** One that nobody has at the moment. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function start(program: string, args: string[]): Deno.ChildProcess {
  return new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
}

async function stop(child: Deno.ChildProcess): Promise<void> {
  child.kill("SIGTERM");
  await child.status;
}

async function must(program: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
  if (!success) throw new Error(`${program}: ${new TextDecoder().decode(stderr)}`);
}
