/** Crashes while the tables of a qcow2 image grow, shrink or are shared. */
import { useReference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";
import { crashTest, preparedImage } from "./_crashes.ts";
import type { Guest } from "./_guest.ts";
import { compressAnywhere, discardAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";

/** A refcount table of one cluster covers 2 MiB with these. */
const TIGHT = { cluster_size: "512", refcount_bits: "64" };

/** Fills the disk up to a sector. */
async function fill(guest: Guest, sectors: number): Promise<void> {
  for (let at = 0; at < sectors; at += 128) await guest.write(at, Math.min(128, sectors - at));
}

crashTest("the refcount table grows", {
  options: { size: "4M", ...TIGHT },
  // With tables and refcount blocks that is as much as fits.
  prepare: (guest) => fill(guest, 3900),
  act: (guest, random) => writeAnywhere(guest, random, 16),
});

crashTest("the refcount table grows under compressed clusters", {
  options: { size: "4M", ...TIGHT },
  prepare: (guest) => fill(guest, 3950),
  act: (guest, random) => compressAnywhere(guest, random, 500),
});

for (const how of ["off", "metadata", "falloc", "full"] as const) {
  for (
    const [what, options] of [
      ["", { cluster_size: "4096" }],
      [", extended L2", { cluster_size: "16k", extended_l2: "on" }],
      [", tight tables", TIGHT],
    ] as const
  ) {
    for (const backing of [undefined, 2500]) {
      crashTest(`the disk grows, preallocation ${how}${what}${backing ? ", backing file" : ""}`, {
        options: { size: "500k", ...options },
        ...(backing === undefined ? {} : { backing }),
        // Leaves free clusters behind that are not empty.
        prepare: async (guest, random) => {
          await compressAnywhere(guest, random, 60);
          await writeAnywhere(guest, random, 20);
          await discardAnywhere(guest, random, 10);
        },
        mode: { resizing: true, unmap: backing === undefined },
        act: async (guest, random) => {
          await writeAnywhere(guest, random, 4);
          await guest.resize(1500 * 512, how);
          await writeAnywhere(guest, random, 8);
        },
      });
    }
  }
}

for (
  const [what, more] of [
    ["", { cluster_size: "4096" }],
    [", tight tables", TIGHT],
    [", data file", { cluster_size: "4096" }],
  ] as const
) {
  crashTest(`the disk shrinks${what}`, {
    options: { size: "1M", ...more },
    dataFile: what.includes("data"),
    mode: { resizing: true },
    prepare: (guest) => fill(guest, 2048),
    act: async (guest, random) => {
      await writeAnywhere(guest, random, 4);
      await guest.resize(333 * 512, "off");
      await writeAnywhere(guest, random, 8);
    },
  });
}

/** An image with internal snapshots, as the reference makes them. */
function snapshotted(options: Readonly<Record<string, string>>): () => Promise<Uint8Array> {
  return async () => {
    const image = await preparedImage(options, async (guest, random) => {
      await compressAnywhere(guest, random, 20);
      await writeAnywhere(guest, random, 20);
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
    ["", { size: "512k", cluster_size: "4096" }],
    [", small clusters", { size: "200k", ...TIGHT }],
    [", extended L2", { size: "512k", cluster_size: "16k", extended_l2: "on" }],
    [", version 2", { size: "512k", cluster_size: "4096", compat: "0.10" }],
  ] as const
) {
  crashTest(`clusters shared with snapshots${what}`, {
    image: snapshotted(options),
    needsReference: true,
    mode: { unmap: true },
    act: async (guest, random) => {
      await writeAnywhere(guest, random, 12, 12);
      await zeroAnywhere(guest, random, 6);
      await discardAnywhere(guest, random, 6);
      await writeAnywhere(guest, random, 12, 12);
    },
  });
}
