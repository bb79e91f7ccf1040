/**
 * Makes `dist/qimg`: `deno task compile [--target TRIPLE] [--output FILE]`.
 *
 * All permissions are baked in, for devices open only so; the program drops
 * them again by itself. Beside the modules that `main.ts` reaches, what it
 * embeds are the modules that run in workers, which the compiler does not look
 * for, and of packages only the folders that are imported.
 */

import { parseArgs } from "@std/cli/parse-args";
import { dirname, fromFileUrl, join, resolve } from "@std/path";

const ROOT = fromFileUrl(new URL("../", import.meta.url));

/** The part of `deno info --json` that matters here. */
interface ModuleGraph {
  readonly modules: readonly {
    readonly specifier: string;
    readonly dependencies?: readonly { readonly code?: { readonly specifier?: string } }[];
  }[];
}

async function deno(args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
  }).output();
  if (!success) throw new Error(`deno ${args[0]}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

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

/** Folders of the packages in Deno's cache that no module of the program is in. */
async function unusedFolders(): Promise<string[]> {
  const graph: ModuleGraph = JSON.parse(await deno(["info", "--json", "main.ts"]));
  const used = new Map<string, Set<string>>();
  for (const { specifier: module, dependencies = [] } of graph.modules) {
    if (module.endsWith(".d.ts")) continue;
    for (const { code } of dependencies) {
      const match = /^npm:\/?([^/]+)@([^@/]+)\/([^/]+)\//.exec(code?.specifier ?? "");
      if (match === null) continue;
      const [, name, version, folder] = match;
      const key = `${name}/${version}`;
      if (!used.has(key)) used.set(key, new Set());
      used.get(key)!.add(folder!);
    }
  }
  const { npmCache } = JSON.parse(await deno(["info", "--json"]));
  const unused: string[] = [];
  for (const [key, folders] of used) {
    for await (const { name: registry } of Deno.readDir(npmCache)) {
      const home = join(npmCache, registry, key);
      try {
        for await (const entry of Deno.readDir(home)) {
          if (entry.isDirectory && !folders.has(entry.name)) unused.push(join(home, entry.name));
        }
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }
  return unused;
}

/** Compiles the program to `output`; throws with the compiler's words when it cannot. */
export async function compile(
  { output, target }: { output: string; target?: string | undefined },
): Promise<void> {
  await deno([
    "compile",
    "--quiet",
    "--allow-all",
    "--no-prompt",
    "--exclude-unused-npm",
    ...(await workerModules()).map((path) => `--include=${path}`),
    ...(await unusedFolders()).map((path) => `--exclude=${path}`),
    ...(target === undefined ? [] : [`--target=${target}`]),
    `--output=${resolve(ROOT, output)}`,
    "main.ts",
  ]);
}

if (import.meta.main) {
  const { output, target } = parseArgs(Deno.args, { string: ["output", "target"] });
  const file = typeof output === "string" ? output : "dist/qimg";
  await compile({ output: file, target: typeof target === "string" ? target : undefined });
  console.log(`Made ${file}`);
}
