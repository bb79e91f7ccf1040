/** Crashes while the options of a qcow2 image change. */
import { assertArrayIncludes, assertEquals } from "@std/assert";
import { AMEND_OPTIONS } from "../../drivers/qcow2/amend_options.ts";
import { OptionSet } from "../../lib/block/options.ts";
import type { MemoryNode } from "../_memory_node.ts";
import type { Random } from "../_random.ts";
import { useReference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";
import { context, open } from "../drivers/qcow2/_image.ts";
import { crashEverywhere, type CrashScenario, crashTest, preparedImage } from "./_crashes.ts";
import { HostDisk, isHostFailure } from "./_host_disk.ts";
import type { Guest } from "./_guest.ts";
import { compressAnywhere, discardAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";

const TIGHT = { cluster_size: "512", refcount_bits: "64" };

/** Amends the image, `key=value` after `key=value`, each time with writes before and after. */
function amendEach(...changes: readonly string[]): CrashScenario["act"] {
  return async (guest, random) => {
    await writeAnywhere(guest, random, 3);
    for (const change of changes) {
      await amend(guest, change);
      await writeAnywhere(guest, random, 3);
    }
  };
}

async function amend({ node }: Guest, change: string): Promise<void> {
  const pairs = change.split(",").map((pair) => pair.split("=") as [string, string]);
  await node.amender!.amend(new OptionSet(AMEND_OPTIONS, pairs), { force: false });
}

/** Every kind of cluster, with freed ones between. */
async function liveALittle(guest: Guest, random: Random): Promise<void> {
  await compressAnywhere(guest, random, 20);
  await writeAnywhere(guest, random, 20);
  await zeroAnywhere(guest, random, 10, { unmap: false });
  await zeroAnywhere(guest, random, 10);
  await discardAnywhere(guest, random, 10);
}

/** After any crash the header says one of these versions and widths. */
function headers(...allowed: readonly string[]): NonNullable<CrashScenario["inspect"]> {
  return ([image]) => {
    const view = new DataView(image!.slice(0, 112).buffer);
    const version = view.getUint32(4);
    const bits = version < 3 ? 16 : 2 ** view.getUint32(96);
    assertArrayIncludes(allowed, [`v${version}, ${bits} bits`]);
    return Promise.resolve();
  };
}

for (
  const [from, to] of [[16, 1], [16, 64], [64, 16], [8, 32], [4, 2]] as const
) {
  for (const cluster_size of ["512", "4096"]) {
    crashTest(`refcounts of ${from} bits get ${to}, clusters of ${cluster_size}`, {
      options: { size: "300k", cluster_size, refcount_bits: `${from}` },
      // Refcounts of a bit or two do not count many compressed clusters.
      prepare: to < 8 ? (guest, random) => writeAnywhere(guest, random, 20) : liveALittle,
      act: amendEach(`refcount_bits=${to}`),
      inspect: headers(`v3, ${from} bits`, `v3, ${to} bits`),
    });
  }
}

crashTest("refcounts of a large table get narrow and wide", {
  options: { size: "2M", ...TIGHT },
  prepare: async (guest) => {
    for (let at = 0; at < 3000; at += 125) await guest.write(at, 125);
  },
  act: amendEach("refcount_bits=8", "refcount_bits=64", "refcount_bits=16"),
});

crashTest("refcounts of an image with lazy refcounts change", {
  options: { size: "300k", cluster_size: "4096", lazy_refcounts: "on" },
  prepare: liveALittle,
  act: amendEach("refcount_bits=64", "lazy_refcounts=off", "lazy_refcounts=on"),
});

const UNMAP = { unmap: true } as const;
for (
  const [what, options] of [
    ["clusters of 512 bytes", { cluster_size: "512" }],
    ["clusters of 4 KiB", { cluster_size: "4096" }],
    ["clusters of 64 KiB", {}],
  ] as const
) {
  crashTest(`version 3 becomes 2, ${what}`, {
    options: { size: "500k", ...options },
    mode: UNMAP,
    prepare: liveALittle,
    act: amendEach("compat=0.10"),
    inspect: headers("v3, 16 bits", "v2, 16 bits"),
  });
  crashTest(`version 3 becomes 2 and 3 again on a backing file, ${what}`, {
    options: { size: "500k", ...options },
    backing: 900,
    mode: UNMAP,
    prepare: liveALittle,
    act: amendEach("compat=0.10", "compat=1.1", "lazy_refcounts=on", "compat=0.10"),
  });
  crashTest(`version 2 becomes 3 and gets wide refcounts, ${what}`, {
    options: { size: "500k", compat: "0.10", ...options },
    prepare: (guest, random) => writeAnywhere(guest, random, 20),
    act: amendEach("compat=1.1,refcount_bits=64"),
    inspect: headers("v2, 16 bits", "v3, 16 bits", "v3, 64 bits"),
  });
}

/** An image with internal snapshots, as the reference makes them. */
function snapshotted(options: Readonly<Record<string, string>>): () => Promise<Uint8Array> {
  return async () => {
    const image = await preparedImage(options, async (guest, random) => {
      await writeAnywhere(guest, random, 20);
      await zeroAnywhere(guest, random, 20, { unmap: false });
    });
    return await withTempDir(async (cwd) => {
      await Deno.writeFile(`${cwd}/test.qcow2`, image);
      await useReference(["snapshot", "-c", "one", "test.qcow2"], { cwd });
      await useReference(["snapshot", "-c", "two", "test.qcow2"], { cwd });
      return await Deno.readFile(`${cwd}/test.qcow2`);
    });
  };
}

for (
  const [what, options] of [
    ["", { size: "300k", cluster_size: "4096" }],
    [", small clusters", { size: "200k", ...TIGHT }],
    [", version 2", { size: "300k", cluster_size: "4096", compat: "0.10" }],
  ] as const
) {
  crashTest(`an image with snapshots changes version and refcounts${what}`, {
    image: snapshotted(options),
    needsReference: true,
    mode: UNMAP,
    act: async (guest, random) => {
      await writeAnywhere(guest, random, 5, 12);
      // Now reserved for zeros here, and data in the snapshots.
      await zeroAnywhere(guest, random, 6, { unmap: false });
      await amend(guest, "compat=1.1,refcount_bits=32");
      await writeAnywhere(guest, random, 5, 12);
      await amend(guest, "refcount_bits=16,compat=0.10");
      await writeAnywhere(guest, random, 5, 12);
    },
  });
}

crashTest("the disk shrinks and grows by amend", {
  options: { size: "1M", cluster_size: "4096" },
  mode: { resizing: true },
  prepare: liveALittle,
  act: async (guest, random) => {
    const cut = 333 * 512;
    await writeAnywhere(guest, random, 4);
    await guest.resize(cut, "off");
    await amend(guest, "refcount_bits=8,lazy_refcounts=on");
    await writeAnywhere(guest, random, 4);
  },
});

for (const blocks of [0, 1, 2, 4]) {
  crashTest(`disk full while options change, after ${blocks} blocks`, {
    options: { size: "500k", cluster_size: "4096" },
    backing: 900,
    mode: UNMAP,
    prepare: liveALittle,
    disk: () => new HostDisk(blocks * 4096),
    act: async (guest, random, disk) => {
      for (const change of ["refcount_bits=64", "refcount_bits=16", "compat=0.10"]) {
        try {
          await amend(guest, change);
        } catch (error) {
          if (!isHostFailureIn(error)) throw error;
        }
      }
      disk.space = Infinity;
      await amend(guest, "refcount_bits=16,compat=0.10");
      await writeAnywhere(guest, random, 6);
    },
  });
}

/** What an operation prefixes keeps its class. */
function isHostFailureIn(error: unknown): boolean {
  return isHostFailure(error) ||
    error instanceof Error && /No space left on device$/.test(error.message);
}

/** The backing file name that a state of the image has. */
async function backingOf(file: MemoryNode): Promise<string> {
  await using node = await open(file.copy(), context());
  return `${node.backing!.name} ${node.backing!.format}`;
}

const NAMES = ["base.raw", "b", "x".repeat(300), `${"folder/".repeat(140)}base`, "other.raw"];
// The reference would want to open the other backing files.
Deno.test("crash: the backing file gets other names", () =>
  crashEverywhere({
    options: { size: "100k" },
    backing: 100,
    prepare: (guest, random) => writeAnywhere(guest, random, 5),
    act: async (guest, random) => {
      for (const name of NAMES) {
        await guest.node.backing!.change!(name, name.length % 2 === 0 ? "raw" : "qcow2");
        await writeAnywhere(guest, random, 1);
      }
    },
    inspect: async ([image]) => {
      const names = NAMES.map((name) => `${name} ${name.length % 2 === 0 ? "raw" : "qcow2"}`);
      assertArrayIncludes([...names, "base.raw raw"], [await backingOf(image!)]);
      assertEquals(image!.slice(0, 4), new Uint8Array([0x51, 0x46, 0x49, 0xfb]));
    },
  }));
