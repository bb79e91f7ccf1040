/** The compiled program for tests. */

import { compile } from "../.ci/compile.ts";

const ready = Deno.env.get("QIMG_BINARY");
const base = Deno.env.get("DENORT_BIN");

/** Where tests of the compiled program get it from. */
export const binary = {
  /**
   * For `Deno.test({ ignore })`: compiling needs a base binary, which Deno
   * would fetch from the network; `DENORT_BIN` names one, or `QIMG_BINARY` a
   * program that is compiled already.
   */
  ignore: !ready && !base,
} as const;

/** Puts the compiled program at `path`. */
export async function makeBinary(path: string): Promise<void> {
  if (ready) {
    await Deno.copyFile(ready, path);
    return;
  }
  await compile({ output: path });
  const { stderr } = await new Deno.Command(path, { args: ["--version"], stdout: "null" }).output();
  if (new TextDecoder().decode(stderr).includes("Could not find standalone binary section")) {
    await fitOlderBase(path);
  }
}

/**
 * Base binaries from before Deno 2.7 expect the program at the end of the file
 * and a field more in its description, where this Deno makes an ELF note of
 * it. Runs the same modules with an older runtime; nothing but a test wants it.
 */
async function fitOlderBase(path: string): Promise<void> {
  const bytes = await Deno.readFile(path);
  const view = new DataView(bytes.buffer);
  const marker = new TextEncoder().encode("SUI\0\x08\0d3n0l4nd");
  const at = lastIndexOf(bytes, marker);
  if (at < 0) throw new Error(`${path}: no program in it`);
  const note = bytes.subarray(at + marker.length, at + 4 + view.getUint32(at - 8, true));

  // "d3n0l4nd", the length of the metadata, the metadata, and the rest.
  const metadataEnd = 16 + Number(new DataView(note.buffer, note.byteOffset).getBigUint64(8, true));
  const metadata = JSON.parse(new TextDecoder().decode(note.subarray(16, metadataEnd)));
  metadata.unstable_config.bare_node_builtins ??= false;
  const description = new TextEncoder().encode(JSON.stringify(metadata));
  const head = new Uint8Array(16);
  head.set(note.subarray(0, 8));
  new DataView(head.buffer).setBigUint64(8, BigInt(description.length), true);
  const program = [head, description, note.subarray(metadataEnd)];

  const length = program.reduce((sum, part) => sum + part.length, 0);
  const trailer = new DataView(new ArrayBuffer(16));
  trailer.setUint32(0, 0x501e, true);
  trailer.setUint32(4, 0x2a7, true);
  trailer.setBigUint64(8, BigInt(length + 16), true);
  await Deno.writeFile(path, concat([...program, new Uint8Array(trailer.buffer)]), {
    append: true,
  });
}

function lastIndexOf(bytes: Uint8Array, part: Uint8Array): number {
  let at = bytes.length;
  do at = bytes.lastIndexOf(part[0]!, at - 1); while (
    at >= 0 && !part.every((byte, i) => bytes[at + i] === byte)
  );
  return at;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
