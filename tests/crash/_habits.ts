/** What guests do in tests of crashes. */
import type { ZeroFlags } from "../../lib/block/node.ts";
import type { Random } from "../_random.ts";
import type { Guest } from "./_guest.ts";

/** One request in so many is followed by a flush. */
const FLUSH = 5;

/** Some range: by choice aligned to clusters at one end or both. */
function somewhere(
  guest: Guest,
  random: Random,
  most: number,
): [sector: number, count: number] {
  const cluster = (guest.node.limits.clusterSize || 4096) / 512;
  let sector = random.below(guest.sectors);
  if (random.oneIn(3)) sector -= sector % cluster;
  let count = random.between(1, Math.min(most, guest.sectors - sector));
  if (random.oneIn(3)) count = Math.ceil((sector + count) / cluster) * cluster - sector;
  return [sector, Math.min(count, guest.sectors - sector)];
}

/** Writes up to `most` sectors at a time. */
export async function writeAnywhere(
  guest: Guest,
  random: Random,
  requests: number,
  most = 40,
): Promise<void> {
  for (let n = 0; n < requests; n++) {
    await guest.write(...somewhere(guest, random, most));
    if (random.oneIn(FLUSH)) await guest.flush();
  }
}

/** Writes that overlap in time, and in clusters, but not in sectors. */
export async function writeTogether(guest: Guest, random: Random, rounds: number): Promise<void> {
  for (let n = 0; n < rounds; n++) {
    const requests: Promise<void>[] = [];
    let sector = random.below(Math.max(guest.sectors - 64, 1));
    for (let left = random.between(2, 6); left > 0 && sector < guest.sectors; left--) {
      const count = random.between(1, Math.min(12, guest.sectors - sector));
      requests.push(guest.write(sector, count));
      sector += count + random.below(4);
    }
    await Promise.all(requests);
    if (random.oneIn(FLUSH)) await guest.flush();
  }
}

/** Zeros up to 60 sectors at a time, and writes between. */
export async function zeroAnywhere(
  guest: Guest,
  random: Random,
  requests: number,
  flags: ZeroFlags = { unmap: true },
): Promise<void> {
  for (let n = 0; n < requests; n++) {
    if (random.oneIn(3)) await guest.write(...somewhere(guest, random, 40));
    else await guest.zero(...somewhere(guest, random, 60), flags);
    if (random.oneIn(FLUSH)) await guest.flush();
  }
}

/** Discards up to 60 sectors at a time, and writes between. */
export async function discardAnywhere(
  guest: Guest,
  random: Random,
  requests: number,
): Promise<void> {
  for (let n = 0; n < requests; n++) {
    if (random.oneIn(2)) await guest.write(...somewhere(guest, random, 40));
    else await guest.discard(...somewhere(guest, random, 60));
    if (random.oneIn(FLUSH)) await guest.flush();
  }
}

/** Writes clusters compressed that hold nothing yet. */
export async function compressAnywhere(
  guest: Guest,
  random: Random,
  requests: number,
): Promise<void> {
  const { clusterSize } = guest.node.limits;
  for (let n = 0; n < requests; n++) {
    const cluster = random.below(Math.floor(guest.node.length / clusterSize));
    const { state, length } = await guest.node.extent(cluster * clusterSize, clusterSize);
    if (state !== "unallocated" || length !== clusterSize) continue;
    await guest.writePacked(cluster * clusterSize / 512);
    if (random.oneIn(FLUSH)) await guest.flush();
  }
  await guest.node.packer!.finish();
}
