/** Opening, checking and changing QED images that were made by hand. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";
import { CLUSTER, create, field, filled, open, patch, readOf } from "./_image.ts";

const [FEATURES, COMPAT, AUTOCLEAR, L1_OFFSET, IMAGE_SIZE] = [16, 24, 32, 40, 48];
const NEED_CHECK = 2n;
const L1 = CLUSTER;
const READING = context();
const CHECKING = context({ writable: true, checking: true });

/** An image with its first two clusters written: data at clusters 3 and 4, the table behind them. */
async function written(): Promise<MemoryNode> {
  const file = await create();
  await using node = await open(file);
  await node.write(0, filled(2 * CLUSTER, 1));
  await node.flush();
  return file.copy();
}
const L2 = 5 * CLUSTER;

Deno.test("an image that was not closed is repaired when it is opened for writing", async () => {
  const file = await written();
  await patch(file, { at: FEATURES, value: NEED_CHECK }, { at: L2 + 8, value: 0x7000000n });
  await using node = await open(file);
  assertEquals(field(file, FEATURES), 0n);
  assertEquals(field(file, L2 + 8), 0n);
  assertEquals(await readOf(node, CLUSTER, CLUSTER), filled(CLUSTER, 0));
});

Deno.test("an image that was not closed is only read as it is", async () => {
  const file = await written();
  await patch(file, { at: FEATURES, value: NEED_CHECK }, { at: L2 + 8, value: 0x7000000n });
  const before = file.bytes();
  {
    await using node = await open(file, null, READING);
    assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 1));
    const error = await assertRejects(() => node.read(CLUSTER, new Uint8Array(1)), ImageError);
    assertEquals(error.errno, "EINVAL");
  }
  assertEquals(file.bytes(), before);
});

Deno.test("what cannot be repaired leaves the mark until the image is closed", async () => {
  const file = await written();
  // Two entries name one cluster.
  await patch(
    file,
    { at: FEATURES, value: NEED_CHECK },
    { at: L2 + 8, value: BigInt(3 * CLUSTER) },
  );
  {
    await using node = await open(file);
    assertEquals(field(file, FEATURES), NEED_CHECK);
    assertEquals((await node.checker!.check("none", () => {})).corruptions, 1);
  }
  assertEquals(field(file, FEATURES), 0n);
});

Deno.test("a check with repairs clears the mark", async () => {
  const file = await written();
  await patch(file, { at: FEATURES, value: NEED_CHECK }, { at: L2 + 8, value: 0x7000000n });
  await using node = await open(file, null, CHECKING);
  assertEquals(field(file, FEATURES), NEED_CHECK);
  const { corruptions, corruptionsFixed, leaks } = await node.checker!.check("leaks", () => {});
  assertEquals({ corruptions, corruptionsFixed, leaks }, {
    corruptions: 0,
    corruptionsFixed: 1,
    leaks: 1,
  });
  assertEquals(field(file, FEATURES), 0n);
});

Deno.test("features that may be forgotten are forgotten by whoever writes", async () => {
  const file = await written();
  await patch(file, { at: AUTOCLEAR, value: 0x8000000000000001n });
  await (await open(file.copy(), null, READING))[Symbol.asyncDispose]();
  assertEquals(field(file, AUTOCLEAR), 0x8000000000000001n);
  await (await open(file.copy("other")))[Symbol.asyncDispose]();
  await using _node = await open(file);
  assertEquals(field(file, AUTOCLEAR), 0n);
});

Deno.test("a name is not put where there may be something that nobody here knows", async () => {
  const file = await written();
  await patch(file, { at: COMPAT, value: 1n });
  await using node = await open(file);
  const error = await assertRejects(() => node.backing!.change!("a", "raw"), ImageError);
  assertEquals(error.errno, "ENOTSUP");
  await node.backing!.change!("", undefined);
});

Deno.test("a backing file's name ends at a zero", async () => {
  const file = await create({ backing_file: "abcdef", backing_fmt: "qcow2" });
  await file.write(67, new Uint8Array(1));
  await using node = await open(file);
  assertEquals([node.backing!.name, node.backing!.format], ["abc", undefined]);
});

Deno.test("a long image with small clusters has no leaks that are none", async () => {
  const file = await create({ size: "40M" });
  await using node = await open(file);
  for (let at = 0; at < 40; at++) await node.write(at << 20, filled(1 << 20, 1));
  const { leaks, corruptions, allocatedClusters } = await node.checker!.check("none", () => {});
  assertEquals([leaks, corruptions, allocatedClusters], [0, 0, 10240]);
});

Deno.test("clusters of the file that nothing names are leaks", async () => {
  const file = await written();
  await file.write(20 * CLUSTER, filled(CLUSTER, 1));
  await using node = await open(file);
  assertEquals((await node.checker!.check("all", () => {})).leaks, 21 - 7);
});

Deno.test("a table that lies where another one does is not looked at", async () => {
  const file = await written();
  await patch(file, { at: L1 + 8, value: BigInt(L2 + CLUSTER) });
  await file.write(L2 + 2 * CLUSTER, new Uint8Array(CLUSTER));
  await using node = await open(file);
  const { corruptions, corruptionsFixed } = await node.checker!.check("all", () => {});
  assertEquals({ corruptions, corruptionsFixed }, { corruptions: 1, corruptionsFixed: 0 });
});

Deno.test("lost clusters are errors, even behind others that are not", async () => {
  const file = await written();
  const last = BigInt(6 * CLUSTER);
  await patch(file, { at: L2, value: last }, { at: L2 + 8, value: last + BigInt(CLUSTER) });
  await using node = await open(file, null, READING);
  assertEquals((await node.extent(0, 2 * CLUSTER)).length, CLUSTER);
  await assertRejects(() => node.read(0, new Uint8Array(2 * CLUSTER)), ImageError, "Invalid");
});

Deno.test("the disk does not shrink, and grows by whole sectors", async () => {
  const file = await written();
  await using node = await open(file);
  await assertRejects(() => node.resize(512, "off"), ImageError, "Shrinking images");
  await assertRejects(() => node.resize((1 << 20) + 1, "off"), ImageError, "Invalid image size");
  await assertRejects(() => node.resize(2 << 20, "full"), ImageError, "preallocation mode 'full'");
  await node.resize(2 << 20, "off");
  assertEquals([node.length, field(file, IMAGE_SIZE)], [2 << 20, 2n << 20n]);
});

Deno.test("a disk does not grow where the backing file would come to light", async () => {
  await using node = await open(await create(), new MemoryNode({ bytes: filled(2 << 20, 1) }));
  await assertRejects(() => node.resize(3 << 20, "off"), ImageError, "requested flags");
});

Deno.test("a size that failed to be stored is not that of the disk", async () => {
  const file = await create();
  await using node = await open(file);
  file.onRequest(({ kind }) => {
    if (kind === "write") throw ImageError.fromErrno("EIO");
  });
  await assertRejects(() => node.resize(2 << 20, "off"), ImageError, "Failed to update");
  assertEquals(node.length, 1 << 20);
  file.onRequest(undefined);
});

Deno.test("hostile: tables of 1 GiB in a file of holes take neither time nor memory", async () => {
  const file = await create({ size: "0", cluster_size: "67108864", table_size: "16" });
  // An L2 table behind the L1 table, and a cluster behind that.
  await file.resize(40 * (64 << 20), "off");
  await patch(file, { at: 64 << 20, value: BigInt(17 * (64 << 20)) }, {
    at: 17 * (64 << 20) + (1 << 29),
    value: BigInt(35 * (64 << 20)),
  });
  await using node = await open(file, null, READING);
  const { allocatedClusters, corruptions } = await node.checker!.check("none", () => {});
  assertEquals([allocatedClusters, corruptions], [1, 0]);
});

Deno.test("hostile: an empty disk of the greatest length is one step", async () => {
  const file = await create({ size: "64T", cluster_size: "65536", table_size: "4" });
  await using node = await open(file, null, READING);
  const extent = await node.extent(0, node.length);
  assert(extent.length >= node.length / 8);
});

Deno.test("hostile: entries of all values are data, or errors, and never lie outside", async () => {
  for (
    const value of [2n, 511n, BigInt(CLUSTER - 1), BigInt(L2 + 1), 1n << 52n, 1n << 53n, 1n << 63n]
      .concat((1n << 64n) - 1n, (1n << 64n) - BigInt(CLUSTER))
  ) {
    const file = await written();
    await patch(file, { at: L2, value });
    {
      await using node = await open(file.copy(), null, READING);
      const error = await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError);
      assertEquals(error.errno, "EINVAL", `${value}`);
    }
    {
      await using node = await open(file.copy());
      await assertRejects(() => node.write(0, filled(512, 1)), ImageError, undefined, `${value}`);
      await assertRejects(() => node.writeZeroes(0, CLUSTER, { unmap: false }), ImageError);
    }
    await patch(file, { at: L2, value: 0n }, { at: L1, value });
    await using node = await open(file, null, READING);
    await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError, undefined, `${value}`);
  }
});

Deno.test("hostile: a table that names itself is read as far as it is asked for", async () => {
  const file = await written();
  await patch(file, { at: L2, value: BigInt(L2) }, { at: L1, value: BigInt(L1) });
  await using node = await open(file, null, READING);
  // The L1 table as a table: its first entry is itself, as data.
  const bytes = await readOf(node, 0, 8);
  assertEquals(new DataView(bytes.buffer).getBigUint64(0, true), BigInt(L1));
  assert((await node.checker!.check("none", () => {})).corruptions > 0);
  assertEquals(field(file, L1_OFFSET), BigInt(L1));
});
