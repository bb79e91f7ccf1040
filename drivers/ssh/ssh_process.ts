import { ImageError } from "../../lib/block/error.ts";
import type { Defaults, Destination } from "./address.ts";
import { peerName } from "./address.ts";
import type { Transport } from "./transport.ts";

/** The user's OpenSSH client, found as commands are. */
const PROGRAM = "ssh";

/** What a file transfer needs and what must not come in its way, whatever the user's configuration says. */
const SETTINGS: Readonly<Record<string, string>> = {
  // Nobody is there to be asked for passwords or about keys.
  BatchMode: "yes",
  // Errors only: they end up in messages here.
  LogLevel: "ERROR",
  RequestTTY: "no",
  RemoteCommand: "none",
  PermitLocalCommand: "no",
  ClearAllForwardings: "yes",
  ForwardAgent: "no",
  ForwardX11: "no",
  // A server that is not there any more is noticed after a minute.
  ServerAliveInterval: "15",
  ServerAliveCountMax: "4",
};

/** No key is compared with any. */
const TRUSTING: Readonly<Record<string, string>> = {
  StrictHostKeyChecking: "no",
  UserKnownHostsFile: "/dev/null",
  GlobalKnownHostsFile: "/dev/null",
};

/** How long a program that was told to end has, milliseconds, before it is told once more. */
const GRACE = 2000;

/** As much of what ssh says as is kept, characters: the end tells why. */
const MAX_COMPLAINT = 8192;

/** The most lines of it below a message. */
const MAX_HINT_LINES = 4;

/** Options and destination as ssh takes them; no shell ever sees them. */
function sshArguments({ port, user, family, hostKeyCheck }: Destination): string[] {
  const settings = {
    ...SETTINGS,
    ...hostKeyCheck === "none" ? TRUSTING : {},
    ...hostKeyCheck === "known hosts" ? { StrictHostKeyChecking: "yes" } : {},
  };
  return [
    ...Object.entries(settings).map(([name, value]) => `-o${name}=${value}`),
    ...family === "any" ? [] : [family === "inet" ? "-4" : "-6"],
    ...port === undefined ? [] : ["-p", String(port)],
    ...user === undefined ? [] : ["-l", user],
  ];
}

/**
 * Starts ssh with the SFTP subsystem of a server.
 *
 * @throws {ImageError} if there is no such program, or no permission to run it.
 */
export function startSsh(destination: Destination): Transport {
  const args = [...sshArguments(destination), "-s", "--", destination.host, "sftp"];
  return new SshProcess(spawn(args), peerName(destination));
}

function spawn(args: string[]): Deno.ChildProcess {
  try {
    return new Deno.Command(PROGRAM, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      // An interrupt from the terminal is for whoever tidies up through the connection.
      detached: true,
    }).spawn();
  } catch (error) {
    throw notStarted(error);
  }
}

function notStarted(error: unknown): unknown {
  if (error instanceof Deno.errors.NotFound) {
    return new ImageError(`The program '${PROGRAM}' is not installed`, {
      errno: "ENOENT",
      hint: "Images on ssh servers are reached through the OpenSSH client.",
      cause: error,
    });
  }
  return error instanceof Deno.errors.NotCapable
    ? new ImageError(error.message, {
      errno: "EACCES",
      hint:
        "It is started only for images that the command line names, not for what is behind others.",
      cause: error,
    })
    : error;
}

/**
 * Asks ssh for the user and the port that it takes where a destination says nothing of them. What it does
 * not answer stays open.
 */
export async function sshDefaults(destination: Destination, patience: number): Promise<Defaults> {
  const { user, port } = destination;
  if (user !== undefined && port !== undefined) return { user, port };
  const args = [...sshArguments(destination), "-G", "--", destination.host];
  try {
    const { stdout } = await new Deno.Command(PROGRAM, {
      args,
      stdin: "null",
      stdout: "piped",
      stderr: "null",
      signal: AbortSignal.timeout(patience),
    }).output();
    const text = new TextDecoder().decode(stdout);
    const found = Number(/^port (\d{1,5})$/m.exec(text)?.[1]);
    return {
      user: user ?? /^user (\S+)$/m.exec(text)?.[1],
      port: port ?? (Number.isNaN(found) ? undefined : found),
    };
  } catch {
    // The connection itself has the better error.
    return { user, port };
  }
}

/** A running ssh. */
class SshProcess implements Transport {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
  readonly peer: string;
  readonly #child: Deno.ChildProcess;
  readonly #complaints: ReadableStreamDefaultReader<string>;
  readonly #listening: Promise<void>;
  #complaint = "";

  constructor(child: Deno.ChildProcess, peer: string) {
    this.#child = child;
    this.peer = peer;
    this.readable = child.stdout;
    this.writable = child.stdin;
    this.#complaints = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    this.#listening = this.#listen();
  }

  async explain(): Promise<{ readonly reason: string; readonly hint?: string | undefined }> {
    const status = await within(GRACE, this.#child.status);
    // A connection that ssh shares with others may keep this end open.
    await within(GRACE, this.#listening);
    const lines = this.#complaint.split(/[\r\n]+/).map(plainLine).filter((line) => line !== "");
    const last = lines.pop();
    if (last !== undefined) {
      const hint = lines.slice(-MAX_HINT_LINES).join("\n");
      return { reason: last, hint: hint === "" ? undefined : hint };
    }
    if (status === undefined) return { reason: "it was closed" };
    return {
      reason: status.signal === null
        ? `ssh ended with exit code ${status.code}`
        : `ssh was ended by ${status.signal}`,
    };
  }

  async end(how: "gracefully" | "at once"): Promise<void> {
    const { status } = this.#child;
    let isOver = how === "gracefully" && await within(GRACE, status) !== undefined;
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      if (isOver) break;
      this.#kill(signal);
      isOver = await within(GRACE, status) !== undefined;
    }
    await this.#complaints.cancel().catch(() => {});
    await this.#listening;
  }

  #kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended by itself.
    }
  }

  async #listen(): Promise<void> {
    try {
      while (true) {
        const { done, value } = await this.#complaints.read();
        if (done) return;
        this.#complaint = (this.#complaint + value).slice(-MAX_COMPLAINT);
      }
    } catch {
      // What cannot be read says nothing.
    }
  }
}

/** What a promise answers with, `undefined` if it does not in this many milliseconds. */
async function within<T>(patience: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), patience);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** A line as part of a message: without what terminals would obey, the program's name and the full stop. */
function plainLine(line: string): string {
  return line.replaceAll(/[\p{Cc}\p{Cf}]/gu, " ").trim().replace(/^ssh: /, "").replace(/\.$/, "");
}
