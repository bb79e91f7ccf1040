import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { reference, runQimgProcess } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

// An export needs permission for its server alone.

/** A `qemu-nbd` on a port of its own, with a disk of 1 MiB of sevens. */
async function startOnPort(dir: string): Promise<AsyncDisposable & { readonly port: number }> {
  await Deno.writeFile(`${dir}/disk`, new Uint8Array(1 << 20).fill(7));
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const child = new Deno.Command("qemu-nbd", {
    args: ["-t", "-f", "raw", "-b", "127.0.0.1", "-p", `${port}`, "disk"],
    cwd: dir,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  while (true) {
    try {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      break;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  return {
    port,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.status;
    },
  };
}

Deno.test({
  name: "an export needs the network, and of that only its server",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    await using server = await startOnPort(dir.path);
    const { port } = server;
    const name = `nbd://127.0.0.1:${port}`;
    const permissions = [`--allow-net=127.0.0.1:${port}`];
    const attempt = (args: readonly string[], permissions: readonly string[]) =>
      runQimgProcess(args, { cwd: dir.path, permissions });
    for (const args of [["info", name], ["map", name], ["measure", "-O", "qcow2", name]]) {
      const { code, stderr } = await attempt(args, permissions);
      assertEquals([code, stderr], [0, ""], args.join(" "));
    }
    const folder = [`--allow-read=${dir.path}`, `--allow-write=${dir.path}`];
    const copied = await attempt(["convert", "-O", "raw", name, "copy"], [
      ...permissions,
      ...folder,
    ]);
    assertEquals([copied.code, copied.stderr], [0, ""]);
    assertEquals(await Deno.readFile(dir.file("copy")), await Deno.readFile(dir.file("disk")));

    const denied = await attempt(["info", name], [`--allow-net=127.0.0.1:${port + 1}`]);
    assertEquals(denied.code, 1);
    assertStringIncludes(denied.stderr, `Could not open '${name}': Failed to connect to`);
    assertStringIncludes(denied.stderr, "--allow-net");
  },
});

Deno.test({
  name: "an image that refers to a server does not get the network for it",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    await using server = await startOnPort(dir.path);
    const name = `nbd://127.0.0.1:${server.port}`;
    const attempt = (...args: readonly string[]) => runQimgProcess(args, { cwd: dir.path });
    const made = await attempt("create", "-q", "-f", "qcow2", "-b", name, "-F", "raw", "overlay");
    assertEquals([made.code, made.stderr], [0, ""]);
    const mapped = await attempt("map", "overlay");
    assertEquals(mapped.code, 1);
    assert(mapped.stderr.includes("is not named on the command line"), mapped.stderr);
    const named = "driver=qcow2,file.filename=overlay,backing.file.driver=nbd";
    const whole = await attempt("map", "--image-opts", named);
    assertEquals([whole.code, whole.stderr], [0, ""]);
    assertStringIncludes(whole.stdout, name);
  },
});
