/** A qcow2 image on a disk that gets full, and that has space again later. */
import { assert } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import type { Random } from "../_random.ts";
import { type CrashScenario, crashTest } from "./_crashes.ts";
import { HostDisk, isHostFailure } from "./_host_disk.ts";
import type { Guest } from "./_guest.ts";
import { compressAnywhere, discardAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";

type Habit = (guest: Guest, random: Random, requests: number) => Promise<void>;

/**
 * Requests until some have failed for want of space, then, with space again,
 * more of them, which have to work.
 */
function untilFull(habits: readonly Habit[], failures = 6): CrashScenario["act"] {
  return async (guest: Guest, random: Random, disk: HostDisk) => {
    for (let failed = 0, tries = 0; failed < failures; tries++) {
      assert(tries < 2000, "the disk does not get full");
      try {
        await random.pick(habits)(guest, random, 1);
      } catch (error) {
        if (!isHostFailure(error)) throw error;
        failed++;
      }
    }
    disk.space = Infinity;
    for (let n = 0; n < 12; n++) await random.pick(habits)(guest, random, 1);
    await guest.flush();
  };
}

const WRITES = [writeAnywhere];
const MIXED = [writeAnywhere, writeAnywhere, zeroAnywhere, discardAnywhere];
const PACKED = [compressAnywhere, compressAnywhere, writeAnywhere];

const IMAGES = [
  ["clusters of 4 KiB", { size: "1M", cluster_size: "4096" }],
  ["clusters of 64 KiB", { size: "2M" }],
  ["clusters of 512 bytes", { size: "256k", cluster_size: "512", refcount_bits: "64" }],
  ["extended L2", { size: "1M", cluster_size: "16k", extended_l2: "on" }],
  ["lazy refcounts", { size: "1M", cluster_size: "4096", lazy_refcounts: "on" }],
] as const;

for (const [what, options] of IMAGES) {
  // Few blocks: metadata too finds no room, at one place or another.
  for (const blocks of [0, 1, 3, 24]) {
    crashTest(`disk full after ${blocks} blocks, ${what}`, {
      options,
      disk: () => new HostDisk(blocks * 4096),
      act: untilFull(WRITES),
    });
  }

  crashTest(`disk full, zeros and discards, backing file, ${what}`, {
    options,
    backing: 400,
    mode: { unmap: true },
    disk: () => new HostDisk(30 * 4096),
    act: untilFull(MIXED),
  });

  crashTest(`disk full, compressed clusters, ${what}`, {
    options,
    disk: () => new HostDisk(9 * 4096),
    act: untilFull(PACKED, 3),
  });

  crashTest(`disk full until the image is closed, ${what}`, {
    options,
    disk: () => new HostDisk(7 * 4096),
    act: async (guest, random, disk) => {
      await untilFull(WRITES)(guest, random, disk);
      disk.space = 0;
      for (let n = 0; n < 8; n++) {
        await guest.write(random.below(guest.sectors), 1).catch((error) => {
          if (!isHostFailure(error)) throw error;
        });
      }
    },
  });
}

/** Requests of which some fail, with one in `often` of the requests to the files. */
function withFaults(habits: readonly Habit[], often: number): Omit<CrashScenario, "options"> {
  const disk = new HostDisk();
  return {
    disk: () => disk,
    act: async (guest, random) => {
      disk.fault = ({ kind }) => {
        if (kind !== "read" && random.oneIn(often)) throw ImageError.fromErrno("EIO");
      };
      for (let n = 0; n < 40; n++) {
        try {
          await random.pick(habits)(guest, random, 1);
        } catch (error) {
          if (!isHostFailure(error)) throw error;
        }
      }
      disk.fault = undefined;
      for (let n = 0; n < 6; n++) await random.pick(habits)(guest, random, 1);
      await guest.flush();
    },
  };
}

for (const [what, options] of IMAGES) {
  for (const often of [3, 10]) {
    crashTest(`one in ${often} writes and flushes fails, ${what}`, {
      options,
      ...withFaults(WRITES, often),
    });
    crashTest(`one in ${often} requests of all kinds fails, ${what}`, {
      options,
      backing: 400,
      mode: { unmap: true },
      ...withFaults([...MIXED, ...PACKED], often),
    });
  }
}

crashTest("disk full while the refcount table grows", {
  options: { size: "4M", cluster_size: "512", refcount_bits: "64" },
  prepare: async (guest) => {
    for (let at = 0; at < 3900; at += 130) await guest.write(at, 130);
  },
  disk: () => new HostDisk(14 * 4096),
  act: untilFull(WRITES),
});

for (const how of ["off", "metadata", "falloc"] as const) {
  crashTest(`disk full while the disk grows, preallocation ${how}`, {
    options: { size: "500k", cluster_size: "4096" },
    backing: 2500,
    mode: { resizing: true },
    prepare: (guest, random) => writeAnywhere(guest, random, 20),
    disk: () => new HostDisk(3 * 4096),
    act: async (guest, random, disk) => {
      try {
        await guest.resize(1500 * 512, how);
      } catch (error) {
        if (!isHostFailure(error)) throw error;
        disk.space = Infinity;
        await guest.resize(1500 * 512, how);
      }
      disk.space = Infinity;
      await writeAnywhere(guest, random, 8);
    },
  });
}

crashTest("a data file on a full disk", {
  options: { size: "1M", cluster_size: "4096" },
  dataFile: true,
  mode: { unmap: true },
  disk: () => new HostDisk(20 * 4096),
  act: untilFull(MIXED),
});
