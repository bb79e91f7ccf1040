/** Images with snapshots, damaged at random: every command on snapshots answers, and nobody hangs. */
import { assert } from "@std/assert";
import { Random } from "../_random.ts";
import { runQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { context, create, open, patch } from "../drivers/qcow2/_image.ts";

const OFFSET = 0xff_ffff_ffff_fe00n;

/** An image with two snapshots and something in each. */
async function soundImage(options: Readonly<Record<string, string>>): Promise<Uint8Array> {
  const file = await create(options);
  const random = new Random(1);
  // A copy, because closing the node closes its file.
  const used = file.copy();
  {
    await using node = await open(used, context({ writable: true, unmap: true }));
    for (const name of ["one", "two", ""]) {
      for (let n = 0; n < 6; n++) {
        const offset = random.below(node.length - 20000);
        await node.write(offset, random.bytes(random.between(1, 20000), 7));
        await node.writeZeroes(random.below(node.length - 9000), 9000, { unmap: true });
      }
      if (name !== "") await node.snapshots!.create!(name, 0);
    }
  }
  return used.copy().bytes();
}

/** Where the words lie that lead to something: of header, tables and snapshots. */
function words(image: Uint8Array): number[] {
  const view = new DataView(image.buffer, image.byteOffset);
  const at = [24, 32, 36, 40, 48, 56, 60, 64];
  const l1 = (offset: number, entries: number) => {
    for (let i = 0; i < entries; i++) {
      at.push(offset + i * 8);
      const l2 = Number(view.getBigUint64(offset + i * 8) & OFFSET);
      for (let entry = 0; l2 !== 0 && entry < 32; entry++) at.push(l2 + entry * 8);
    }
  };
  l1(Number(view.getBigUint64(40)), view.getUint32(36));
  let entry = Number(view.getBigUint64(64));
  for (let left = view.getUint32(60); left > 0; left--) {
    entry = Math.ceil(entry / 8) * 8;
    at.push(
      entry,
      entry + 8,
      entry + 12,
      entry + 14,
      entry + 32,
      entry + 36,
      entry + 40,
      entry + 48,
    );
    l1(Number(view.getBigUint64(entry)), view.getUint32(entry + 8));
    entry += 40 + view.getUint32(entry + 36) + view.getUint16(entry + 12) +
      view.getUint16(entry + 14);
  }
  const table = Number(view.getBigUint64(48));
  const block = Number(view.getBigUint64(table));
  at.push(table, table + 8);
  for (let i = 0; i < 64; i++) at.push(block + i);
  return at;
}

/** Gives a few words values that might do harm: places of other structures, huge ones, flags. */
function damage(image: Uint8Array, random: Random): string[] {
  const places = words(image);
  const view = new DataView(image.buffer, image.byteOffset);
  const log: string[] = [];
  for (let count = random.between(1, 4); count > 0; count--) {
    const at = random.pick(places);
    if (at + 8 > image.length) continue;
    const width = random.pick([1, 2, 4, 8] as const);
    const value = random.pick([
      0n,
      1n << BigInt(random.below(64)),
      2n ** 64n - 1n,
      view.getBigUint64(random.pick([24, 40, 48, 64])),
      BigInt(random.below(image.length)) & ~511n,
      view.getBigUint64(at) ^ 1n << BigInt(random.below(64)),
    ]);
    patch(image, [at, width, value & (1n << BigInt(width * 8)) - 1n]);
    log.push(`${at}/${width}=${value.toString(16)}`);
  }
  return log;
}

const JOBS: readonly (readonly string[])[] = [
  ["snapshot", "-f", "qcow2", "-l", "a.qcow2"],
  ["snapshot", "-f", "qcow2", "-c", "new", "a.qcow2"],
  ["snapshot", "-f", "qcow2", "-a", "one", "a.qcow2"],
  ["snapshot", "-f", "qcow2", "-a", "2", "a.qcow2"],
  ["snapshot", "-f", "qcow2", "-d", "one", "a.qcow2"],
  ["snapshot", "-f", "qcow2", "-d", "two", "a.qcow2"],
  ["measure", "-f", "qcow2", "-l", "one", "-O", "qcow2", "a.qcow2"],
  ["dd", "-f", "qcow2", "-O", "raw", "bs=64k", "count=4", "if=a.qcow2", "of=out.raw"],
];

const SHAPES: readonly Readonly<Record<string, string>>[] = [
  { cluster_size: "512", size: "100k" },
  { cluster_size: "4k", size: "1M", refcount_bits: "4" },
  { cluster_size: "16k", size: "1M", extended_l2: "on" },
  { cluster_size: "4k", size: "1M", compat: "0.10" },
];

for (const [index, shape] of SHAPES.entries()) {
  Deno.test(`damaged qcow2 images with snapshots: ${JSON.stringify(shape)}`, async () => {
    await using dir = await tempDir();
    const sound = await soundImage(shape);
    const only = Deno.env.get("QIMG_SEED");
    const seeds = only === undefined
      ? Array.from({ length: 25 }, (_, i) => index * 1000 + i)
      : [Number(only)];
    for (const seed of seeds) {
      const image = sound.slice();
      const log = damage(image, new Random(seed));
      for (const job of JOBS) {
        await Deno.writeFile(dir.file("a.qcow2"), image);
        const { code, stderr } = await runQimg(job, { cwd: dir.path });
        const what = `QIMG_SEED=${seed} ${job.join(" ")} ${log.join(" ")}`;
        assert(code === 0 || code === 1, `${what}: exit code ${code}`);
        assert(!/internal error|\n +at .*\.ts:/.test(stderr), `${what}: ${stderr}`);
        assert(code === 0 || stderr !== "", `${what}: no reason given`);
      }
    }
  });
}
