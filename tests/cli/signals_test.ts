import { assert, assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";

const SCRIPT = fromFileUrl(new URL("./_patient.ts", import.meta.url));
const ignore = Deno.build.os === "windows";

/** A process at work. */
async function startPatient(args: readonly string[], stderr: "null" | "piped") {
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", SCRIPT, "fake", ...args],
    stdout: "piped",
    stderr,
  }).spawn();
  const reader = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const until = async (wanted: string) => {
    while (!text.includes(wanted)) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`ended before "${wanted}": ${text}`);
      text += value;
    }
    return text;
  };
  const rest = async () => {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return text;
      text += value;
    }
  };
  await until("at work\n");
  return { process, rest };
}

const INTERRUPTIONS: readonly (readonly [Deno.Signal, code: number])[] = [
  ["SIGINT", 130],
  ["SIGTERM", 143],
];

for (const [signal, code] of INTERRUPTIONS) {
  Deno.test({
    name: `signals: ${signal} ends the command in good order, with exit code ${code}`,
    ignore,
    fn: async () => {
      const { process, rest } = await startPatient([], "null");
      process.kill(signal);
      assertEquals(await rest(), "at work\ncleaned up\n");
      assertEquals((await process.status).code, code);
    },
  });
}

Deno.test({
  name: "signals: SIGUSR1 is answered with the progress on standard error",
  ignore,
  fn: async () => {
    const { process, rest } = await startPatient([], "piped");
    const stderr = process.stderr.pipeThrough(new TextDecoderStream()).getReader();
    process.kill("SIGUSR1");
    const { value } = await stderr.read();
    assertEquals(value, "    (50.00/100%)\n");
    process.kill("SIGTERM");
    await rest();
    assertEquals((await stderr.read()).done, true);
    assertEquals((await process.status).code, 143);
  },
});

Deno.test({
  name: "signals: with -p SIGUSR1 does nothing",
  ignore,
  fn: async () => {
    const { process, rest } = await startPatient(["-p"], "piped");
    const stderr = new Response(process.stderr).text();
    process.kill("SIGUSR1");
    // Longer than the program takes for several reports.
    await new Promise((resolve) => setTimeout(resolve, 100));
    process.kill("SIGINT");
    const stdout = await rest();
    assert(stdout.endsWith("cleaned up\n\n"), stdout);
    assertEquals([await stderr, (await process.status).code], ["", 130]);
  },
});
