import { QUIET } from "../lib/graph/environment.ts";
import { convertImage } from "../lib/ops/convert.ts";
import { ProgramBytes, writeAt } from "./_disk.ts";

const MiB = 1 << 20;
const SIZE = 64 * MiB;

/** A raw image of program bytes, every fourth MiB a hole, in a folder of its own; gone after `use`. */
async function withSource(use: (source: string, target: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "qimg_bench_" });
  try {
    {
      using file = Deno.openSync(`${dir}/source`, { write: true, createNew: true });
      using program = new ProgramBytes();
      const piece = new Uint8Array(MiB);
      file.truncateSync(SIZE);
      for (let at = 0; at < SIZE; at += MiB) {
        if (at / MiB % 4 !== 3) writeAt(file, at, program.fill(piece));
      }
    }
    await use(`${dir}/source`, `${dir}/target`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

for (
  const [name, targetFormat, compress] of [
    ["64 MiB raw to raw", "raw", false],
    ["64 MiB raw to qcow2", "qcow2", false],
    ["64 MiB raw to compressed qcow2", "qcow2", true],
  ] as const
) {
  Deno.bench(name, { group: "pool", n: 8, warmup: 1 }, async (b) => {
    await withSource(async (filename, target) => {
      b.start();
      await convertImage(
        { sources: [{ filename, format: "raw" }], target, targetFormat, compress },
        QUIET,
      );
      b.end();
    });
  });
}
