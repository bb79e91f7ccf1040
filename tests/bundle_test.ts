import { assertEquals, assertStringIncludes } from "@std/assert";
import { toFileUrl } from "@std/path";
import { bundle } from "../.ci/bundle.ts";
import { runDemo } from "../bench/demo.ts";
import type { JobMessage, ResultMessage, SetupMessage } from "../lib/ops/copy/job.ts";
import { run } from "./_reference.ts";
import { tempDir } from "./_temp.ts";

/** What a worker answers to a message. */
function answer(worker: Worker): Promise<ResultMessage> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
  });
}

Deno.test("the program in one module", async (t) => {
  await using dir = await tempDir();
  await using images = await tempDir();
  // Whatever it is called, it finds itself.
  const program = dir.file("another name.js");
  await bundle({ output: program });

  await t.step("loads nothing else, and of Deno only what a command needs", async () => {
    const { stdout } = await run(Deno.execPath(), ["info", "--json", program], { cwd: dir.path });
    const { roots, modules } = JSON.parse(stdout);
    const own = modules.filter(({ kind }: { kind: string }) => kind === "esm");
    assertEquals(own.map(({ specifier }: { specifier: string }) => specifier), roots);
    const eager = own[0].dependencies.filter(({ isDynamic }: { isDynamic?: boolean }) =>
      !isDynamic
    );
    assertEquals(eager, []);
  });

  await t.step("does the jobs of the demonstration, confined to one folder", async () => {
    let story = "";
    await runDemo({
      program: [
        ...[Deno.execPath(), "run", "--no-prompt", `--allow-read=${images.path}`],
        ...[`--allow-write=${images.path}`, program],
      ],
      dir: images.path,
      size: 16 << 20,
      terminal: false,
      say: (text) => story += text,
    });
    assertStringIncludes(story, "Byte for byte the disk that went in");
  });

  await t.step("does them with workers", async () => {
    const command = (...args: string[]) =>
      run(Deno.execPath(), ["run", "-A", program, ...args], { cwd: images.path });
    await Deno.remove(images.file("back.img"));
    for (
      const args of [
        ["convert", "-c", "-f", "raw", "-O", "qcow2", "disk.img", "again.qcow2"],
        ["convert", "-O", "raw", "again.qcow2", "back.img"],
        ["compare", "-f", "raw", "-F", "raw", "disk.img", "back.img"],
      ]
    ) {
      const { code, stderr } = await command(...args);
      assertEquals([code, stderr], [0, ""], args.join(" "));
    }
  });

  await t.step("is its own worker", async () => {
    const disk = images.file("disk.img");
    const slot = new Uint8Array(new SharedArrayBuffer(4096));
    const worker = new Worker(toFileUrl(program), { type: "module" });
    try {
      const answered = answer(worker);
      worker.postMessage({ slots: [slot] } satisfies SetupMessage);
      const part = { kind: "plain", length: 4096, file: 0, offset: 0 } as const;
      worker.postMessage(
        {
          id: 7,
          job: {
            kind: "read",
            files: [{ path: disk, direct: false }],
            slot: 0,
            pieces: [{ offset: 0, length: 4096, parts: [part] }],
            sparse: null,
          },
        } satisfies JobMessage,
      );
      const { id, result } = await answered;
      assertEquals([id, result?.kind], [7, "read"]);
      using file = await Deno.open(disk);
      const expected = new Uint8Array(4096);
      await file.read(expected);
      assertEquals(slot.slice(), expected);
    } finally {
      worker.terminate();
    }
  });
});
