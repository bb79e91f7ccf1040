/**
 * Makes `dist/qimg.js`: `deno task bundle [--output FILE]`.
 *
 * All of the program in one module, which Deno loads several times as fast as the modules that it was made
 * of. It needs nothing beside it and may have any name: its workers are itself.
 */

import { parseArgs } from "@std/cli/parse-args";
import { dirname, fromFileUrl, resolve } from "@std/path";

const ROOT = fromFileUrl(new URL("../", import.meta.url));

/** The module that workers run, as the source names it. */
const WORKER_URL = /new URL\("\.\/worker\.ts", ?import\.meta\.url\)/g;

/** What names a module beside the one that it stands in. */
const OTHER_URL = /new URL\("[^"]*", ?import\.meta\.url\)/;

/** Bundles the program into `output`; throws with the bundler's words when it cannot. */
export async function bundle({ output }: { output: string }): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--platform=deno", "--minify", ".ci/program.ts"],
    cwd: ROOT,
  }).output();
  const text = new TextDecoder();
  if (!success) throw new Error(`deno bundle: ${text.decode(stderr)}`);
  const source = text.decode(stdout);
  const whole = source.replace(WORKER_URL, "new URL(import.meta.url)");
  if (whole === source) throw new Error("deno bundle: the workers' module is not where it was");
  const other = OTHER_URL.exec(whole);
  if (other !== null) throw new Error(`deno bundle: ${other[0]} is not in the bundle`);
  const path = resolve(ROOT, output);
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeTextFile(path, whole);
}

if (import.meta.main) {
  const { output } = parseArgs(Deno.args, { string: ["output"] });
  const file = typeof output === "string" ? output : "dist/qimg.js";
  await bundle({ output: file });
  console.log(`Made ${file}`);
}
