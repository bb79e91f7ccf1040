/** Damage that shows only when tables are used: the same words, the same outcome, the same bytes afterwards. */
import { assertEquals } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { errnoText } from "../../../lib/io/errno.ts";
import { reference, runReference, useReference, writeWithReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { assertSameFile, openFile, type Request, send } from "./_equal.ts";
import { patch } from "./_image.ts";

const K = 1024;

/** A request, or a read of a range. */
type Step = Request | { readonly kind: "read"; readonly offset: number; readonly length: number };

interface Case {
  readonly name: string;
  /** `qemu-img create -o`; clusters of 4 KiB unless they say otherwise. */
  readonly options?: string;
  /** `qemu-img` command lines after 64 KiB were written at 0. */
  readonly then?: readonly (readonly string[])[];
  /** Fields to overwrite: offset, width, value. */
  readonly damage: readonly (readonly [number, 1 | 2 | 4 | 8, bigint | number])[];
  /** What is then done, in one session. */
  readonly steps: readonly Step[];
  readonly readOnly?: boolean;
}

const read = (offset: number, length: number): Step => ({ kind: "read", offset, length });
const write = (offset: number, length: number): Step => ({
  kind: "write",
  offset,
  length,
  pattern: 3,
});
const compressed = (offset: number, length: number): Step => ({
  kind: "compressed",
  offset,
  length,
  pattern: 3,
});
const discard = (offset: number, length: number): Step => ({ kind: "discard", offset, length });
const zero = (offset: number, length: number): Step => ({ kind: "zero", offset, length });

const L1 = 0x3000;
const L2 = 0x4000;
const REFCOUNTS = 0x2000;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const SNAPSHOT = ["snapshot", "-c", "one", "a.qcow2"];

const CASES: readonly Case[] = [
  {
    name: "L2 table that is not aligned, read",
    damage: [[L1, 8, COPIED | 0x4200n]],
    steps: [read(0, 4096), read(0, 512), write(0, 512)],
  },
  {
    name: "L2 table that is not aligned, written",
    damage: [[L1, 8, COPIED | 0x4200n]],
    steps: [write(0, 512), read(0, 512)],
  },
  {
    name: "L2 table that is not aligned, in an image opened for reading",
    damage: [[L1, 8, COPIED | 0x4200n]],
    steps: [read(0, 4096), read(512 * K, 512)],
    readOnly: true,
  },
  {
    name: "data that is not aligned, read",
    damage: [[L2 + 8, 8, COPIED | 0x6200n]],
    steps: [read(4096, 512), read(0, 4096)],
  },
  {
    name: "data that is not aligned, written",
    damage: [[L2 + 8, 8, COPIED | 0x6200n]],
    steps: [write(4096 + 512, 512)],
  },
  {
    name: "reserved zeros that are not aligned, written",
    damage: [[L2 + 8, 8, COPIED | 0x6201n]],
    steps: [write(4096 + 512, 512)],
  },
  {
    name: "data that is not aligned, discarded",
    damage: [[L2 + 8, 8, COPIED | 0x6200n], [L2 + 24, 8, COPIED | 0x8200n]],
    steps: [discard(4096, 4096), discard(12288, 4096), read(0, 64 * K)],
  },
  {
    name: "zero flag in version 2",
    options: "compat=0.10",
    damage: [[L2, 8, 1]],
    steps: [read(0, 4096)],
  },
  {
    name: "reserved zeros in version 2, in an image opened for reading",
    options: "compat=0.10",
    damage: [[L2 + 16, 8, COPIED | 0x7001n]],
    steps: [read(8192, 4096), read(0, 512)],
    readOnly: true,
  },
  {
    name: "compressed cluster beside a data file",
    options: "data_file=data.raw",
    damage: [[L2 + 8, 8, COMPRESSED | 0x5000n]],
    steps: [read(4096, 4096)],
  },
  {
    name: "data elsewhere in a data file",
    options: "data_file=data.raw",
    damage: [[L2 + 8, 8, COPIED | 0x5000n]],
    steps: [read(4096, 4096)],
  },
  {
    name: "subcluster both stored and zero, read",
    options: "cluster_size=16k,extended_l2=on",
    damage: [[0x10000 + 8, 8, 0x00000002_ffffffffn]],
    steps: [read(0, 4096)],
  },
  {
    name: "subcluster both stored and zero, written",
    options: "cluster_size=16k,extended_l2=on",
    damage: [[0x10000 + 8, 8, 0x00000002_ffffffffn]],
    steps: [write(512, 20)],
  },
  {
    name: "stored subcluster without a cluster, written",
    options: "cluster_size=16k,extended_l2=on",
    damage: [[0x10000 + 16 * 5 + 8, 8, 1n]],
    steps: [write(80 * K, 20)],
  },
  ...([
    ["the header", 0x0n],
    ["the refcount table", 0x1000n],
    ["a refcount block", 0x2000n],
    ["the L1 table", 0x3000n],
    ["an L2 table", 0x4000n],
  ] as const).map(([name, offset]): Case => ({
    name: `data in ${name}`,
    damage: [[L2 + 8, 8, COPIED | offset]],
    // Offset 0 is no offset: the entry says that there is nothing.
    steps: [write(4096, 4096), write(0, 512)],
  })),
  {
    name: "data in the snapshot table",
    then: [SNAPSHOT],
    damage: [[L2 + 8, 8, COPIED | 0x16000n], [L1, 8, COPIED | BigInt(L2)]],
    steps: [write(4096, 4096)],
  },
  {
    name: "data in the L1 table of a snapshot",
    then: [SNAPSHOT],
    damage: [[L2 + 8, 8, COPIED | 0x15000n], [L1, 8, COPIED | BigInt(L2)]],
    steps: [write(4096, 4096)],
  },
  {
    name: "no cluster has a refcount, allocated",
    damage: Array.from({ length: 21 }, (_, i) => [REFCOUNTS + i * 2, 2, 0] as const),
    steps: [write(512 * K, 4096), read(0, 4096)],
  },
  {
    name: "no cluster has a refcount, L2 table allocated",
    damage: [
      ...Array.from({ length: 21 }, (_, i) => [REFCOUNTS + i * 2, 2, 0] as const),
      [L1, 8, 0],
    ],
    steps: [write(512 * K, 4096)],
  },
  {
    name: "no cluster has a refcount, compressed",
    damage: Array.from({ length: 21 }, (_, i) => [REFCOUNTS + i * 2, 2, 0] as const),
    steps: [compressed(512 * K, 4096)],
  },
  {
    name: "the L1 table has no refcount",
    damage: [[REFCOUNTS + 6, 2, 0]],
    steps: [write(512 * K, 4096)],
  },
  {
    name: "refcount block that is not aligned",
    damage: [[0x1000, 8, 0x2200]],
    steps: [write(512 * K, 4096)],
  },
  {
    name: "data without a refcount, discarded",
    damage: [[REFCOUNTS + 5 * 2, 2, 0]],
    steps: [discard(0, 8192), read(0, 16 * K)],
  },
  {
    name: "compressed data that is damaged",
    damage: [[L2 + 8, 8, COMPRESSED | 0x6000n]],
    steps: [read(4096, 4096), read(8192, 512), write(4096 + 512, 512), zero(4096, 4096)],
  },
  {
    name: "tables and data beyond the end of the file",
    damage: [[L2 + 8, 8, COPIED | 0x7000_0000n], [L2 + 16, 8, COMPRESSED | 0x7000_0000n]],
    steps: [read(4096, 4096), read(8192, 4096), read(0, 512)],
  },
  {
    name: "an L2 table beyond the end of the file",
    damage: [[L1, 8, COPIED | 0x7000_0000n]],
    steps: [read(4096, 4096)],
  },
];

/** What `qemu-io` said: reports, and the reason of each failure. */
function outcomeOf(text: string): string[] {
  return text.split("\n").flatMap((line) =>
    line.startsWith("qcow2") ? [line] : /(?:failed|offset): (.*)/.exec(line)?.[1] ?? []
  );
}

for (const { name, options = "", then = [], damage, steps, readOnly = false } of CASES) {
  Deno.test({
    name: `damage is told as the reference tells it: ${name}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const cwd = dir.path;
      const all = [options.includes("cluster_size") ? "" : "cluster_size=4k", options];
      const list = all.filter((part) => part !== "").join(",");
      await useReference(["create", "-q", "-f", "qcow2", "-o", list, "a.qcow2", "1M"], { cwd });
      await writeWithReference("a.qcow2", ["write -P 1 0 64k"], { cwd, format: "qcow2" });
      for (const args of then) await useReference(args, { cwd });
      const bytes = patch(await Deno.readFile(dir.file("a.qcow2")), ...damage);
      await Deno.writeFile(dir.file("a.qcow2"), bytes);
      await Deno.writeFile(dir.file("b.qcow2"), bytes);

      const commands = steps.flatMap((step) => {
        const range = `${step.offset} ${step.length}`;
        switch (step.kind) {
          case "write":
            return ["-c", `write -q -P ${step.pattern} ${range}`];
          case "compressed":
            return ["-c", `write -q -c -P ${step.pattern} ${range}`];
          case "zero":
            return ["-c", `write -q -z ${range}`];
          default:
            return ["-c", `${step.kind} -q ${range}`];
        }
      });
      const { stdout, stderr } = await runReference(
        [...(readOnly ? ["-r"] : []), "-d", "unmap", "-f", "qcow2", ...commands, "a.qcow2"],
        { cwd, tool: "qemu-io" },
      );
      const expected = outcomeOf(stderr + stdout);

      const reports: string[] = [];
      const failures: string[] = [];
      {
        await using node = await openFile(
          dir.file("b.qcow2"),
          { writable: !readOnly, unmap: true },
          reports,
        );
        for (const step of steps) {
          try {
            if (step.kind === "read") await node.read(step.offset, new Uint8Array(step.length));
            else await send(node, step);
          } catch (error) {
            const { errno } = ImageError.from(error);
            failures.push(errno === undefined ? String(error) : errnoText(errno));
          }
        }
      }
      const said = (lines: readonly string[]) => lines.filter((line) => line.startsWith("qcow2"));
      assertEquals(reports, said(expected), stderr + stdout);
      assertEquals(
        failures,
        expected.filter((line) => !line.startsWith("qcow2")),
        stderr + stdout,
      );
      await assertSameFile(dir.file("a.qcow2"), dir.file("b.qcow2"));
    },
  });
}
