/**
 * Makes `dist/qimg`: `deno task compile [--target TRIPLE] [--output FILE]`.
 *
 * All permissions are baked in, for devices open only so; the program drops
 * them again by itself. What it embeds is the bundle, workers included, and
 * nothing else.
 */

import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl, join, resolve } from "@std/path";
import { bundle } from "./bundle.ts";

const ROOT = fromFileUrl(new URL("../", import.meta.url));

/** Compiles the program to `output`; throws with the compiler's words when it cannot. */
export async function compile(
  { output, target }: { output: string; target?: string | undefined },
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "qimg_bundle_" });
  try {
    const module = join(folder, "qimg.js");
    await bundle({ output: module });
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["compile", "--quiet", "--no-config", "--allow-all", "--no-prompt"],
        ...(target === undefined ? [] : [`--target=${target}`]),
        `--output=${resolve(ROOT, output)}`,
        module,
      ],
      cwd: folder,
    }).output();
    if (!success) throw new Error(`deno compile: ${new TextDecoder().decode(stderr)}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) {
  const { output, target } = parseArgs(Deno.args, { string: ["output", "target"] });
  const file = typeof output === "string" ? output : "dist/qimg";
  await compile({ output: file, target: typeof target === "string" ? target : undefined });
  console.log(`Made ${file}`);
}
