/** Images with random damage: opening ends well or with one clear error, and nothing else. */
import { assert } from "@std/assert";
import type { OpenMode } from "../../../lib/block/mode.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import { context, create, hex, open, patch } from "./_image.ts";

const SEEDS = 500;

/** A place in an image whose bytes matter at opening. */
type Region = readonly [start: number, end: number];

interface Subject {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly regions: readonly Region[];
}

async function subjects(): Promise<Subject[]> {
  const plain = (await create({ size: "1M", cluster_size: "8k" })).bytes();
  const overlay = (await create({ size: "1M", backing_file: "b", backing_fmt: "raw" })).bytes();
  const split = (await create({ size: "1M", data_file: "d" })).bytes();
  // Snapshots, bitmaps and a LUKS header behind everything else.
  const rich = new Uint8Array(0x20000);
  rich.set((await create({ size: "1M", cluster_size: "4k" })).bytes());
  patch(rich, [60, 4, 2], [64, 8, 0x8000], [88, 8, 1]);
  rich.set(
    hex("23852875 00000018 00000001 00000000 0000000000000020 0000000000009000"),
    0x70,
  );
  for (const at of [0x8000, 0x8048]) {
    patch(rich, [at, 8, 0x3000], [at + 8, 4, 1], [at + 12, 2, 1], [at + 14, 2, 3], [
      at + 36,
      4,
      24,
    ]);
  }
  rich.set(hex("000000000000a000 00000001 00000002 01 0c 0002 00000000 6230"), 0x9000);
  return [
    { name: "plain", bytes: plain, regions: [[0, 0x200]] },
    { name: "overlay", bytes: overlay, regions: [[0, 0xa0]] },
    { name: "data file", bytes: split, regions: [[0, 0x90]] },
    {
      name: "snapshots and bitmaps",
      bytes: rich,
      regions: [[0, 0x90], [0x8000, 0x80a0], [0x9000, 0x9020], [0xa000, 0xa008]],
    },
  ];
}

const MODES: readonly Partial<OpenMode>[] = [
  {},
  { metadataOnly: true },
  { writable: true },
  { writable: true, checking: true },
  { checking: true },
];

Deno.test("damaged images are opened or refused, and no other error gets out", async () => {
  const all = await subjects();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new Random(seed);
    const subject = random.pick(all);
    const bytes = subject.bytes.slice();
    for (let i = random.between(1, 4); i > 0; i--) {
      const [start, end] = random.pick(subject.regions);
      bytes[random.between(start, end - 1)] = random.oneIn(2)
        ? random.pick([0, 1, 0x7f, 0x80, 0xff])
        : random.below(256);
    }
    if (random.oneIn(10)) bytes.fill(0, random.below(bytes.length));
    const using = context(random.pick(MODES), {
      untrusted: random.oneIn(3),
      files: new Map([["d", new MemoryNode({ bytes: new Uint8Array(1 << 20) })]]),
    });
    const shown = `seed ${seed}, ${subject.name}, ${JSON.stringify(using.mode)}`;
    const file = new MemoryNode({ bytes });
    try {
      await using node = await open(file, using);
      await node.details!();
      node.snapshots!.list();
      node.bitmaps?.list();
      await node.extent(0, Math.min(512, node.length) || 1);
    } catch (error) {
      if (!(error instanceof ImageError)) throw new Error(shown, { cause: error });
      assert(error.message !== "", shown);
    }
  }
});
