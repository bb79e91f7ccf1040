/**
 * Random lives of qcow2 images: what the guest does, snapshots, bitmaps, sizes,
 * options and backing files in any order. After each the reference finds nothing
 * wrong and the same content.
 *
 * `QIMG_SEQUENCES=500` runs that many, `QIMG_SEED=7` one alone.
 */
import { Random } from "../_random.ts";
import { reference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";
import { RandomLife, type Shape } from "./_random_life.ts";

const SEQUENCES = Number(Deno.env.get("QIMG_SEQUENCES") ?? 20);
const ONLY = Deno.env.get("QIMG_SEED");

/** Things that happen in a life. */
const STEPS = 24;

const CLUSTERS = [512, 4096, 65536, 2097152] as const;
const WIDTHS = [16, 1, 64] as const;

/** Twenty neighbouring seeds have every cluster size with every width, and extended L2 where it can be. */
function shapeOf(seed: number): Shape {
  const clusterSize = CLUSTERS[seed % 4]!;
  const refcountBits = WIDTHS[Math.floor(seed / 4) % 3]!;
  const extendedL2 = clusterSize >= 65536 && Math.floor(seed / 2) % 3 === 0;
  const version = refcountBits === 16 && !extendedL2 && seed % 5 === 0 ? 2 : 3;
  return { clusterSize, refcountBits, extendedL2, version, hasBacking: seed % 3 === 0 };
}

const seeds = ONLY === undefined
  ? Array.from({ length: SEQUENCES }, (_, i) => i + 1)
  : [Number(ONLY)];

for (const seed of seeds) {
  const { clusterSize, refcountBits, extendedL2, version, hasBacking } = shapeOf(seed);
  const shape = [
    `clusters of ${clusterSize}`,
    `refcounts of ${refcountBits} bits`,
    `version ${version}`,
    ...extendedL2 ? ["extended L2"] : [],
    ...hasBacking ? ["a backing file"] : [],
  ].join(", ");
  Deno.test({
    name: `random life ${seed}: ${shape}`,
    ignore: reference.ignore,
    fn: () =>
      withTempDir(async (dir) => {
        const life = await RandomLife.begin(new Random(seed), dir, shapeOf(seed));
        try {
          await life.run(STEPS);
          await life.verify();
        } catch (error) {
          throw new Error(`QIMG_SEED=${seed}\n${life.log.join("\n")}`, { cause: error });
        }
      }),
  });
}
