/**
 * Random requests against a plain array. A failure prints its seed;
 * `QIMG_SEED` runs that one alone.
 */
import { assertEquals } from "@std/assert";
import { OptionSet } from "../../../lib/block/options.ts";
import { raw } from "../../../drivers/raw.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import { reference, runReference, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { assertClean, openFile } from "./_equal.ts";
import { context, create, open } from "./_image.ts";
import { RandomSession } from "./_random_session.ts";

const K = 1024;
const M = 1024 * K;

interface Shape {
  readonly name: string;
  readonly options: Readonly<Record<string, string>>;
  /** Virtual size, bytes. */
  readonly size: number;
  /** Bytes of a raw backing file, 0 for none. */
  readonly backing?: number;
  /** Requests of a session; default 120. */
  readonly requests?: number;
}

const SHAPES: readonly Shape[] = [
  { name: "512", options: { cluster_size: "512" }, size: 300 * K },
  { name: "4k", options: { cluster_size: "4k" }, size: 2 * M },
  { name: "64k", options: {}, size: 4 * M },
  { name: "2M", options: { cluster_size: "2M" }, size: 12 * M, requests: 40 },
  { name: "1-bit refcounts", options: { cluster_size: "4k", refcount_bits: "1" }, size: 2 * M },
  {
    name: "64-bit refcounts",
    options: { cluster_size: "512", refcount_bits: "64" },
    size: 400 * K,
  },
  { name: "version 2", options: { cluster_size: "4k", compat: "0.10" }, size: 2 * M },
  { name: "zstd", options: { cluster_size: "4k", compression_type: "zstd" }, size: 2 * M },
  { name: "subclusters", options: { cluster_size: "16k", extended_l2: "on" }, size: 2 * M },
  { name: "lazy refcounts", options: { cluster_size: "4k", lazy_refcounts: "on" }, size: 2 * M },
  {
    name: "preallocated",
    options: { cluster_size: "4k", preallocation: "metadata" },
    size: 2 * M,
  },
  { name: "backing file", options: { cluster_size: "4k" }, size: 2 * M, backing: 1 * M + 512 },
  { name: "longer backing file", options: { cluster_size: "4k" }, size: 1 * M, backing: 2 * M },
  {
    name: "version 2 over a backing file",
    options: { cluster_size: "4k", compat: "0.10" },
    size: 2 * M,
    backing: 1 * M,
  },
  {
    name: "subclusters over a backing file",
    options: { cluster_size: "16k", extended_l2: "on" },
    size: 2 * M,
    backing: 1 * M + 512,
  },
];

function seeds(count: number): number[] {
  const only = Deno.env.get("QIMG_SEED");
  return only === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(only)];
}

/** Content of a backing file: zeros, holes and others. */
function backingBytes(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 32 * K) {
    if (random.oneIn(2)) bytes.fill(random.between(1, 255), at, at + random.between(1, 32 * K));
  }
  return bytes;
}

function diskOver(backing: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  const disk = new Uint8Array(size);
  disk.set(backing.subarray(0, size));
  return disk;
}

for (const { name, options, size, backing = 0, requests = 120 } of SHAPES) {
  Deno.test(`random requests, in memory: ${name}`, async () => {
    for (const seed of seeds(6)) {
      const random = new Random(seed);
      const below = backingBytes(random, backing);
      const image = {
        file: await create({
          ...options,
          size: String(size),
          ...(backing > 0 ? { backing_file: "base", backing_fmt: "raw" } : {}),
        }),
      };
      const using = context({ writable: true, unmap: true });
      const session = new RandomSession(random, diskOver(below, size), {
        version: options["compat"] === undefined ? 3 : 2,
        open: async () => {
          // A copy, because closing the node closes its file.
          const file = image.file = image.file.copy();
          const node = await open(file, using);
          if (backing > 0) {
            node.backing!.attach(
              await raw.open(new MemoryNode({ bytes: below }), new OptionSet([]), context()),
            );
          }
          return node;
        },
      });
      try {
        await session.run(requests);
        assertEquals(using.reports, []);
        const node = await open(image.file.copy(), context({ checking: true }));
        const lines: string[] = [];
        const { corruptions, leaks, checkErrors } = await node.checker!.check(
          "none",
          (line) => void lines.push(line),
        );
        assertEquals({ corruptions, leaks, checkErrors, lines }, {
          corruptions: 0,
          leaks: 0,
          checkErrors: 0,
          lines: [],
        });
      } catch (error) {
        throw new Error(`with QIMG_SEED=${seed}, after\n${session.log.join("\n")}`, {
          cause: error,
        });
      }
    }
  });

  Deno.test({
    name: `random requests, judged by the reference: ${name}`,
    ignore: reference.ignore,
    async fn() {
      for (const seed of seeds(2)) {
        await using dir = await tempDir();
        const cwd = dir.path;
        const random = new Random(seed + 1000);
        const below = backingBytes(random, backing);
        await Deno.writeFile(dir.file("base"), below);
        const list = Object.entries(options).map(([key, value]) => `${key}=${value}`);
        await useReference([
          ...["create", "-q", "-f", "qcow2"],
          ...(list.length > 0 ? ["-o", list.join(",")] : []),
          ...(backing > 0 ? ["-b", "base", "-F", "raw"] : []),
          ...["a.qcow2", String(size)],
        ], { cwd });
        const reports: string[] = [];
        const version = options["compat"] === undefined ? 3 : 2;
        const session = new RandomSession(random, diskOver(below, size), {
          version,
          open: () => openFile(dir.file("a.qcow2"), { writable: true, unmap: true }, reports),
        });
        const snapshots: Uint8Array<ArrayBuffer>[] = [];
        try {
          for (let round = 0; round < 3; round++) {
            await session.run(Math.ceil(requests / 3));
            assertEquals(reports, []);
            await assertClean(dir.file("a.qcow2"));
            await assertContent(cwd, "a.qcow2", session.model);
            // Old images with snapshots cannot be resized, 1-bit refcounts not shared.
            if (version === 2 || options["refcount_bits"] === "1" || round === 2) continue;
            await useReference(["snapshot", "-c", `s${round}`, "a.qcow2"], { cwd });
            snapshots.push(session.model.slice());
          }
          for (const [round, content] of snapshots.entries()) {
            await useReference(["snapshot", "-a", `s${round}`, "a.qcow2"], { cwd });
            await assertContent(cwd, "a.qcow2", content);
          }
          await assertClean(dir.file("a.qcow2"));
        } catch (error) {
          throw new Error(`with QIMG_SEED=${seed}, after\n${session.log.join("\n")}`, {
            cause: error,
          });
        }
      }
    },
  });
}

async function assertContent(cwd: string, name: string, content: Uint8Array): Promise<void> {
  await Deno.writeFile(`${cwd}/model.raw`, content);
  const args = ["compare", "-f", "raw", "-F", "qcow2", "model.raw", name];
  const { code, stdout, stderr } = await runReference(args, { cwd });
  assertEquals({ code, stdout, stderr }, {
    code: 0,
    stdout: "Images are identical.\n",
    stderr: "",
  });
}
