/**
 * Makes `dist/qimg`: `deno task compile [--target TRIPLE] [--output FILE]`.
 *
 * All permissions are baked in, for devices open only so; the program drops
 * them again by itself. Beside the modules that `main.ts` reaches, what it
 * embeds are the modules that run in workers, which the compiler does not look
 * for.
 */

import { parseArgs } from "@std/cli/parse-args";
import { dirname, fromFileUrl, join, resolve } from "@std/path";

const ROOT = fromFileUrl(new URL("../", import.meta.url));

/** The modules of the program that are started as workers, relative to the project. */
export async function workerModules(): Promise<string[]> {
  const found = new Set<string>();
  const search = async (folder: string) => {
    for await (const entry of Deno.readDir(join(ROOT, folder))) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory) await search(path);
      if (!entry.isFile || !path.endsWith(".ts")) continue;
      const source = await Deno.readTextFile(join(ROOT, path));
      for (const [, name] of source.matchAll(/new URL\("([^"]+\.ts)", import\.meta\.url\)/g)) {
        found.add(join(dirname(path), name!).replaceAll("\\", "/"));
      }
    }
  };
  for (const folder of ["lib", "drivers"]) await search(folder);
  return [...found].sort();
}

/** Compiles the program to `output`; throws with the compiler's words when it cannot. */
export async function compile(
  { output, target }: { output: string; target?: string | undefined },
): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "compile",
      "--quiet",
      "--allow-all",
      "--no-prompt",
      "--exclude-unused-npm",
      ...(await workerModules()).map((path) => `--include=${path}`),
      ...(target === undefined ? [] : [`--target=${target}`]),
      `--output=${resolve(ROOT, output)}`,
      "main.ts",
    ],
    cwd: ROOT,
  }).output();
  if (!success) throw new Error(`deno compile: ${new TextDecoder().decode(stderr)}`);
}

if (import.meta.main) {
  const { output, target } = parseArgs(Deno.args, { string: ["output", "target"] });
  const file = typeof output === "string" ? output : "dist/qimg";
  await compile({ output: file, target: typeof target === "string" ? target : undefined });
  console.log(`Made ${file}`);
}
