import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { surplusPermissions } from "../../lib/cli/permissions.ts";
import { runCli } from "../../lib/cli/run.ts";
import { NO_SIGNALS } from "../../lib/cli/signals.ts";
import type { Access } from "../../lib/commands/_command.ts";
import { COMMAND } from "../../lib/nbd/constants.ts";
import { NbdTalk } from "../_nbd_talk.ts";
import { runQimg, useQimg } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

const MAIN = fromFileUrl(new URL("../../main.ts", import.meta.url));
const ignore = Deno.build.os === "windows";

/** A `qimg serve` that listens. */
interface Serving {
  /** The line that it printed: where clients find the image. */
  readonly uri: string;
  /** Sends a signal and waits for the end; answers with the exit code and what stood on standard error. */
  end(signal?: Deno.Signal): Promise<{ code: number; stderr: string }>;
}

/** Starts `qimg serve` as a user does, with these permissions of Deno. */
async function start(
  dir: TempDir,
  args: readonly string[],
  permissions: readonly string[] = ["-A"],
): Promise<Serving> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...permissions, MAIN, "serve", ...args],
    cwd: dir.path,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const stderr = new Response(child.stderr).text();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await reader.read();
  const rest = (async () => {
    while (!(await reader.read()).done);
  })();
  if (value === undefined) throw new Error(`qimg serve ${args.join(" ")}: ${await stderr}`);
  return {
    uri: value.trimEnd(),
    async end(signal) {
      if (signal !== undefined) child.kill(signal);
      const { code } = await child.status;
      await rest;
      return { code, stderr: await stderr };
    },
  };
}

async function withDisk(): Promise<TempDir> {
  const dir = await tempDir();
  await useQimg(["create", "-q", "-f", "qcow2", "disk", "1M"], { cwd: dir.path });
  return dir;
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test({
    name: `${signal} ends the server in good order, with what was written`,
    ignore,
    async fn() {
      await using dir = await withDisk();
      const serving = await start(dir, ["--writable", "--socket", "sock", "disk"]);
      assertEquals(serving.uri, `nbd+unix:///?socket=${dir.path}/sock`);
      using talk = await NbdTalk.begin(dir.file("sock"));
      await talk.request({ command: COMMAND.write, data: new Uint8Array(4096).fill(7) });
      assertEquals(await serving.end(signal), { code: 0, stderr: "" });
      await talk.ended();
      await assertRejects(() => Deno.lstat(dir.file("sock")), Deno.errors.NotFound);
      const check = await useQimg(["check", "disk"], { cwd: dir.path });
      assertStringIncludes(check, "No errors were found");
      await useQimg(["convert", "-O", "raw", "disk", "raw"], { cwd: dir.path });
      assertEquals((await Deno.readFile(dir.file("raw")))[4095], 7);
    },
  });
}

Deno.test({
  name: "serve --once ends with the last client, and needs one folder and one port",
  ignore,
  async fn() {
    await using dir = await withDisk();
    const serving = await start(dir, ["--once", "--port", "0", "--export", "a", "disk"], [
      `--allow-read=${dir.path}`,
      "--allow-net=127.0.0.1",
    ]);
    const [, port] = /^nbd:\/\/127\.0\.0\.1:(\d+)\/a$/.exec(serving.uri) ?? [];
    assert(port !== undefined, serving.uri);
    const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
    using talk = NbdTalk.over(connection);
    await talk.goTo("a");
    await talk.bye();
    assertEquals(await serving.end(), { code: 0, stderr: "" });
  },
});

Deno.test({
  name: "a writable image on a socket needs one folder and the permission to listen there",
  ignore,
  async fn() {
    await using dir = await withDisk();
    const socket = dir.file("sock");
    const serving = await start(dir, ["-w", "-k", socket, "disk"], [
      `--allow-read=${dir.path}`,
      `--allow-write=${dir.path}`,
      "--allow-net",
    ]);
    using talk = await NbdTalk.begin(socket);
    const [reply] = await talk.request({ command: COMMAND.write, data: new Uint8Array(512) });
    assertEquals(reply?.error, 0);
    await talk.bye();
    assertEquals(await serving.end("SIGTERM"), { code: 0, stderr: "" });
    await assertRejects(() => Deno.lstat(socket), Deno.errors.NotFound);
  },
});

Deno.test({
  name: "the network, and writing for a socket, are given up once the server listens",
  ignore,
  async fn() {
    await using dir = await withDisk();
    const kept = (access: Access) => {
      const surplus = surplusPermissions(access);
      return (["net", "write", "run"] as const).filter((name) => !surplus.includes(name));
    };
    const steps: string[] = [];
    await runCli(["serve", "-k", dir.file("sock"), dir.file("disk")], {
      program: "qimg",
      stdout: { writeSync: (bytes) => bytes.length },
      stderr: { writeSync: (bytes) => bytes.length },
      restrict(access) {
        steps.push(kept(access).join());
        return Promise.resolve([]);
      },
      watchSignals: () => ({ ...NO_SIGNALS, signal: AbortSignal.abort() }),
    });
    assertEquals(steps, ["net,write", ""]);
  },
});

const REFUSED: readonly (readonly [args: string, message: string])[] = [
  ["", "Expecting one image file name"],
  ["disk disk", "Expecting one image file name"],
  ["nosuch", "Could not open 'nosuch': "],
  ["-r -w disk", "--read-only and --writable are mutually exclusive"],
  ["-k sock -p 1 disk", "--socket cannot be used with --port or --bind"],
  ["-k sock -b ::1 disk", "--socket cannot be used with --port or --bind"],
  ["-p 65536 disk", "Invalid port specified. Must be between 0 and 65535."],
  ["-p x disk", "Invalid port specified: 'x'."],
  ["-e -1 disk", "Invalid number of clients specified. Must be between 0 and 2147483647."],
  ["-t never disk", "Invalid cache option: never"],
  ["-k disk disk", "Failed to listen on 'disk': Address already in use"],
  ["-k no/sock disk", "Failed to listen on 'no/sock': No such file or directory"],
  ["-k sock -B none disk", "Dirty bitmap 'none' not found"],
  ["-k sock -l none disk", "Failed to load snapshot: Can't find snapshot"],
  ["-k sock -w -l none disk", "Snapshots cannot be written"],
  [`-k ${"x".repeat(200)} disk`, `Failed to listen on '${"x".repeat(200)}': `],
  [`-k sock -x ${"x".repeat(5000)} disk`, "export name is longer than 4096 bytes"],
];

for (const [args, message] of REFUSED) {
  Deno.test(`serve ${args.slice(0, 40)}: ${message.slice(0, 60)}`, async () => {
    await using dir = await withDisk();
    const words = ["serve", ...args.split(" ").filter((word) => word !== "")];
    const { code, stdout, stderr } = await runQimg(words, { cwd: dir.path });
    assertEquals([code, stdout], [1, ""]);
    assertStringIncludes(stderr, `qimg: ${message}`);
    assertEquals([...Deno.readDirSync(dir.path)].map(({ name }) => name), ["disk"]);
  });
}
