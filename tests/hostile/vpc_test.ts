/** VHD images made to do harm: an error or a disk, in bounded time and memory, and nothing destroyed. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import {
  DIFFERENCING,
  DYNAMIC,
  FIXED,
  type HandMade,
  handMade,
  open,
  patchFooters,
  utf16,
} from "../drivers/vpc/_images.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";

const ALL = [0, 1, 2, 3, 4, 5, 6, 7];
const BLOCKS = new Map([[1, { sectors: ALL, fill: 1 }], [4, { sectors: [0, 5], fill: 2 }]]);

const IMAGES: Readonly<Record<string, HandMade>> = {
  "dynamic": { type: DYNAMIC, length: 8 * 4096, blocks: BLOCKS },
  "dynamic, header last": { type: DYNAMIC, length: 8 * 4096, blocks: BLOCKS, headerLast: true },
  "differencing": {
    type: DIFFERENCING,
    length: 8 * 4096,
    blocks: BLOCKS,
    parent: {
      id: 2,
      name: "parent.vhd",
      locators: [["W2ku", utf16("C:\\parent.vhd")], ["W2ru", utf16("parent.vhd")]],
    },
  },
  "fixed": { type: FIXED, length: 8 * 4096 },
};

/** Changes bits and bytes of the headers, most often in fields that mean something. */
function mutate(image: Uint8Array, random: Random): string[] {
  const log: string[] = [];
  const set = (at: number, byte: number) => {
    if (at >= image.length) return;
    image[at] = byte;
    log.push(`${at}=${byte}`);
  };
  const fields = [8, 12, 16, 40, 48, 52, 56, 60, 512 + 16, 512 + 20, 512 + 28, 512 + 32, 512 + 576];
  for (let count = random.between(1, 8); count > 0; count--) {
    const at = random.oneIn(3)
      ? random.pick(fields) + random.below(8)
      : random.below(random.pick([512, 2048, image.length]));
    set(at, random.oneIn(2) ? image[at]! ^ 1 << random.below(8) : random.pick([0, 1, 0x7f, 0xff]));
  }
  // Else a wrong checksum would be the end of most of them.
  if (!random.oneIn(8)) patchFooters(image, () => {});
  return log;
}

/** Reads and maps parts of whatever disk there is, and writes to it if that can be done. */
async function use(bytes: Uint8Array, writable: boolean): Promise<void> {
  const file = new MemoryNode({ bytes });
  const head = file.slice(0, 512);
  try {
    await using node = await open(file, { writable });
    const ends = [0, node.length / 2, node.length - 65536].map((at) => Math.max(Math.floor(at), 0));
    for (const at of ends) {
      const length = Math.min(node.length - at, 65536);
      if (length > 0) await node.read(at, new Uint8Array(length));
      for (let done = 0, runs = 0; done < length && runs < 100; runs++) {
        const extent = await node.extent(at + done, length - done);
        assert(extent.length >= 1 && extent.length <= length - done, "a run within what was asked");
        done += extent.length;
      }
      if (node.readOnly || length === 0) continue;
      const isFixed = node.limits.clusterSize === 0;
      await node.write(at, new Uint8Array(Math.min(length, 1000)).fill(0xab));
      // A fixed disk begins where its file does.
      if (!isFixed) assertEquals(file.slice(0, 512), head, "the footer in front");
    }
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    assert(error.message !== "");
  }
}

for (const [kind, image] of Object.entries(IMAGES)) {
  Deno.test(`mutated VHD images: ${kind}`, async () => {
    const sound = handMade(image);
    const only = Deno.env.get("QIMG_SEED");
    const seeds = only === undefined ? Array.from({ length: 250 }, (_, i) => i) : [Number(only)];
    for (const seed of seeds) {
      const random = new Random(seed);
      const bytes = sound.slice();
      const log = mutate(bytes, random);
      try {
        await use(bytes, random.oneIn(2));
      } catch (error) {
        throw new Error(`QIMG_SEED=${seed} ${log.join(" ")}`, { cause: error });
      }
    }
  });

  Deno.test(`truncated VHD images: ${kind}`, async () => {
    const sound = handMade(image);
    for (let length = 0; length < sound.length; length += 512) {
      for (const cut of [length, length + 1, length + 511]) await use(sound.slice(0, cut), true);
    }
  });
}

/** A dynamic image with other numbers in its header. */
function withHeader(...fields: readonly (readonly [at: number, value: number])[]): MemoryNode {
  const bytes = handMade(IMAGES["dynamic"]!);
  for (const [at, value] of fields) new DataView(bytes.buffer).setUint32(512 + at, value);
  return new MemoryNode({ bytes });
}

Deno.test("a table that the file has no room for takes no memory", async () => {
  const before = Deno.memoryUsage().rss;
  for (const entries of [536870911, 268435456, 100000]) {
    await assertRejects(() => open(withHeader([28, entries])), ImageError, "truncated");
  }
  assert(Deno.memoryUsage().rss - before < 256 * 1024 * 1024);
});

Deno.test("of an untrusted image a table of more than 16 MiB is refused, in a file of any length", async () => {
  const entries = 5 * 1024 * 1024;
  const file = withHeader([28, entries]);
  await file.resize(2 ** 30, "off");
  const error = await assertRejects(
    () => open(file, {}, { untrusted: true }),
    ImageError,
    "untrusted",
  );
  assertEquals(error.field, "max table entries");
});

Deno.test("the largest block there is leaves no room for a disk", async () => {
  await assertRejects(() => open(withHeader([32, 2 ** 31])), ImageError, "truncated");
});

Deno.test("a table on top of itself is read as what it is, and not written", async () => {
  const bytes = handMade(IMAGES["dynamic"]!);
  new DataView(bytes.buffer).setUint32(1536, 3);
  const file = new MemoryNode({ bytes });
  await using node = await open(file, { writable: true });
  const part = new Uint8Array(512);
  await node.read(0, part);
  assertEquals(part, bytes.slice(2048, 2560));
  await assertRejects(() => node.write(0, part), ImageError);
  assertEquals(file.bytes(), bytes);
});

Deno.test("a table on top of the headers gets no entries", async () => {
  // Behind the fields of the dynamic header there is room that says nothing.
  for (const tableOffset of [512 + 768, 400]) {
    const file = withHeader([20, tableOffset]);
    const bytes = file.bytes();
    bytes.fill(0xff, tableOffset, tableOffset + 32);
    // The footer's reserved bytes count in its checksum.
    patchFooters(bytes, () => {});
    const damaged = new MemoryNode({ bytes });
    await using node = await open(damaged, { writable: true });
    await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
    await node.flush();
    assertEquals(damaged.slice(0, 2048), bytes.slice(0, 2048));
  }
});
