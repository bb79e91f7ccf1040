/** What guests change is dirty in both tools' bitmaps alike, bit by bit. */
import { assert, assertEquals } from "@std/assert";
import { READ_ONLY } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { loadCodec } from "../../lib/codec/mod.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { openImage } from "../../lib/graph/open.ts";
import { loadNative } from "../../lib/io/native.ts";
import { Random } from "../_random.ts";
import { reference, runReference, useQimg, useReference } from "../_reference.ts";
import { bitsOf, storedBitmaps } from "../_stored_bitmaps.ts";
import { tempDir } from "../_temp.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const SIZE = 6 << 20;
const REQUESTS = 24;
const GRANULARITIES = [512, 4096, 65536, 1 << 20, 2 ** 31];

/** A request in the words of `qemu-io`, and as it is done here. */
interface Request {
  readonly words: string;
  run(node: BlockNode): Promise<void>;
}

function anyRequest(random: Random, clusterSize: number): Request {
  const offset = 512 * random.below(SIZE / 512 - 1);
  const length = 512 * random.between(1, Math.min(random.pick([1, 9, 300]), (SIZE - offset) / 512));
  const range = `${offset} ${length}`;
  const bytes = new Uint8Array(length).fill(7);
  return random.pick<() => Request>([
    () => ({ words: `write -P 7 ${range}`, run: (node) => node.write(offset, bytes) }),
    () => ({
      words: `write -z ${range}`,
      run: (node) => node.writeZeroes(offset, length, { unmap: false }),
    }),
    () => ({
      words: `write -z -u ${range}`,
      run: (node) => node.writeZeroes(offset, length, { unmap: true }),
    }),
    () => ({ words: `discard ${range}`, run: (node) => node.discard(offset, length) }),
    () => {
      const at = clusterSize * random.below(SIZE / clusterSize);
      return {
        words: `write -c -P 9 ${at} ${clusterSize}`,
        async run({ packer }) {
          const packed = new Uint8Array(clusterSize);
          const plain = new Uint8Array(clusterSize).fill(9);
          const length = (await loadCodec(packer!.codec)).pack(plain, packed)!;
          await packer!.writePacked(at, packed.subarray(0, length));
        },
      };
    },
    () => ({
      words: `write -P 5 ${range}`,
      async run(node) {
        for (let done = 0; done < length;) {
          const part = await node.allocator!.allocate(offset + done, length - done);
          assert(part !== null);
          await part.file.write(part.offset, new Uint8Array(part.length).fill(5));
          await part.publish();
          done += part.length;
        }
      },
    }),
  ])();
}

const IMAGES = [
  ["cluster_size=512", 512],
  ["cluster_size=4k", 4096],
  ["cluster_size=64k", 65536],
  ["extended_l2=on", 65536],
] as const;

for (const [options, clusterSize] of IMAGES) {
  for (const unmap of [false, true]) {
    for (const seed of [1, 2, 3]) {
      const name = `${options}, ${unmap ? "with" : "without"} discards, seed ${seed}`;
      Deno.test({
        name: `guests mark bitmaps as with the reference: ${name}`,
        ignore: reference.ignore,
        async fn() {
          await using dir = await tempDir();
          const at = { cwd: dir.path };
          await useReference(["create", "-q", "-f", "qcow2", "-o", options, "a", String(SIZE)], at);
          for (const granularity of GRANULARITIES) {
            const args = ["bitmap", "--add", "-g", String(granularity), "a", `of ${granularity}`];
            await useReference(args, at);
          }
          await useReference(["bitmap", "--add", "--disable", "a", "off"], at);
          await Deno.copyFile(dir.file("a"), dir.file("b"));

          const random = new Random(seed);
          const requests = Array.from({ length: REQUESTS }, () => anyRequest(random, clusterSize));
          const words = requests.flatMap(({ words }) => ["-c", words]);
          const mode = ["-d", unmap ? "unmap" : "ignore"];
          // Compressed clusters are refused where there is one already, by both.
          await runReference([...mode, "-f", "qcow2", ...words, "a"], { ...at, tool: "qemu-io" });
          {
            await using node = await openImage(
              { filename: dir.file("b"), format: "qcow2" },
              { ...READ_ONLY, writable: true, unmap },
              QUIET,
            );
            for (const { run } of requests) await run(node).catch(() => {});
          }

          const [theirs, ours] = await Promise.all(["a", "b"].map(async (file) => {
            const image = await Deno.readFile(dir.file(file));
            return storedBitmaps(image).map((bitmap) => [
              bitmap.name,
              bitmap.flags,
              // The lengths of the runs, which a human can compare.
              bitsOf(bitmap, SIZE).match(/0+|1+/g)!.map((run) => `${run[0]}*${run.length}`).join(
                " ",
              ),
            ]);
          }));
          assertEquals(theirs!.length, GRANULARITIES.length + 1);
          assertEquals(ours, theirs, requests.map(({ words }) => words).join("\n"));
          const checked = await runReference(["check", "b"], at);
          assertEquals([checked.code, checked.stderr], [0, ""]);
        },
      });
    }
  }
}

/** Random command lines for both tools in turn, on one image: each goes on where the other has stopped. */
for (const seed of [1, 2, 3, 4]) {
  Deno.test({
    name: `both tools in turn on one image, seed ${seed}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const at = { cwd: dir.path };
      const random = new Random(seed);
      const clusterSize = random.pick(["512", "4k", "64k"]);
      for (const name of ["both", "one"]) {
        const options = ["-o", `cluster_size=${clusterSize}`];
        await useReference(["create", "-q", "-f", "qcow2", ...options, name, "3M"], at);
      }
      const names: string[] = [];
      const log: string[] = [];
      for (let round = 0; round < 16; round++) {
        const old = names.length === 0 ? undefined : random.pick(names);
        const fresh = `b${round}`;
        const granularity = String(512 << random.below(10));
        const line = old === undefined || random.oneIn(3)
          ? ["--add", "-g", granularity, fresh]
          : random.pick([
            ["--remove", old],
            ["--clear", old],
            ["--enable", old],
            ["--disable", old],
            ["--merge", random.pick(names), old],
            ["--add", "--disable", "-g", granularity, "--merge", old, fresh],
          ]);
        if (line[0] === "--add") names.push(fresh);
        if (line[0] === "--remove") names.splice(names.indexOf(line[1]!), 1);
        const args = (image: string) => ["bitmap", ...line.slice(0, -1), image, line.at(-1)!];
        log.push(line.join(" "));
        await useReference(args("one"), at);
        await (round % 2 === 0 ? useQimg : useReference)(args("both"), at);
        const offset = 512 * random.below(6000);
        const write = ["-f", "qcow2", "-c", `write ${offset} ${512 * random.between(1, 100)}`];
        for (const image of ["one", "both"]) {
          await useReference([...write, image], { ...at, tool: "qemu-io" });
        }
      }
      const [one, both] = [
        await Deno.readFile(dir.file("one")),
        await Deno.readFile(dir.file("both")),
      ];
      assertEquals(both.length, one.length, log.join("\n"));
      assert(both.every((byte, i) => byte === one[i]), `bytes differ\n${log.join("\n")}`);
    },
  });
}
