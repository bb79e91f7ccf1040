/** VHDX images made to do harm: an answer in bounded time, and nothing taken at its word. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { Random } from "../_random.ts";
import type { MemoryNode } from "../_memory_node.ts";
import {
  AT,
  create,
  guid,
  guidText,
  type HandMade,
  handMade,
  inLog,
  logEntry,
  MIB,
  open,
  pieces,
  sector,
  summed,
} from "../drivers/vhdx/_image.ts";

/** Requests to the file that everything that is done with an image may take. */
const MOST_REQUESTS = 20_000;
/** Bytes that may be asked of the file at a time. */
const MOST_BYTES = 4 * MIB;

/** Does all there is to do with an image; answers with the error that ended it. */
async function use(file: MemoryNode, writable: boolean): Promise<ImageError | undefined> {
  let requests = 0;
  file.onRequest(({ kind, length }) => {
    assert(++requests <= MOST_REQUESTS, "too many requests");
    assert(kind === "resize" || kind === "zero" || length <= MOST_BYTES, `${kind} of ${length}`);
  });
  try {
    await using node = await open(file, { writable, checking: writable });
    await node.checker!.check(writable ? "all" : "none", () => {});
    node.backing?.attach(null);
    const into = new Uint8Array(64 * 1024);
    for (const at of [0, Math.floor(node.length / 2), node.length - into.length]) {
      if (at >= 0 && at + into.length <= node.length) await node.read(at, into);
    }
    await node.locate!(0, Math.max(node.length, 1)).catch(() => {});
    if (writable && node.length > 0) await node.write(node.length - 1, Uint8Array.of(1));
    return undefined;
  } catch (error) {
    assert(error instanceof ImageError, String(error));
    return error;
  }
}

/** Changes a region table or header, with the right checksum. */
async function changed(
  image: HandMade,
  at: number,
  length: number,
  ...fields: readonly (readonly [offset: number, size: 1 | 2 | 4 | 8, value: number | bigint])[]
): Promise<MemoryNode> {
  const file = await handMade(image);
  const bytes = file.slice(at, length);
  for (const [offset, size, value] of fields) {
    bytes.set(pieces(size, [0, size, value]), offset);
  }
  await file.write(at, summed(bytes));
  return file;
}

const END = 2n ** 64n - 1n;
const SMALL: HandMade = { length: 2 * MIB };
const locator = [["parent_linkage", guidText(2)], ["relative_path", "x"]] as const;

const REFUSED: Readonly<Record<string, () => Promise<MemoryNode>>> = {
  "a disk of 8 EiB": () => handMade({ length: 2 ** 53, blockSize: 256 * MIB }),
  "a disk larger than its table": () => handMade({ length: 2 ** 45 }),
  "a log at the end of all files": () =>
    changed(SMALL, 0x20000, 4096, [72, 8, END - BigInt(MIB) + 1n]),
  "a table at the end of all files": () => changed(SMALL, 0x30000, 0x10000, [64, 8, END]),
  "metadata at the end of all files": () =>
    changed(SMALL, 0x30000, 0x10000, [32, 8, 2n ** 63n - BigInt(MIB)]),
  "as many regions as there may be, all the same": () =>
    changed(
      SMALL,
      0x30000,
      0x10000,
      [8, 4, 2047],
      ...Array.from({ length: 2045 }, (_, i) => [80 + i * 32 + 24, 4, 4096] as const),
    ),
  "more regions": () => changed(SMALL, 0x30000, 0x10000, [8, 4, 0xffffffff]),
  "metadata of nothing": () => changed(SMALL, 0x30000, 0x10000, [32, 8, 2 ** 50]),
  "a locator of 4 GiB": async () => {
    const file = await handMade({ ...SMALL, locator });
    await file.write(AT.metadata + 32 + 5 * 32 + 20, pieces(4, [0, 4, 0xffffffff]));
    return file;
  },
  "a locator whose entries are elsewhere": async () => {
    const file = await handMade({ ...SMALL, locator });
    await file.write(AT.metadata + 0x10000 + 40 + 20, pieces(4, [0, 4, 0xfffffff0]));
    return file;
  },
  "a locator of many entries": async () => {
    const file = await handMade({ ...SMALL, locator });
    await file.write(AT.metadata + 0x10000 + 40 + 18, pieces(2, [0, 2, 0xffff]));
    return file;
  },
};
for (const [what, make] of Object.entries(REFUSED)) {
  Deno.test(`hostile: vhdx, ${what}`, async () => {
    for (const writable of [false, true]) {
      const error = await use(await make(), writable);
      assert(error?.errno !== undefined, `${error}`);
    }
  });
}

Deno.test("hostile: vhdx, a table of 4 GiB of which nothing is stored takes no time", async () => {
  const file = await changed(
    { length: 2 ** 48, blockSize: MIB, fileLength: AT.data },
    0x30000,
    0x10000,
    [72, 4, 0xfff00000],
  );
  await file.resize(2 ** 33, "off");
  assertEquals(await use(file, false), undefined);
});

Deno.test("hostile: vhdx, large tables of images that nobody vouches for are refused", async () => {
  const file = await changed(
    { length: 2 ** 42, blockSize: MIB, fileLength: AT.data },
    0x30000,
    0x10000,
    [72, 4, 64 * MIB],
  );
  await (await open(file.copy()))[Symbol.asyncDispose]();
  const error = await assertRejects(() => open(file, {}, { untrusted: true }), ImageError);
  assertEquals(error.field, "block allocation table");
});

Deno.test("hostile: vhdx, a log of 2 GiB of nothing takes no time", async () => {
  const file = await changed(
    { ...SMALL, logGuid: guid(5) },
    0x20000,
    4096,
    [68, 4, 2 ** 31],
    [72, 8, 2 ** 32],
  );
  await file.resize(2 ** 33, "off");
  assertEquals(await use(file, false), undefined);
});

Deno.test("hostile: vhdx, a log full of entries that are as long as it, and torn", async () => {
  const bytes = logEntry({ sequence: 7, tail: 0, steps: [{ at: 8 * MIB, bytes: sector(1) }] });
  bytes.set(pieces(4, [0, 4, 4 * MIB]), 8);
  const count = 4 * MIB / 8192;
  const file = await changed(
    {
      ...SMALL,
      logGuid: guid(5),
      data: Array.from({ length: count }, (_, i) => [16 * MIB + i * 8192, bytes] as const),
    },
    0x20000,
    4096,
    [68, 4, 4 * MIB],
    [72, 8, 16 * MIB],
  );
  const error = await use(file, false);
  assertEquals([error?.errno, error?.field], ["EINVAL", "log"]);
});

Deno.test("hostile: vhdx, a log that writes over itself and what it is about", async () => {
  const steps = [
    // Its own entry, the headers, the region table, the table of blocks, the metadata.
    AT.log,
    0x10000,
    0x20000,
    0x30000,
    AT.table,
    AT.metadata,
    0,
  ].map((at, i) => ({ at, bytes: sector(i) }));
  const file = await handMade({
    ...SMALL,
    logGuid: guid(5),
    data: inLog([[0, logEntry({ sequence: 7, tail: 0, steps })]]),
  });
  const error = await use(file, true);
  assert(error?.errno !== undefined, `${error}`);
});

Deno.test("hostile: vhdx, blocks anywhere", async () => {
  for (
    const offset of [
      0,
      AT.log,
      AT.metadata,
      AT.table,
      AT.data + 100 * MIB,
      2 ** 52,
      2 ** 63,
      2 ** 64 - MIB,
    ]
  ) {
    const file = await handMade({ ...SMALL, entries: [[0, 6, offset]] });
    const error = await use(file.copy(), false);
    // The headers are in no region: as in the reference.
    if (offset === 0) assertEquals(error, undefined);
    else assertEquals([error?.errno, error?.field], ["EINVAL", "block allocation table"]);
    // A check tells of it.
    await using node = await open(file, { checking: true });
    const { corruptions } = await node.checker!.check("none", () => {});
    assertEquals(corruptions > 0, offset !== 0);
  }
});

Deno.test("hostile: vhdx, cut off anywhere", async () => {
  const made = await create({ size: "3M", block_size: "1M" });
  {
    await using node = await open(made, { writable: true });
    await node.write(MIB, sector(1));
  }
  const whole = made.copy();
  for (
    let length of [
      0,
      8,
      0x10000,
      0x20000,
      0x30000,
      0x40000,
      MIB,
      2 * MIB,
      3 * MIB,
      3 * MIB + 0x10000,
      8 * MIB,
    ]
  ) {
    for (length of [length, length + 1, length + 512, length + 4096]) {
      const file = whole.copy();
      await file.resize(length, "off");
      const error = await use(file, false);
      assert(error !== undefined, `${length} bytes`);
    }
  }
});

Deno.test("hostile: vhdx, any byte of its metadata may be another one", async () => {
  const made = await create({ size: "3M", block_size: "1M" });
  {
    await using node = await open(made, { writable: true });
    await node.write(MIB, sector(1));
  }
  const whole = made.copy();
  const places = [
    [0, 64],
    [0x10000, 80],
    [0x20000, 80],
    [0x30000, 80],
    [MIB, 8192],
    [2 * MIB, 32],
    [3 * MIB, 200],
    [3 * MIB + 0x10000, 40],
  ] as const;
  for (let seed = 1; seed <= 150; seed++) {
    const random = new Random(seed);
    const file = whole.copy();
    for (let n = random.between(1, 4); n > 0; n--) {
      const [start, length] = random.pick(places);
      const value = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
      await file.write(start + random.below(length), Uint8Array.of(value));
    }
    // Most would end at the checksums.
    if (random.oneIn(2)) {
      for (const [at, length] of [[0x10000, 4096], [0x20000, 4096], [0x30000, 0x10000]] as const) {
        await file.write(at, summed(file.slice(at, length)));
      }
    }
    try {
      await use(file, random.oneIn(2));
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});
