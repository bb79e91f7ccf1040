/** Images of other products, made by hand from the specifications. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, runQimg, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import {
  assertBytes,
  contentOf,
  cowd,
  cowdContent,
  descriptor,
  fileOf,
  type Files,
  FOLDER,
  hostedHeader,
  NAME,
  open,
  pattern,
  SECTOR,
  seSparse,
  seSparseContent,
  statesOf,
  stream,
  streamContent,
  u32,
} from "./_images.ts";

/** The file of their one extent. */
const E = `${FOLDER}e`;
const text = (content: string) => new TextEncoder().encode(content);

interface Sample {
  readonly name: string;
  readonly files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
  readonly content: Uint8Array<ArrayBuffer>;
  readonly states: readonly (readonly [number, string])[];
}

/** A sparse extent with tables of 100 entries, a directory in front of them and no descriptor of its own. */
function oddTables(version: number, flags: number): Uint8Array<ArrayBuffer> {
  return fileOf(40 * SECTOR, [
    [
      0,
      hostedHeader({
        version,
        flags,
        capacity: 250 * 3,
        grain: 3,
        tableEntries: 100,
        directoryAt: 2,
      }),
    ],
    [2 * SECTOR, u32(3, 0, 4)],
    [3 * SECTOR + 99 * 4, u32(6)],
    [4 * SECTOR, u32(9, 1)],
    [6 * SECTOR, pattern(7, 3 * SECTOR)],
    [9 * SECTOR, pattern(8, 3 * SECTOR)],
  ]);
}

const ODD_GRAIN = 3 * SECTOR;
const ODD_CONTENT = fileOf(250 * ODD_GRAIN, [
  [99 * ODD_GRAIN, pattern(7, ODD_GRAIN)],
  [200 * ODD_GRAIN, pattern(8, ODD_GRAIN)],
]);

const SAMPLES: readonly Sample[] = [
  {
    name: "a redo log of ESX",
    files: {
      [NAME]: text(descriptor("vmfsSparse", `RW 81920 VMFSSPARSE "e"`)),
      [E]: cowd(),
    },
    content: cowdContent(),
    states: [
      [2 * SECTOR, "unallocated"],
      [SECTOR, "data"],
      [19 * 4096 * SECTOR - 3 * SECTOR, "unallocated"],
      [SECTOR, "data"],
      [4094 * SECTOR, "unallocated"],
      [SECTOR, "data"],
    ],
  },
  {
    name: "a space-efficient snapshot of ESX",
    files: {
      [NAME]: text(descriptor("seSparse", `RW 98304 SESPARSE "e"`)),
      [E]: seSparse(),
    },
    content: seSparseContent(),
    states: [
      [4096, "data"],
      [4096, "unallocated"],
      [8192, "zero"],
      [4096, "data"],
      [3 * 2 ** 24 - 6 * 4096, "unallocated"],
      [4096, "data"],
    ],
  },
  {
    name: "a stream of VMware's tools",
    files: { [NAME]: stream() },
    content: streamContent(),
    states: [
      [65536, "compressed"],
      [4 * 65536, "unallocated"],
      [65536, "compressed"],
      [249 * 65536, "unallocated"],
      [65536, "compressed"],
    ],
  },
  {
    name: "grains of three sectors in tables of a hundred, with zeros",
    files: {
      [NAME]: text(descriptor("twoGbMaxExtentSparse", `RW 750 SPARSE "e"`)),
      [E]: oddTables(2, 5),
    },
    content: ODD_CONTENT,
    states: [
      [99 * ODD_GRAIN, "unallocated"],
      [ODD_GRAIN, "data"],
      [100 * ODD_GRAIN, "unallocated"],
      [ODD_GRAIN, "data"],
      [ODD_GRAIN, "zero"],
      [48 * ODD_GRAIN, "unallocated"],
    ],
  },
];

function filesOf(sample: Sample): Files {
  return new Map(
    Object.entries(sample.files).map(([name, bytes]) => [
      name,
      new MemoryNode({ filename: name, bytes }),
    ]),
  );
}

for (const sample of SAMPLES) {
  Deno.test(`vmdk, ${sample.name}: content and states`, async () => {
    await using node = await open(filesOf(sample));
    assertBytes(await contentOf(node), sample.content);
    assertEquals(await statesOf(node), sample.states.map((state) => [...state]));
    // In small pieces, across grains.
    const piece = new Uint8Array(3 * SECTOR);
    for (let at = 0; at + piece.length <= node.length; at += 61 * 1024 + 512) {
      await node.read(at, piece);
      assertBytes(piece, sample.content.subarray(at, at + piece.length));
    }
    const { corruptions } = await node.checker!.check("none", () => {});
    assertEquals(corruptions, 0);
  });

  Deno.test({
    name: `vmdk, ${sample.name}: as the reference has it`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      for (const [name, bytes] of Object.entries(sample.files)) {
        await Deno.writeFile(dir.file(name), bytes);
      }
      await Deno.writeFile(dir.file("raw"), sample.content);
      await useReference(["compare", "-F", "raw", NAME, "raw"], { cwd: dir.path });
      for (const command of ["info", "map", "check"]) {
        const args = [command, "-f", "vmdk", "--output=json", NAME];
        const { code, stdout } = await runQimg(args, { cwd: dir.path });
        assertEquals(code, 0);
        assertEquals(stdout, await useReference(args, { cwd: dir.path }), command);
      }
      const { code } = await runQimg(["convert", "-O", "raw", NAME, "out"], { cwd: dir.path });
      assertEquals(code, 0);
      assertBytes(await Deno.readFile(dir.file("out")), sample.content);
    },
  });
}

Deno.test("vmdk, a redo log: tables are made where there are none, and the free sector moves", async () => {
  const files = filesOf(SAMPLES[0]!);
  const expected = cowdContent();
  {
    await using node = await open(files, { writable: true });
    const bytes = pattern(77, 5 * SECTOR);
    for (const at of [0, 4096 * SECTOR * 3 + 512, 4096 * SECTOR * 7 - 1024]) {
      await node.write(at, bytes);
      expected.set(bytes, at);
    }
  }
  const copies: Files = new Map(Array.from(files, ([name, file]) => [name, file.copy()]));
  await using node = await open(copies);
  assertBytes(await contentOf(node), expected);
  const e = copies.get(E)!;
  const free = new DataView(e.slice(28, 4).buffer).getUint32(0, true);
  assertEquals(free * SECTOR, e.length);
});

Deno.test("vmdk, grains of three sectors: tables are made where there are none", async () => {
  const sample = SAMPLES[3]!;
  const files = filesOf(sample);
  const expected = sample.content.slice();
  {
    await using node = await open(files, { writable: true });
    const bytes = pattern(77, 5 * SECTOR);
    for (const at of [150 * ODD_GRAIN + 512, 199 * ODD_GRAIN, node.length - bytes.length]) {
      await node.write(at, bytes);
      expected.set(bytes, at);
    }
    await node.writeZeroes(ODD_GRAIN * 10, ODD_GRAIN * 3, { unmap: false });
  }
  await using node = await open(new Map(Array.from(files, ([name, file]) => [name, file.copy()])));
  assertBytes(await contentOf(node), expected);
});

Deno.test("vmdk, a stream of VMware's tools: grains can be added, and it is a stream again", async () => {
  const files = filesOf(SAMPLES[2]!);
  const expected = streamContent();
  {
    await using node = await open(files, { writable: true });
    const bytes = pattern(9, 65536);
    await node.write(7 * 65536, bytes);
    expected.set(bytes, 7 * 65536);
  }
  const copies: Files = new Map(Array.from(files, ([name, file]) => [name, file.copy()]));
  assertEquals(copies.get(NAME)!.slice(56, 8), new Uint8Array(8).fill(255), "directory at end");
  await using node = await open(copies, { writable: true });
  assertBytes(await contentOf(node), expected);
  const stored = node.write(0, new Uint8Array(65536));
  assertEquals((await assertRejects(() => stored, ImageError)).errno, "EIO");
  const part = node.write(65536, new Uint8Array(512));
  assertEquals((await assertRejects(() => part, ImageError)).errno, "EINVAL");
});

/** Changes 64-bit words of the snapshot's headers. */
async function refusal(
  changes: readonly (readonly [at: number, value: bigint])[],
): Promise<string> {
  const bytes = seSparse();
  const view = new DataView(bytes.buffer);
  for (const [at, value] of changes) view.setBigUint64(at, value, true);
  const files = filesOf({ ...SAMPLES[1]!, files: { ...SAMPLES[1]!.files, [E]: bytes } });
  return (await assertRejects(() => open(files), ImageError)).message;
}

Deno.test("vmdk, a space-efficient snapshot: every field that must have a value is looked at", async () => {
  const cases: readonly (readonly [number, bigint, string])[] = [
    [0, 1n, "Bad const header magic: 0x0000000000000001"],
    [8, 1n, "Unsupported version: 0x0000000000000001"],
    [24, 16n, "Unsupported grain size: 16"],
    [32, 32n, "Unsupported grain table size: 32"],
    [40, 3n, "Unsupported flags: 0x0000000000000003"],
    [
      64,
      1n,
      "Unsupported reserved bits: 0x0000000000000000 0x0000000000000000 0x0000000000000001 0x0000000000000000",
    ],
    [300, 1n, "Unsupported non-zero const header padding"],
    [512, 0n, "Bad volatile header magic: 0x0000000000000000"],
    [536, 1n, "Image is dirty, Replaying journal not supported"],
    [537, 1n, "Unsupported non-zero volatile header padding"],
    [136, 1n << 62n, "L1 size too big"],
    [16, 1n << 62n, "Disks of 2^53 bytes and more are not supported"],
    [128, 1n << 62n, "Could not read l1 table from extent './e'"],
  ];
  for (const [at, value, message] of cases) {
    assertEquals(await refusal([[at, value]]), message);
  }
});

Deno.test("vmdk, a space-efficient snapshot is not written to", async () => {
  const error = await assertRejects(
    () => open(filesOf(SAMPLES[1]!), { writable: true }),
    ImageError,
  );
  assertEquals(error.message, "No write support for seSparse images available");
  assertEquals(error.errno, "EACCES");
});

Deno.test("vmdk, a space-efficient snapshot: damaged entries are errors where they are met", async () => {
  const bytes = seSparse();
  const view = new DataView(bytes.buffer);
  view.setBigUint64(3 * SECTOR + 8, 5n << 60n, true);
  view.setBigUint64(2 * SECTOR + 8, 2n << 60n, true);
  await using node = await open(
    filesOf({ ...SAMPLES[1]!, files: { ...SAMPLES[1]!.files, [E]: bytes } }),
  );
  const into = new Uint8Array(4096);
  await node.read(0, into);
  assertBytes(into, pattern(5, 4096));
  for (const at of [4096, 2 ** 24]) {
    assertEquals((await assertRejects(() => node.read(at, into), ImageError)).errno, "EIO");
  }
  const lines: string[] = [];
  await assertRejects(() => node.checker!.check("none", (line) => void lines.push(line)));
  assertEquals(lines, ["ERROR: could not get cluster_offset for sector 8"]);
});

Deno.test("vmdk, a stream that lost its footer is refused", async () => {
  const whole = stream();
  for (const cut of [1, 3, 100]) {
    const bytes = whole.slice(0, whole.length - cut * SECTOR);
    const error = await assertRejects(
      () => open(new Map([[NAME, new MemoryNode({ filename: NAME, bytes })]])),
      ImageError,
    );
    assert(["Invalid footer"].includes(error.message), error.message);
  }
});
