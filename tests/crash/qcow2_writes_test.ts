/** Crashes while a guest writes to a qcow2 image. */
import { assertRejects } from "@std/assert";
import { CACHE_MODES } from "../../lib/block/mode.ts";
import type { Random } from "../_random.ts";
import { crashEverywhere, crashTest } from "./_crashes.ts";
import type { Guest } from "./_guest.ts";
import {
  compressAnywhere,
  discardAnywhere,
  writeAnywhere,
  writeTogether,
  zeroAnywhere,
} from "./_habits.ts";

const EXTENDED = { extended_l2: "on", cluster_size: "16k" };

for (const [clusterSize, size] of [[512, "256k"], [4096, "1M"], [65536, "2M"]] as const) {
  for (const refcountBits of [1, 16, 64]) {
    crashTest(`writes, clusters of ${clusterSize} bytes, refcounts of ${refcountBits} bits`, {
      options: { size, cluster_size: `${clusterSize}`, refcount_bits: `${refcountBits}` },
      act: (guest, random) => writeAnywhere(guest, random, 30),
    });
  }
}

Deno.test("crash: without flushes of the files corruption is found", async () => {
  const noFlush = { cache: CACHE_MODES["unsafe"]! };
  await assertRejects(() =>
    crashEverywhere({
      options: { size: "256k", cluster_size: "512" },
      mode: noFlush,
      act: (guest, random) => writeAnywhere(guest, random, 30),
    })
  );
});

crashTest("writes, version 2", {
  options: { size: "512k", cluster_size: "4096", compat: "0.10" },
  act: (guest, random) => writeAnywhere(guest, random, 30),
});

crashTest("writes at the same time", {
  options: { size: "512k", cluster_size: "4096" },
  act: (guest, random) => writeTogether(guest, random, 12),
});

crashTest("writes through to the host", {
  options: { size: "512k", cluster_size: "4096" },
  mode: { cache: CACHE_MODES["writethrough"]! },
  act: (guest, random) => writeAnywhere(guest, random, 20),
});

crashTest("space given out, filled and published", {
  options: { size: "512k", cluster_size: "4096" },
  act: allocateAnywhere,
});

for (const [what, more] of [["", {}], [", extended L2", EXTENDED]] as const) {
  crashTest(`space given out to several at the same time${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    backing: 1000,
    prepare: (guest, random) => zeroAnywhere(guest, random, 10),
    act: allocateTogether,
  });

  crashTest(`copy-on-write of a backing file${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    backing: 700,
    act: (guest, random) => writeAnywhere(guest, random, 30, 12),
  });

  crashTest(`copy-on-write of a backing file by requests at the same time${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    backing: 1024,
    act: (guest, random) => writeTogether(guest, random, 10),
  });

  crashTest(`zeros${what}`, {
    options: { size: "1M", cluster_size: "4096", ...more },
    backing: 1500,
    prepare: (guest, random) => writeAnywhere(guest, random, 20),
    act: (guest, random) => zeroAnywhere(guest, random, 40, { unmap: false }),
  });

  crashTest(`unmapped zeros${what}`, {
    options: { size: "1M", cluster_size: "4096", ...more },
    backing: 1500,
    mode: { unmap: true },
    prepare: (guest, random) => writeAnywhere(guest, random, 20),
    act: (guest, random) => zeroAnywhere(guest, random, 40, { unmap: true }),
  });

  crashTest(`discards${what}`, {
    options: { size: "1M", cluster_size: "4096", ...more },
    mode: { unmap: true },
    prepare: (guest, random) => writeAnywhere(guest, random, 20),
    act: (guest, random) => discardAnywhere(guest, random, 40),
  });

  for (const compression of ["zlib", "zstd"]) {
    crashTest(`compressed writes${what}, ${compression}`, {
      options: { size: "512k", cluster_size: "4096", compression_type: compression, ...more },
      act: (guest, random) => compressAnywhere(guest, random, 40),
    });
  }

  crashTest(`overwriting compressed clusters${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    prepare: (guest, random) => compressAnywhere(guest, random, 100),
    act: (guest, random) => writeAnywhere(guest, random, 40, 12),
  });

  crashTest(`zeros and discards of compressed clusters${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    mode: { unmap: true },
    prepare: (guest, random) => compressAnywhere(guest, random, 100),
    act: async (guest, random) => {
      await zeroAnywhere(guest, random, 10, { unmap: true });
      await discardAnywhere(guest, random, 10);
      await writeAnywhere(guest, random, 10, 12);
    },
  });

  crashTest(`everything at once${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    backing: 900,
    mode: { unmap: true },
    prepare: (guest, random) => compressAnywhere(guest, random, 30),
    act: async (guest, random) => {
      for (let n = 0; n < 12; n++) {
        const act = random.pick([writeAnywhere, zeroAnywhere, discardAnywhere, writeTogether]);
        await act(guest, random, 3);
      }
    },
  });

  crashTest(`a data file${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    dataFile: true,
    mode: { unmap: true },
    act: writeZeroDiscard,
  });

  crashTest(`a data file over a backing file${what}`, {
    options: { size: "512k", cluster_size: "4096", ...more },
    dataFile: true,
    backing: 1024,
    mode: { unmap: true },
    act: writeZeroDiscard,
  });
}

crashTest("a raw data file", {
  options: { size: "512k", cluster_size: "4096", data_file_raw: "on" },
  dataFile: true,
  mode: { unmap: true },
  act: writeZeroDiscard,
});

crashTest("lazy refcounts", {
  options: { size: "512k", cluster_size: "4096", lazy_refcounts: "on" },
  mode: { unmap: true },
  act: writeZeroDiscard,
});

crashTest("writes to preallocated clusters", {
  options: { size: "512k", cluster_size: "4096", preallocation: "metadata" },
  mode: { unmap: true },
  act: writeZeroDiscard,
});

async function writeZeroDiscard(guest: Guest, random: Random): Promise<void> {
  for (let n = 0; n < 12; n++) {
    await random.pick([writeAnywhere, writeAnywhere, zeroAnywhere, discardAnywhere])(
      guest,
      random,
      4,
    );
  }
}

async function allocateAnywhere(guest: Guest, random: Random): Promise<void> {
  for (let n = 0; n < 30; n++) {
    const sector = random.below(guest.sectors);
    const count = random.between(1, Math.min(40, guest.sectors - sector));
    await guest.allocate(sector, count, random.oneIn(4) ? "abandon" : "publish");
    if (random.oneIn(5)) await guest.flush();
  }
}

/** Ranges that meet in clusters are given out, filled, and published or abandoned side by side. */
async function allocateTogether(guest: Guest, random: Random): Promise<void> {
  for (let n = 0; n < 14; n++) {
    const requests: Promise<void>[] = [];
    let sector = random.below(guest.sectors - 100);
    for (let left = random.between(2, 5); left > 0; left--) {
      const count = random.between(1, 16);
      requests.push(guest.allocate(sector, count, random.oneIn(4) ? "abandon" : "publish"));
      sector += count + random.below(4);
    }
    await Promise.all(requests);
    if (random.oneIn(3)) await guest.flush();
  }
}
