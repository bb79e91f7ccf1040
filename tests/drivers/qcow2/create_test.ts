import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { MemoryNode } from "../../_memory_node.ts";
import { reference, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { create, sha256 } from "./_image.ts";

type Options = Readonly<Record<string, string>>;

/** Test vectors of the format's reference that need nothing but creation. */
const VECTORS: readonly (readonly [id: string, options: Options, size: number, sha256: string])[] =
  [
    [
      "V1",
      { size: "1M" },
      196616,
      "0e7db0d4ad0a3b83d343a88d5991fc5024f7a9ec21c1d0e5f15261ebc3fd587e",
    ],
    [
      "V2",
      { size: "64K", cluster_size: "512" },
      1552,
      "be332c95e4b34b80483b33e506bc4fd41cbc6ea9dbbab2d81f95ed5736434580",
    ],
    [
      "V3",
      { size: "1M", compat: "0.10" },
      196616,
      "9ddff3f485139a881a3836119b582e64bfd9a97523743ca57f45ae98ab8686da",
    ],
    [
      "V8",
      { size: "1M", lazy_refcounts: "on" },
      196616,
      "5cd68c25f61c475b7e5f63b263e0adc9d2b4dd5f9068df3d8c16dbb1063c1814",
    ],
    ...([
      ["1", "9d95b42458ff33a02ed02ae73c9dfd16aab409eed6d4228f0d931b2b0675d2b4"],
      ["2", "a29b1179356acfd12a17de2c8db9da2993b4b501e3a1ca4c73dab39e4f415808"],
      ["4", "991523bd80e0c15cffdbbf089605d2306e960c5f929a912b1679188ddb3555bb"],
      ["8", "d0e8089b35f8b780a803c5e6fc25bcdfe1192c0b78f0c8bc17f1186dc5593af3"],
      ["32", "79a14172f5434e342bbd882e4e8324376afbb711cf605fb9e1fd745d6ee3c00d"],
      ["64", "3a6a980dcc995eee7ee7ba60180368e2214abf51db7d4f0dd35c822f6e060ac1"],
    ] as const).map(([refcount_bits, sum]) =>
      [
        `V9 N=${refcount_bits}`,
        { size: "1M", cluster_size: "4096", refcount_bits },
        12296,
        sum,
      ] as const
    ),
    [
      "V10",
      { size: "1M", cluster_size: "4096", backing_file: "base.qcow2", backing_fmt: "qcow2" },
      12296,
      "d50c1f7e5229e8b3412e59e91a0b4c7981f674891371f7e70bc35c610e632413",
    ],
    [
      "V11",
      { size: "1M", data_file: "v11.raw" },
      196616,
      "4904310524b986933e0c34cc1c7b727505d8715df87295043bc6648bdf7523ef",
    ],
    [
      "V11 raw",
      { size: "1M", data_file: "v11r.raw", data_file_raw: "on" },
      327680,
      "5e252ed6dc959c75c377651a09a4d9b1ab2d8da3650e3a71412eff92bd0a0554",
    ],
    [
      "V12 metadata",
      { size: "1M", preallocation: "metadata" },
      1376256,
      "92def2d221e16ead0c03399244172bb7f1cc9c172daeec6699bc42083931e845",
    ],
    ...["falloc", "full"].map((preallocation) =>
      [
        `V12 ${preallocation}`,
        { size: "1M", preallocation },
        1376256,
        "6dafe85529a019d96b61f4197fdc9199da05427d418c5f6a5a43d91b78ce701a",
      ] as const
    ),
    [
      "V16",
      { size: "1G", cluster_size: "512" },
      264704,
      "594d00c2bc2ac9b2ca7f8e6753fea94e64b9c74b6123fcb86d1b6d8b1b961277",
    ],
    [
      "V17",
      { size: "128G", cluster_size: "512" },
      33691648,
      "e0510873a13f01f4a3e2e6fe56d9b4b569f8db473969011e5f4c41b7aef50f76",
    ],
    [
      "V18 size 0",
      { size: "0" },
      196608,
      "1f0e416c971c2d5effe7d6d021965e76f4424f2bfb5431ba6d62a95a977475bb",
    ],
    [
      "V18 1G",
      { size: "1G" },
      196624,
      "3b107e52f63fab104395d42dbb0d08b9ef9cb3f10b1e32fe083674dba258e7f8",
    ],
    [
      "V18 clusters of 2M",
      { size: "1M", cluster_size: "2M" },
      6291464,
      "42ac89fbd695a72686274f866e5c397c5ad305200f4e957789e39632cdd33a82",
    ],
  ];

for (const [id, options, size, sum] of VECTORS) {
  Deno.test(`create makes test vector ${id}`, async () => {
    const file = await create(options);
    assertEquals(file.exactLength, size);
    assertEquals(await sha256(file.bytes()), sum);
  });
}

Deno.test("create makes an empty data file of the disk's size", async () => {
  const files = new Map<string, MemoryNode>();
  await create({ size: "1M", data_file: "d.raw" }, files);
  assertEquals(files.get("d.raw")!.exactLength, 1048576);
  assertEquals(await files.get("d.raw")!.allocatedSize(), 0);
});

/** Options at their edges, for a comparison with the reference byte by byte. */
const EDGES: readonly Options[] = [
  ...["0", "1", "512", "513", "1000000", "65536", "1M", "512M", "536870913", "3G"].flatMap((
    size,
  ) => [
    { size },
    { size, cluster_size: "512" },
    { size, cluster_size: "2M" },
    { size, compat: "0.10", cluster_size: "4k" },
  ]),
  ...["1k", "2k", "8k", "16k", "32k", "128k", "256k", "512k", "1M"].map((cluster_size) => ({
    size: "5M",
    cluster_size,
  })),
  ...["1", "2", "4", "8", "32", "64"].flatMap((refcount_bits) => [
    { size: "1G", cluster_size: "512", refcount_bits },
    { size: "5M", cluster_size: "512", refcount_bits, preallocation: "metadata" },
    { size: "5M", cluster_size: "512", refcount_bits, preallocation: "falloc" },
    { size: "3M", refcount_bits, preallocation: "full" },
  ]),
  ...["16k", "64k", "2M"].flatMap((cluster_size) => [
    { size: "3M", cluster_size, extended_l2: "on" },
    { size: "3000000", cluster_size, extended_l2: "on", preallocation: "metadata" },
    { size: "3000000", cluster_size, extended_l2: "on", preallocation: "falloc" },
    {
      size: "3000000",
      cluster_size,
      extended_l2: "on",
      preallocation: "metadata",
      backing_file: "b",
      backing_fmt: "raw",
    },
  ]),
  ...["metadata", "falloc", "full"].flatMap((preallocation) => [
    { size: "0", preallocation },
    { size: "512", preallocation },
    { size: "1000000", preallocation, cluster_size: "512" },
    { size: "33M", preallocation, cluster_size: "1k" },
    { size: "1000000", preallocation, compat: "0.10" },
    { size: "5M", preallocation, data_file: "d" },
    { size: "5M", preallocation, data_file: "d", data_file_raw: "on", cluster_size: "512" },
    { size: "5M", preallocation, lazy_refcounts: "on" },
  ]),
  { size: "1M", compression_type: "zstd" },
  { size: "1M", compression_type: "zstd", extended_l2: "on", lazy_refcounts: "on" },
  { size: "1M", data_file: "d", extended_l2: "on" },
  { size: "1M", data_file: "d", data_file_raw: "on", extended_l2: "on" },
  { size: "1M", backing_file: "base" },
  { size: "1M", backing_file: "x".repeat(376), backing_fmt: "raw", cluster_size: "512" },
  { size: "1M", backing_file: "x".repeat(1023), backing_fmt: "raw", compat: "0.10" },
  { size: "8T" },
  { size: "2P" },
  { size: "64T", cluster_size: "2M" },
  { size: "1T", cluster_size: "8k" },
];

Deno.test({
  name: "create makes the reference's bytes over the whole space of options",
  ignore: reference.ignore,
  fn: async (t) => {
    await using dir = await tempDir();
    for (const options of EDGES) {
      const list = Object.entries(options).map((pair) => pair.join("=")).join(",");
      await t.step(list.length > 120 ? `${list.slice(0, 120)}…` : list, async () => {
        // Without a format a backing name is only taken where the reference can ask nobody.
        const known = options["backing_file"] === undefined || options["backing_fmt"] !== undefined;
        const theirs = known ? list : `${list},backing_fmt=raw`;
        await useReference(["create", "-q", "-u", "-f", "qcow2", "-o", theirs, "x.qcow2"], {
          cwd: dir.path,
        });
        const expected = await Deno.readFile(dir.file("x.qcow2"));
        const files = new Map<string, MemoryNode>();
        const actual = await create(known ? options : { ...options, backing_fmt: "raw" }, files);
        assertEquals(actual.exactLength, expected.length, "length");
        assertEquals(await sha256(actual.bytes()), await sha256(expected), "bytes");
        if (options["data_file"] !== undefined) {
          const { size } = await Deno.stat(dir.file("d"));
          assertEquals(files.get("d")!.exactLength, size, "length of the data file");
        }
      });
    }
  },
});

Deno.test("create says EFBIG for a disk that needs an L1 table above 32 MiB", async () => {
  const error = await assertRejects(
    () => create({ size: "137438953985", cluster_size: "512" }),
    ImageError,
  );
  assertEquals([error.errno, error.message], [
    "EFBIG",
    "Could not resize image: Failed to grow the L1 table: File too large",
  ]);
});

Deno.test("create names the backing file that finds no room in the header", async () => {
  const backing_file = "x".repeat(377);
  const error = await assertRejects(
    () => create({ size: "1M", cluster_size: "512", backing_file, backing_fmt: "raw" }),
    ImageError,
  );
  assertEquals([error.errno, error.message], [
    "ENOSPC",
    `Could not assign backing file '${backing_file}' with format 'raw': No space left on device`,
  ]);
});

Deno.test("create refuses a backing name of 1024 bytes", async () => {
  const backing_file = "x".repeat(1024);
  const error = await assertRejects(
    () => create({ size: "1M", backing_file, backing_fmt: "raw" }),
    ImageError,
  );
  assertEquals(
    error.message,
    `Could not assign backing file '${backing_file}' with format 'raw': Invalid argument`,
  );
});
