/**
 * Images of every format with fields changed at random, also behind checksums
 * that are right again, and cut off at the borders of their parts: an error or
 * an answer in bounded time and memory.
 *
 * `QIMG_MUTATIONS=2000` tries that many of each kind of image.
 */
import { assert, assertEquals } from "@std/assert";
import { KINDS } from "../_formats.ts";
import { withTempDir } from "../_temp.ts";
import type { Line } from "./_mutate.ts";

const COUNT = Number(Deno.env.get("QIMG_MUTATIONS") ?? 6);

/** Most that the process may take beyond what it took before, bytes. */
const MAX_MEMORY = 256 << 20;
/** A mutation that takes as long as this hangs, milliseconds: the machine may be busy. */
const HANGS = 60_000;

const MUTATE = new URL("_mutate.ts", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

/** Lines as they come; ends the process when none comes for too long. */
async function* linesOf(process: Deno.ChildProcess): AsyncGenerator<Line> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => process.kill("SIGKILL"), HANGS);
  };
  let rest = "";
  wait();
  try {
    for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
      wait();
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) yield JSON.parse(line);
    }
  } finally {
    clearTimeout(timer);
  }
}

Deno.test("damaged images of every format are answered in bounded time and memory", () =>
  withTempDir(async (dir) => {
    const args = [
      "run",
      "-A",
      "--no-prompt",
      "--no-check",
      "--v8-flags=--expose-gc",
      "--config",
      CONFIG,
      MUTATE,
    ];
    const process = new Deno.Command(Deno.execPath(), {
      args: [...args, dir, String(COUNT)],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const wrong: string[] = [];
    const done: string[] = [];
    let last: Line | undefined;
    for await (const line of linesOf(process)) {
      last = line;
      if ("wrong" in line) wrong.push(`${line.image}, seed ${line.seed}: ${line.wrong}`);
      if (!("done" in line)) continue;
      done.push(line.done);
      assertEquals(line.refused + line.read + wrong.length >= COUNT, true, line.done);
      const [seed, bytes] = line.largest;
      assert(bytes < MAX_MEMORY, `${line.done}, seed ${seed}: ${bytes} bytes of memory`);
    }
    const { code } = await process.status;
    assertEquals(code, 0, `hangs or ends at ${JSON.stringify(last)}`);
    assertEquals(wrong, []);
    assert(done.length > KINDS.length, `${done.length} kinds of images`);
  }));
