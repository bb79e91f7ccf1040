/** Images made to do harm: an answer in bounded time and memory, and no file opened that was not asked for. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Random } from "../_random.ts";
import { type Outcome, run, runQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Attack, COMMANDS, type Peak, SECRET, SECRET_TEXT } from "./_attack.ts";
import { evilImages } from "./_evil_qcow2.ts";
import { create } from "../drivers/qcow2/_image.ts";

/** Most that all attacks together may take, bytes; a process that does nothing takes 60 MiB. */
const MAX_MEMORY = 1024 * 1024 * 1024;

const ATTACK = new URL("_attack.ts", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

function assertAnswered({ code, stderr }: { code: number; stderr: string }, what: string): void {
  assert(code >= 0 && code <= 3, `${what}: exit code ${code}`);
  assert(!/internal error|\n +at .*\.ts:/.test(stderr), `${what}: ${stderr}`);
  assert(code !== 1 || stderr !== "", `${what}: no reason given`);
}

Deno.test("evil qcow2 images", async (t) => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file(SECRET), SECRET_TEXT);
  const args = ["run", "-A", "--no-prompt", "--no-check", "--config", CONFIG, ATTACK, dir.path];
  // A process of its own: what hangs in it can be ended, and its memory be known.
  const { code, stdout, stderr } = await run(Deno.execPath(), args, { cwd: dir.path });
  const lines: (Attack | Peak | { begins: string })[] = stdout.trimEnd().split("\n")
    .map((line) => JSON.parse(line));
  assertEquals(code, 0, `${JSON.stringify(lines.at(-1))}\n${stderr}`);
  const attacks = lines.filter((line) => "command" in line);
  const images = evilImages(dir.file(SECRET));
  assertEquals(attacks.length, images.length * COMMANDS.length);

  for (const { name, refusal, untrustedRefusal } of images) {
    await t.step(name, () => {
      for (const { command, code, stderr, leaked } of attacks.filter((a) => a.image === name)) {
        assertAnswered({ code, stderr }, command);
        const untrusted = command.endsWith("--untrusted");
        assert(!(untrusted && leaked), `${command}: the secret came out`);
        if (refusal !== undefined) {
          assertEquals(code, 1, command);
          // Untrusted images may be refused for more reasons.
          if (!untrusted) assertStringIncludes(stderr, refusal, command);
        }
        const opensDisk = /^(map|dd|measure)/.test(command);
        if (untrustedRefusal !== undefined && untrusted && opensDisk) {
          assertEquals(code, 1, command);
          assertStringIncludes(stderr, untrustedRefusal, command);
        }
      }
    });
  }

  await t.step("memory stays bounded", () => {
    const last = lines.at(-1)!;
    assert("peak" in last);
    assert(last.peak < MAX_MEMORY, `${last.peak} bytes`);
  });
});

/** Flips bits and sets bytes of the header and of the tables behind it. */
function mutate(image: Uint8Array, random: Random): string[] {
  const log: string[] = [];
  for (let count = random.between(1, 12); count > 0; count--) {
    const at = random.oneIn(2) ? random.below(112) : random.below(image.length);
    image[at] = random.oneIn(2)
      ? image[at]! ^ 1 << random.below(8)
      : random.pick([0, 1, 0x7f, 255]);
    log.push(`${at}=${image[at]}`);
  }
  return log;
}

const SHAPES: readonly Readonly<Record<string, string>>[] = [
  { cluster_size: "512", size: "200k" },
  { cluster_size: "4k", size: "1M", refcount_bits: "1" },
  { cluster_size: "16k", size: "1M", extended_l2: "on", preallocation: "metadata" },
  { cluster_size: "4k", size: "1M", compat: "0.10", preallocation: "metadata" },
];

const JOBS: readonly (readonly string[])[] = [
  ["info", "a.qcow2"],
  ["map", "-f", "qcow2", "--output=json", "a.qcow2"],
  ["check", "-f", "qcow2", "a.qcow2"],
  ["check", "-f", "qcow2", "-r", "all", "a.qcow2"],
  ["check", "-f", "qcow2", "--untrusted", "a.qcow2"],
  ["amend", "-f", "qcow2", "-o", "compat=1.1,refcount_bits=8", "a.qcow2"],
  ["amend", "-f", "qcow2", "-o", "refcount_bits=16,compat=0.10", "a.qcow2"],
  ["dd", "-f", "qcow2", "-O", "raw", "bs=64k", "count=4", "if=a.qcow2", "of=out.raw"],
];

for (const [index, shape] of SHAPES.entries()) {
  Deno.test(`mutated qcow2 images: ${JSON.stringify(shape)}`, async () => {
    await using dir = await tempDir();
    const sound = (await create(shape)).bytes();
    const only = Deno.env.get("QIMG_SEED");
    const seeds = only === undefined
      ? Array.from({ length: 25 }, (_, i) => index * 1000 + i)
      : [Number(only)];
    for (const seed of seeds) {
      const image = sound.slice();
      const log = mutate(image, new Random(seed));
      for (const job of JOBS) {
        await Deno.writeFile(dir.file("a.qcow2"), image);
        const outcome: Outcome = await runQimg(job, { cwd: dir.path });
        assertAnswered(outcome, `QIMG_SEED=${seed} ${job.join(" ")} ${log.join(" ")}`);
      }
    }
  });
}
