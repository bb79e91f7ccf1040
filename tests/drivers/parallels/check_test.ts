/** Checks and repairs where the reference has no answer, or not the best. */
import { assertEquals } from "@std/assert";
import type { CheckResult, RepairMode } from "../../../lib/block/capabilities.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";
import {
  extensionCluster,
  imageWithExtension,
  IN_USE,
  open,
  parallelsImage,
  tableOf,
} from "./_images.ts";

const SECTOR = 512;
const CLUSTER = 8 * SECTOR;

interface Checked {
  readonly lines: readonly string[];
  readonly result: CheckResult;
}

/** Checks as `check` does, and answers with what was said, and counted, the first time. */
async function check(file: MemoryNode, repair: RepairMode): Promise<Checked> {
  const lines: string[] = [];
  await using image = await open(file, {
    using: context({ checking: true, writable: repair !== "none" }),
  });
  const result = await image.checker!.check(repair, (line) => void lines.push(line));
  return { lines, result };
}

async function linesOf(file: MemoryNode, repair: RepairMode = "none"): Promise<readonly string[]> {
  return (await check(file.copy(), repair)).lines;
}

Deno.test("clusters outside of the file are counted, and left where they are unless all is repaired", async () => {
  const file = new MemoryNode({
    bytes: parallelsImage({ table: [1, 9, 2, 2], fileLength: 4 * CLUSTER }),
  });
  const { lines, result } = await check(file.copy(), "none");
  assertEquals(lines, [
    "ERROR cluster 1 is outside image",
    "ERROR space leaked at the end of the image 4096",
    "ERROR duplicate offset in BAT entry 3",
  ]);
  assertEquals([result.corruptions, result.leaks, result.allocatedClusters], [2, 1, 3]);
  assertEquals([result.imageEndOffset, result.totalClusters], [3 * CLUSTER, 4]);

  const left = file.copy();
  await check(left, "leaks");
  assertEquals(tableOf(left.bytes()), [1, 9, 2, 2]);
  assertEquals(left.bytes().length, 3 * CLUSTER);

  const repaired = file.copy();
  await check(repaired, "all");
  assertEquals(tableOf(repaired.bytes()), [1, 0, 2, 3]);
  assertEquals(await linesOf(repaired), []);
});

Deno.test("a copy of a cluster that was used twice holds what it held", async () => {
  const bytes = parallelsImage({ table: [2, 2, 0, 2] });
  const file = new MemoryNode({ bytes });
  const { result } = await check(file, "all");
  assertEquals([result.corruptions, result.corruptionsFixed], [2, 2]);
  assertEquals(tableOf(file.bytes()), [2, 1, 0, 3]);
  await using image = await open(file.copy());
  const disk = new Uint8Array(image.length);
  await image.read(0, disk);
  assertEquals([0, 1, 2, 3].map((i) => disk[i * CLUSTER]), [2, 2, 0, 2]);
  assertEquals(await linesOf(file), []);
});

Deno.test("clusters of the older images that overlap are found", async () => {
  const file = new MemoryNode({ bytes: parallelsImage({ version: 1, table: [8, 20, 16, 28] }) });
  assertEquals(await linesOf(file), ["ERROR duplicate offset in BAT entry 2"]);
  await check(file, "all");
  assertEquals(await linesOf(file), []);
  assertEquals(tableOf(file.bytes()), [8, 20, 40, 28]);
});

Deno.test("clusters of the older images need not lie in step", async () => {
  const file = new MemoryNode({
    bytes: parallelsImage({ version: 1, table: [9, 19, 0, 0, 0], dataOffset: 8 }),
  });
  assertEquals(await linesOf(file), []);
  {
    await using image = await open(file, { writable: true });
    await image.write(2 * CLUSTER, new Uint8Array(3 * CLUSTER).fill(5));
  }
  assertEquals(await linesOf(file), []);
  const [first, second, ...others] = tableOf(file.bytes());
  assertEquals([first, second], [9, 19]);
  for (const entry of others) assertEquals(entry >= 27, true, `${entry}`);
});

Deno.test("when no cluster is left the file is not made longer", async () => {
  const file = new MemoryNode({ bytes: parallelsImage({ table: [5, 9, 0], fileLength: 2000 }) });
  const { result } = await check(file, "all");
  assertEquals(result.corruptions - result.corruptionsFixed, 0);
  assertEquals(file.bytes().length, CLUSTER);
  assertEquals(await linesOf(file), []);
});

Deno.test("what is repaired before a crash is safe before the file is cut", async () => {
  const file = new MemoryNode({
    bytes: parallelsImage({ table: [1, 2, 3], fileLength: 4 * CLUSTER - SECTOR, inUse: IN_USE }),
  });
  file.logging = true;
  await check(file, "all");
  const kinds = file.log.map(({ kind, offset, length }) =>
    kind === "flush" ? kind : `${kind} ${kind === "resize" ? length : offset}`
  );
  const cut = kinds.indexOf(`resize ${3 * CLUSTER}`);
  assertEquals(kinds.slice(cut - 2, cut), ["write 64", "flush"]);
});

Deno.test("where leaks are cut off the format extension is, too", async () => {
  const file = new MemoryNode({ bytes: imageWithExtension(extensionCluster(CLUSTER, [])) });
  assertEquals(await linesOf(file), ["ERROR space leaked at the end of the image 8192"]);
  await check(file, "leaks");
  assertEquals(await linesOf(file), []);
  assertEquals(file.bytes().length, 2 * CLUSTER);
});
