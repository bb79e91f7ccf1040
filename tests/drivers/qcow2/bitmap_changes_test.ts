/** Bitmaps that are added, changed and removed while an image is open. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { BitmapFlag, encodeDirectory } from "../../../drivers/qcow2/bitmap_directory.ts";
import { ImageError } from "../../../lib/block/error.ts";
import type { BitmapStore } from "../../../lib/block/capabilities.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { loadCodec } from "../../../lib/codec/mod.ts";
import type { MemoryNode } from "../../_memory_node.ts";
import { bitsOf, storedBitmaps } from "../../_stored_bitmaps.ts";
import { context, create, open, patch } from "./_image.ts";

const MIB = 1 << 20;

/** Opens an image, lets `act` have its bitmaps, and closes it. */
async function change(
  file: MemoryNode,
  act: (bitmaps: Required<BitmapStore>, node: BlockNode) => unknown,
): Promise<void> {
  await using node = await open(file.copy(), context({ writable: true }));
  const copy = node.children[0]!.node as MemoryNode;
  try {
    await act(node.bitmaps as Required<BitmapStore>, node);
    await node[Symbol.asyncDispose]();
  } finally {
    await file.resize(0, "off");
    await file.write(0, copy.bytes());
  }
}

async function runs(store: BitmapStore, name: string): Promise<number[][]> {
  const found: number[][] = [];
  await store.visitDirty!(name, (offset, length) => void found.push([offset, length]));
  return found;
}

const add = (bitmaps: Required<BitmapStore>, name: string, granularity = 65536, enabled = true) =>
  bitmaps.add({ name, granularity, enabled });

Deno.test("a bitmap that is added is there when the image is opened again", async () => {
  const file = await create({ size: "1M" });
  await change(file, (bitmaps) => {
    add(bitmaps, "a");
    add(bitmaps, "b", 512, false);
    assertEquals(bitmaps.list().map(({ name }) => name), ["b", "a"]);
  });
  await using node = await open(file);
  assertEquals(node.bitmaps!.list(), [
    { name: "b", granularity: 512, flags: [], enabled: false, consistent: true },
    { name: "a", granularity: 65536, flags: ["auto"], enabled: true, consistent: true },
  ]);
});

Deno.test("dirty runs are whole bits, joined over clusters, within the disk", async () => {
  const size = 3 * MIB + 512;
  const file = await create({ size: String(size), cluster_size: "512" });
  await change(file, async (bitmaps) => {
    // A cluster of this bitmap is 4096 bits, 2 MiB of the disk.
    add(bitmaps, "fine", 512);
    add(bitmaps, "coarse", 65536);
    for (const name of ["fine", "coarse"]) {
      bitmaps.marker(name)(700, 1);
      bitmaps.marker(name)(2 * MIB - 512, 1024);
      bitmaps.marker(name)(3 * MIB + 1, 1);
    }
    const expected = {
      fine: [[512, 512], [2 * MIB - 512, 1024], [3 * MIB, 512]],
      coarse: [[0, 65536], [2 * MIB - 65536, 131072], [3 * MIB, 512]],
    };
    assertEquals(await runs(bitmaps, "fine"), expected.fine);
    assertEquals(await runs(bitmaps, "coarse"), expected.coarse);
  });
  await using node = await open(file);
  assertEquals(await runs(node.bitmaps!, "fine"), [
    [512, 512],
    [2 * MIB - 512, 1024],
    [3 * MIB, 512],
  ]);
});

Deno.test("what is stored and what is new are dirty together, until all is cleared", async () => {
  const file = await create({ size: "1M" });
  await change(file, (bitmaps) => {
    add(bitmaps, "a");
    bitmaps.marker("a")(0, 1);
  });
  await change(file, async (bitmaps) => {
    bitmaps.marker("a")(131072, 1);
    assertEquals(await runs(bitmaps, "a"), [[0, 65536], [131072, 65536]]);
    bitmaps.clear("a");
    assertEquals(await runs(bitmaps, "a"), []);
    bitmaps.marker("a")(65536, 1);
    assertEquals(await runs(bitmaps, "a"), [[65536, 65536]]);
  });
  await using node = await open(file);
  assertEquals(await runs(node.bitmaps!, "a"), [[65536, 65536]]);
});

Deno.test("a bitmap follows writes while it is enabled", async () => {
  const file = await create({ size: "1M" });
  await change(file, async (bitmaps, node) => {
    add(bitmaps, "on");
    add(bitmaps, "off", 65536, false);
    await node.write(0, new Uint8Array(512));
    bitmaps.setEnabled("on", false);
    bitmaps.setEnabled("off", true);
    await node.write(131072, new Uint8Array(512));
    assertEquals(await runs(bitmaps, "on"), [[0, 65536]]);
    assertEquals(await runs(bitmaps, "off"), [[131072, 65536]]);
  });
  await using node = await open(file);
  assertEquals(node.bitmaps!.list().map(({ name, enabled }) => [name, enabled]), [
    ["off", true],
    ["on", false],
  ]);
});

for (
  const [how, write] of [
    ["written", (node: BlockNode) => node.write(70000, new Uint8Array(10))],
    ["zeroed", (node: BlockNode) => node.writeZeroes(70000, 10, { unmap: true })],
    ["discarded", (node: BlockNode) => node.discard(70000, 10)],
    ["written compressed", async (node: BlockNode) => {
      const packed = new Uint8Array(65536);
      const codec = await loadCodec(node.packer!.codec);
      const length = codec.pack(new Uint8Array(65536), packed)!;
      await node.packer!.writePacked(65536, packed.subarray(0, length));
    }],
    ["allocated for somebody else to fill", async (node: BlockNode) => {
      const allocation = await node.allocator!.allocate(65536, 65536);
      await allocation!.publish();
    }],
  ] as const
) {
  Deno.test(`a range that is ${how} is dirty`, async () => {
    const file = await create({ size: "1M" });
    await using node = await open(file, context({ writable: true, unmap: true }));
    node.bitmaps!.add!({ name: "a", granularity: 65536, enabled: true });
    await write(node);
    assertEquals(await runs(node.bitmaps!, "a"), [[65536, 65536]]);
  });
}

Deno.test("discards that do not reach the image leave it clean", async () => {
  const file = await create({ size: "1M" });
  await using node = await open(file, context({ writable: true }));
  node.bitmaps!.add!({ name: "a", granularity: 65536, enabled: true });
  await node.discard(0, MIB);
  assertEquals(await runs(node.bitmaps!, "a"), []);
});

Deno.test("removing the last bitmap leaves no trace in the header", async () => {
  const file = await create({ size: "1M" });
  const before = file.bytes();
  await change(file, (bitmaps) => {
    add(bitmaps, "a");
    bitmaps.marker("a")(0, MIB);
  });
  assertEquals(storedBitmaps(file.bytes()).length, 1);
  await change(file, (bitmaps) => bitmaps.remove("a"));
  assertEquals(file.slice(0, 65536), before.slice(0, 65536));
  await using node = await open(file);
  const { leaks, corruptions } = await node.checker!.check("none", () => {});
  assertEquals({ leaks, corruptions }, { leaks: 0, corruptions: 0 });
});

Deno.test("a removed bitmap is gone from the file at once, the others are in use", async () => {
  const file = await create({ size: "1M" });
  await change(file, (bitmaps) => {
    add(bitmaps, "a");
    add(bitmaps, "b");
  });
  await using _ = await (async () => {
    const node = await open(file, context({ writable: true }));
    await node.bitmaps!.remove!("a");
    return node;
  })();
  assertEquals(
    storedBitmaps(file.bytes()).map(({ name, inUse }) => [name, inUse]),
    [["b", true]],
  );
});

Deno.test("a bitmap that was not stored yet can be removed", async () => {
  const file = await create({ size: "1M" });
  const before = file.bytes();
  await change(file, async (bitmaps) => {
    add(bitmaps, "a");
    await bitmaps.remove("a");
    assertEquals(bitmaps.list(), []);
  });
  assertEquals(file.bytes(), before);
});

Deno.test("a bitmap in use can be removed and nothing else", async () => {
  const file = await create({ size: "1M" });
  await change(file, (bitmaps) => add(bitmaps, "a"));
  const directory = Number(
    new DataView(file.slice(0, 65536).buffer).getBigUint64(directoryField(file)),
  );
  await file.write(directory + 12, new Uint8Array([0, 0, 0, BitmapFlag.inUse]));
  await change(file, async (bitmaps) => {
    assertEquals(bitmaps.list()[0]!.consistent, false);
    const message = "Bitmap 'a' is inconsistent and cannot be used";
    assertThrows(() => bitmaps.clear("a"), ImageError, message);
    assertThrows(() => bitmaps.setEnabled("a", true), ImageError, message);
    assertThrows(() => bitmaps.marker("a")(0, 1), ImageError, message);
    await assertRejects(() => bitmaps.visitDirty("a", () => {}), ImageError, message);
    assertThrows(() => add(bitmaps, "a"), ImageError, "Bitmap already exists: a");
    await bitmaps.remove("a");
  });
  await using node = await open(file);
  assertEquals(node.bitmaps!.list(), []);
  assertEquals((await node.checker!.check("none", () => {})).leaks, 0);
});

/** Where the header has the offset of the bitmap directory. */
function directoryField(file: MemoryNode): number {
  const view = new DataView(file.slice(0, 65536).buffer);
  let at = view.getUint32(100);
  while (view.getUint32(at) !== 0x23852875) at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  return at + 24;
}

Deno.test("a bitmap in use whose table leads to metadata costs nothing but its own clusters", async () => {
  const file = await create({ size: "1M" });
  await change(file, (bitmaps, node) => {
    add(bitmaps, "a");
    bitmaps.marker("a")(0, 1);
    return node.write(0, new Uint8Array(65536).fill(7));
  });
  const view = new DataView(file.slice(0, 65536).buffer);
  const directory = Number(view.getBigUint64(directoryField(file)));
  const l1 = view.getBigUint64(40);
  const table = Number(new DataView(file.slice(directory, 8).buffer).getBigUint64(0));
  await file.write(directory + 12, new Uint8Array([0, 0, 0, BitmapFlag.inUse]));
  await file.write(table, patch(new Uint8Array(8), [0, 8, l1]));
  await change(file, (bitmaps) => bitmaps.remove("a"));
  await using node = await open(file);
  const { corruptions, checkErrors } = await node.checker!.check("none", () => {});
  assertEquals({ corruptions, checkErrors }, { corruptions: 0, checkErrors: 0 });
});

Deno.test("what does not exist cannot be changed", async () => {
  const file = await create({ size: "1M" });
  await change(file, async (bitmaps) => {
    const message = "Dirty bitmap 'a' not found";
    assertThrows(() => bitmaps.clear("a"), ImageError, message);
    assertThrows(() => bitmaps.setEnabled("a", true), ImageError, message);
    assertThrows(() => bitmaps.marker("a")(0, 1), ImageError, message);
    await assertRejects(() => bitmaps.visitDirty("a", () => {}), ImageError, message);
    await assertRejects(() => bitmaps.remove("a"), ImageError, message);
  });
});

Deno.test("bitmaps are adapted to a new size; what is new is clean", async () => {
  const file = await create({ size: "1M" });
  await change(file, async (bitmaps, node) => {
    add(bitmaps, "a");
    bitmaps.marker("a")(0, MIB);
    await node.resize(MIB / 2 + 512, "off");
    assertEquals(await runs(bitmaps, "a"), [[0, MIB / 2 + 512]]);
    await node.resize(2 * MIB, "off");
    assertEquals(await runs(bitmaps, "a"), [[0, MIB / 2 + 65536]]);
  });
  await using node = await open(file);
  assertEquals(await runs(node.bitmaps!, "a"), [[0, MIB / 2 + 65536]]);
});

/** What cannot be stored, and why not. */
const REFUSALS: readonly (readonly [
  what: string,
  options: Readonly<Record<string, string>>,
  bitmap: { readonly name?: string; readonly granularity?: number },
  reason: string,
])[] = [
  ["an empty disk", { size: "0" }, {}, "The disk is empty"],
  [
    "too many bits",
    { size: "4T" },
    { granularity: 512 },
    "Too much space will be occupied by the bitmap. Use larger granularity",
  ],
  [
    "a long name",
    { size: "1M" },
    { name: "x".repeat(1024) },
    "Name length exceeds maximum (1023 characters)",
  ],
  [
    "a name of long characters",
    { size: "1M" },
    { name: "ü".repeat(512) },
    "Name length exceeds maximum (1023 characters)",
  ],
  [
    "too few bits",
    { size: "1M" },
    { granularity: 2 ** 32 },
    "Granularity exceeds maximum (2147483648 bytes)",
  ],
];

for (const [what, options, { name = "a", granularity = 65536 }, reason] of REFUSALS) {
  Deno.test(`bitmaps cannot be added: ${what}`, async () => {
    const file = await create(options);
    await using node = await open(file, context({ writable: true }));
    const error = assertThrows(
      () => node.bitmaps!.add!({ name, granularity, enabled: true }),
      ImageError,
    );
    assertEquals(
      error.message,
      `Can't make bitmap '${name}' persistent in 'test.qcow2': ${reason}`,
    );
    assertEquals(node.bitmaps!.list(), []);
  });
}

Deno.test("version 2 can have no bitmaps and says why", async () => {
  const file = await create({ size: "1M", compat: "0.10" });
  await using node = await open(file, context({ writable: true }));
  assertEquals(node.bitmaps, undefined);
  assertEquals(node.withoutBitmaps, "Cannot store dirty bitmaps in qcow2 v2 files");
});

/** An image of 1 MiB with so many bitmaps with a table of zeros in common, names of `length` bytes. */
async function crowded(count: number, length: number): Promise<MemoryNode> {
  const file = await create({ size: "1M" });
  const tableOffset = 0x100000;
  const entries = Array.from({ length: count }, (_, index) => ({
    name: "",
    nameBytes: new TextEncoder().encode(String(index).padStart(length, "0")),
    tableOffset,
    tableEntries: 1,
    flags: BitmapFlag.inUse,
    granularityBits: 16,
  }));
  const directory = encodeDirectory(entries);
  await file.write(tableOffset + 65536, directory);
  const bytes = file.slice(0, 65536);
  let at = new DataView(bytes.buffer).getUint32(100);
  const view = new DataView(bytes.buffer);
  while (view.getUint32(at) !== 0) at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  patch(
    bytes,
    [at, 4, 0x23852875],
    [at + 4, 4, 24],
    [at + 8, 4, count],
    [at + 12, 4, 0],
    [at + 16, 8, directory.length],
    [at + 24, 8, tableOffset + 65536],
    [95, 1, 1],
  );
  await file.write(0, bytes);
  return file;
}

Deno.test("there are 65535 bitmaps at the most", async () => {
  const file = await crowded(65535, 8);
  await using node = await open(file, context({ writable: true }));
  assertThrows(
    () => node.bitmaps!.add!({ name: "a", granularity: 512, enabled: true }),
    ImageError,
    "Maximum number of persistent bitmaps is already reached",
  );
});

Deno.test("names that are not UTF-8 may look alike and be different", async () => {
  const file = await crowded(2, 1);
  const at = 0x110000 + 24;
  await file.write(at, new Uint8Array([0xff]));
  await file.write(at + 32, new Uint8Array([0xfe]));
  await using node = await open(file);
  assertEquals(node.bitmaps!.list().map(({ name }) => name), ["\ufffd", "\ufffd"]);
});

Deno.test("a table entry for nothing but ones is kept, and takes no space", async () => {
  // A cluster of bits is 2 MiB of the disk.
  const file = await create({ size: "4M", cluster_size: "512" });
  await change(file, (bitmaps) => {
    add(bitmaps, "a", 512);
    bitmaps.marker("a")(0, 1);
    bitmaps.marker("a")(3 * MIB, 1);
  });
  const view = new DataView(file.slice(0, 512).buffer);
  const directory = Number(view.getBigUint64(directoryField(file)));
  const table = Number(new DataView(file.slice(directory, 8).buffer).getBigUint64(0));
  await file.write(table, patch(new Uint8Array(8), [0, 8, 1]));
  await change(file, (bitmaps) => bitmaps.marker("a")(0, 1));
  const [bitmap] = storedBitmaps(file.bytes());
  assertEquals(
    bitsOf(bitmap!, 4 * MIB),
    "1".repeat(4096) + "0".repeat(2048) + "1" + "0".repeat(2047),
  );
  const moved = Number(new DataView(file.slice(0, 512).buffer).getBigUint64(directoryField(file)));
  const newTable = Number(new DataView(file.slice(moved, 8).buffer).getBigUint64(0));
  assertEquals(file.slice(newTable, 8), patch(new Uint8Array(8), [0, 8, 1]));
});

Deno.test("bitmaps that find no room are lost, the guest's data are not, and nothing leaks", async () => {
  let [stored, failed] = [0, 0];
  for (let allowed = 0; allowed < 8; allowed++) {
    const file = await create({ size: "1M", cluster_size: "4k" });
    await change(file, (bitmaps) => add(bitmaps, "old", 512));
    const node = await open(file, context({ writable: true }));
    node.bitmaps!.add!({ name: "new", granularity: 512, enabled: true });
    const data = new Uint8Array(8192).fill(9);
    await node.write(4096, data);
    const end = file.length;
    let left = allowed;
    file.onRequest((request) => {
      if (request.kind !== "write" || request.offset < end) return;
      if (left-- <= 0) throw ImageError.fromErrno("ENOSPC");
    });
    let failure: unknown;
    try {
      await node[Symbol.asyncDispose]();
    } catch (error) {
      failure = error;
    }
    const again = file.copy();
    await using reopened = await open(again);
    const bytes = new Uint8Array(8192);
    await reopened.read(4096, bytes);
    assertEquals(bytes, data);
    const { leaks, corruptions } = await reopened.checker!.check("none", () => {});
    assertEquals({ leaks, corruptions }, { leaks: 0, corruptions: 0 }, `${allowed} writes`);
    const seen = reopened.bitmaps!.list().map(({ name, consistent }) => [name, consistent]);
    if (failure === undefined) {
      stored++;
      assertEquals(seen, [["old", true], ["new", true]]);
    } else {
      failed++;
      assert(failure instanceof ImageError);
      assertEquals(failure.errno, "ENOSPC");
      assertEquals(seen, [["old", false]]);
    }
  }
  assert(stored > 0 && failed > 2, `${stored} times there was room, ${failed} times there was not`);
});
