import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode, Preallocation } from "../../../lib/block/node.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, runReference, useReference, writeWithReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { context, create, open, patch, sha256 } from "./_image.ts";

const K = 1024;
const M = 1024 * K;

/** Opens a file for resizing, resizes and closes it. */
async function resize(
  file: MemoryNode,
  length: number,
  how: Preallocation = "off",
  options: { files?: Map<string, MemoryNode>; backing?: BlockNode } = {},
): Promise<MemoryNode> {
  {
    const { files = new Map() } = options;
    await using node = await open(file, context({ writable: true, resizing: true }, { files }));
    if (options.backing !== undefined) node.backing!.attach(options.backing);
    await node.resize(length, how);
    assertEquals(node.length, length);
  }
  return file.copy();
}

async function filled(file: MemoryNode, ...ranges: [offset: number, length: number][]) {
  {
    await using node = await open(file, context({ writable: true }));
    for (const [offset, length] of ranges) {
      await node.write(offset, new Uint8Array(length).fill(offset / 512 + 1));
    }
  }
  return file.copy();
}

async function contents(file: MemoryNode, backing?: BlockNode): Promise<Uint8Array> {
  await using node = await open(file.copy());
  if (backing !== undefined) node.backing!.attach(backing);
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return bytes;
}

Deno.test("a larger disk keeps its content and reads zeros behind it", async () => {
  const file = await filled(await create({ size: "1M", cluster_size: "4k" }), [0, 5000], [
    M - 512,
    512,
  ]);
  const before = await contents(file);
  const after = await contents(await resize(file, 3 * M));
  assertEquals(after.subarray(0, M), before);
  assertEquals(after.subarray(M), new Uint8Array(2 * M));
});

Deno.test("a smaller disk keeps what is left, and what was cut off does not come back", async () => {
  const file = await filled(await create({ size: "1M", cluster_size: "4k" }), [0, M]);
  const before = await contents(file);
  const small = await resize(file, 10 * K);
  assertEquals(await contents(small), before.subarray(0, 10 * K));
  const large = await contents(await resize(small, M));
  assertEquals(large.subarray(12 * K), new Uint8Array(M - 12 * K));
});

Deno.test("a smaller disk gives the file's end back", async () => {
  const file = await filled(await create({ size: "8M", cluster_size: "4k" }), [0, 8 * M]);
  const small = await resize(file, 64 * K);
  assert(small.exactLength < 300 * K, `${small.exactLength} bytes are left`);
});

Deno.test("a new size must be whole sectors", async () => {
  const error = await assertRejects(
    async () => resize(await create({ size: "1M" }), 1000),
    ImageError,
  );
  assertEquals(error.message, "The new size must be a multiple of 512");
});

Deno.test("shrinking takes no preallocation", async () => {
  const error = await assertRejects(
    async () => resize(await create({ size: "1M" }), 512, "metadata"),
    ImageError,
  );
  assertEquals(error.message, "Preallocation can't be used for shrinking an image");
});

Deno.test("a version 2 image with snapshots keeps its size", async () => {
  const file = await create({ size: "1M", compat: "0.10" });
  const head = file.slice(0, 72);
  await file.write(0, patch(head, [60, 4, 1], [64, 8, 0x40000]));
  await file.write(0x40000, patch(new Uint8Array(40), [0, 8, 0x30000], [8, 4, 1]));
  const error = await assertRejects(() => resize(file, 2 * M), ImageError);
  assertEquals(error.message, "Can't resize a v2 image which has snapshots");
});

Deno.test("a disk that needs an L1 table above 32 MiB is refused", async () => {
  const file = await create({ size: "1M", cluster_size: "512" });
  const error = await assertRejects(() => resize(file, 128 * 1024 ** 3 + 512), ImageError);
  assertEquals(error.message, "Failed to grow the L1 table: File too large");
});

for (const version of ["1.1", "0.10"]) {
  for (const size of [M, M + 1536]) {
    Deno.test(`a larger overlay (${version}, ${size} bytes) does not show its backing file behind the old end`, async () => {
      const backing = new MemoryNode({ bytes: new Uint8Array(3 * M).fill(7) });
      const file = await create({
        size: String(size),
        compat: version,
        cluster_size: "4k",
        backing_file: "b",
        backing_fmt: "raw",
      });
      if (version === "0.10") {
        const error = await assertRejects(
          () => resize(file, 2 * M, "off", { backing }),
          ImageError,
        );
        assertEquals(
          error.message,
          "Failed to zero out new clusters: Operation not supported",
        );
        return;
      }
      const grown = await resize(file, 2 * M, "off", { backing: backing.copy() });
      const bytes = await contents(grown, backing);
      assertEquals(bytes.subarray(0, size), new Uint8Array(size).fill(7));
      assertEquals(bytes.subarray(size), new Uint8Array(2 * M - size));
    });
  }
}

Deno.test("bytes of a half cluster survive preallocation behind them", async () => {
  for (const extended_l2 of ["off", "on"]) {
    for (const how of ["metadata", "falloc", "full"] as const) {
      const file = await filled(
        await create({ size: "24k", cluster_size: "16k", extended_l2 }),
        [0, 24 * K],
      );
      const before = await contents(file);
      const after = await contents(await resize(file, 80 * K, how));
      assertEquals(after.subarray(0, 24 * K), before, `${extended_l2}, ${how}`);
      assertEquals(after.subarray(24 * K), new Uint8Array(56 * K), `${extended_l2}, ${how}`);
    }
  }
});

/** A sequence of things done to an image before it is resized. */
interface Case {
  readonly options: string;
  readonly size: string;
  readonly commands?: readonly string[];
  readonly backing?: { readonly size: string; readonly commands: readonly string[] };
  readonly to: number;
  readonly how?: Preallocation;
  readonly bitmap?: true;
  /** The reference makes tables for what it is about to cut off; only the content is compared. */
  readonly content?: true;
}

const CASES: readonly Case[] = [
  { options: "cluster_size=4k", size: "1M", to: 2 * M },
  { options: "cluster_size=512", size: "1M", to: 64 * M },
  { options: "cluster_size=512", size: "64M", to: M },
  { options: "cluster_size=4k", size: "0", to: M },
  { options: "cluster_size=4k", size: "1M", to: M },
  { options: "cluster_size=4k", size: "8M", commands: ["write 0 8M"], to: 5 * M + 512 },
  { options: "cluster_size=4k", size: "8M", commands: ["write 0 8M"], to: 512 },
  { options: "cluster_size=4k", size: "5000", commands: ["write 0 5120"], to: 4608 },
  {
    options: "cluster_size=512",
    size: "3M",
    commands: ["write 0 3M", "discard 1M 512k"],
    to: 700 * K,
  },
  {
    options: "cluster_size=512,refcount_bits=64",
    size: "2M",
    commands: ["write 1M 1M", "write 0 1M"],
    to: 100 * K,
  },
  {
    options: "cluster_size=512,refcount_bits=1",
    size: "3M",
    commands: ["write 0 3M"],
    to: 512,
  },
  {
    options: "cluster_size=16k,extended_l2=on",
    size: "3M",
    commands: ["write 1k 512", "write 100k 1M", "write 2M 1M"],
    to: 1500 * K,
  },
  { options: "cluster_size=4k", size: "3M", commands: ["write -c 0 2M"], to: 12 * K },
  { options: "compat=0.10,cluster_size=4k", size: "3M", commands: ["write 0 3M"], to: M },
  { options: "compat=0.10,cluster_size=4k", size: "1M", commands: ["write 0 1M"], to: 3 * M },
  ...(["metadata", "falloc", "full"] as const).flatMap((how): Case[] => [
    { options: "cluster_size=4k", size: "1M", to: 3 * M, how },
    { options: "cluster_size=4k", size: "6k", commands: ["write 0 6k"], to: 20 * K, how },
    { options: "cluster_size=4k", size: "6k", to: 20 * K, how },
    { options: "cluster_size=512", size: "1M", commands: ["write 5k 700k"], to: 3 * M, how },
    {
      options: "cluster_size=512,refcount_bits=64",
      size: "100k",
      commands: ["write 50k 50k"],
      to: 1500 * K,
      how,
    },
    { options: "compat=0.10", size: "1M", commands: ["write 0 1M"], to: 3 * M, how },
    { options: "cluster_size=16k,extended_l2=on", size: "32k", to: 80 * K, how },
    {
      options: "cluster_size=16k,extended_l2=on",
      size: "24k",
      commands: ["write 0 24k"],
      to: 80 * K,
      how,
    },
    { options: "cluster_size=4k", size: "0", to: M, how },
  ]),
  ...["1M", "1050112"].flatMap((size) =>
    ["cluster_size=4k", "cluster_size=16k,extended_l2=on"].flatMap((options): Case[] => [
      { options, size, backing: { size: "3M", commands: ["write -P 7 0 3M"] }, to: 2 * M },
      {
        options,
        size,
        backing: { size: "3M", commands: ["write -P 7 0 3M"] },
        commands: ["write 1000k 24k"],
        to: 2 * M + 512,
      },
      { options, size, backing: { size: "500k", commands: ["write -P 7 0 500k"] }, to: 2 * M },
      {
        options,
        size,
        backing: { size: "3M", commands: ["write -P 7 0 3M"] },
        to: 500 * K,
        content: true,
      },
    ])
  ),
  ...(["metadata", "falloc"] as const).flatMap((how) =>
    ["1M", "1050112"].flatMap((size): Case[] => [
      {
        options: "cluster_size=4k",
        size,
        backing: { size: "3M", commands: ["write -P 7 0 3M"] },
        to: 2 * M,
        how,
      },
      {
        options: "cluster_size=16k,extended_l2=on",
        size,
        backing: { size: "3M", commands: ["write -P 7 0 3M"] },
        to: 2 * M,
        how,
      },
    ])
  ),
  { options: "cluster_size=512", size: "3M", commands: ["write 0 3M"], to: 6 * M, bitmap: true },
  { options: "cluster_size=4k", size: "9M", commands: ["write 0 9M"], to: M, bitmap: true },
  ...(["off", "metadata", "falloc"] as const).flatMap((how): Case[] => [
    { options: "data_file=d,cluster_size=4k", size: "1M", to: 3 * M, how },
    {
      options: "data_file=d,data_file_raw=on,cluster_size=4k",
      size: "1M",
      commands: ["write 0 1M"],
      to: 3 * M,
      how,
    },
  ]),
  { options: "data_file=d,cluster_size=4k", size: "3M", commands: ["write 0 3M"], to: M },
];

function title({ options, size, commands, backing, to, how, bitmap }: Case): string {
  return [
    `${size} → ${to} (${options})`,
    commands?.join(", "),
    backing && `over ${backing.size}`,
    how,
    bitmap && "with a bitmap",
  ].filter(Boolean).join(", ");
}

Deno.test({
  name: "resizing leaves the bytes that the reference leaves",
  ignore: reference.ignore,
  fn: async (t) => {
    for (const test of CASES) {
      await t.step(title(test), async () => {
        await using dir = await tempDir();
        const at = { cwd: dir.path };
        const { options, size, commands = [], backing, to, how = "off", bitmap } = test;
        const below: string[] = [];
        if (backing !== undefined) {
          await useReference(["create", "-q", "-f", "raw", "b", backing.size], at);
          await writeWithReference("b", backing.commands, { ...at, format: "raw" });
          below.push("-b", "b", "-F", "raw");
        }
        await useReference(
          ["create", "-q", "-f", "qcow2", "-o", options, ...below, "x", size],
          at,
        );
        if (bitmap) await useReference(["bitmap", "--add", "-g", "512", "x", "bm"], at);
        if (commands.length > 0) await writeWithReference("x", commands, at);
        const read = async (name: string) =>
          new MemoryNode({ filename: name, bytes: await Deno.readFile(dir.file(name)) });
        const files = new Map<string, MemoryNode>();
        if (options.includes("data_file")) files.set("d", await read("d"));
        const before = await read("x");
        const actual = await resize(before, to, how, {
          files,
          ...(backing === undefined ? {} : { backing: await read("b") }),
        });
        await useReference(
          ["resize", "-q", "--shrink", `--preallocation=${how}`, "x", String(to)],
          at,
        );
        const expected = await Deno.readFile(dir.file("x"));
        if (options.includes("data_file")) {
          const data = await Deno.readFile(dir.file("d"));
          assertEquals(files.get("d")!.exactLength, data.length, "length of the data file");
          assertEquals(await sha256(files.get("d")!.bytes()), await sha256(data), "data file");
        }
        await Deno.writeFile(dir.file("ours"), actual.bytes());
        const checked = await runReference(["check", "ours"], at);
        assertEquals([checked.code, checked.stderr], [0, ""]);
        if (test.content) {
          assertEquals(
            await useReference(["compare", "ours", "x"], at),
            "Images are identical.\n",
          );
          return;
        }
        assertEquals(actual.exactLength, expected.length, "length");
        if (await sha256(actual.bytes()) !== await sha256(expected)) {
          const bytes = actual.bytes();
          const first = bytes.findIndex((byte, i) => byte !== expected[i]);
          throw new Error(`bytes differ at 0x${first.toString(16)}`);
        }
      });
    }
  },
});
