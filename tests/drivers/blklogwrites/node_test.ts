import { assertEquals } from "@std/assert";
import { BlklogwritesNode } from "../../../drivers/blklogwrites/driver.ts";
import { WriteLog } from "../../../drivers/blklogwrites/log.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { readU64LE } from "../../../lib/bytes/endian.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";

const LENGTH = 1 << 18;

Deno.test("random writes at once are logged in the order in which they change the disk", async () => {
  const seed = 17;
  const random = new Random(seed);
  const before = random.bytes(LENGTH);
  const file = new MemoryNode({ bytes: before });
  const logFile = new MemoryNode({ filename: "log" });
  const sectorSize = 1024;
  const log = WriteLog.begin(logFile, { sectorSize, interval: 16 });
  const mode = { ...READ_ONLY, writable: true, unmap: true };
  const node = new BlklogwritesNode(file, logFile, log, driverContext("x", mode, QUIET));
  const requests: Promise<void>[] = [];
  for (let i = 0; i < 200; i++) {
    const offset = random.below(LENGTH - 1);
    const length = 1 + random.below(Math.min(LENGTH - offset, 5000));
    requests.push(
      random.below(3) === 0
        ? node.writeZeroes(offset, length, { unmap: true })
        : node.write(offset, random.bytes(length)),
    );
  }
  await Promise.all(requests);
  await node.flush();
  const bytes = logFile.bytes();
  const replayed = before.slice();
  for (let at = sectorSize, n = readU64LE(bytes, 16); n > 0n; n--) {
    const [offset, length] = [0, 8].map((f) => Number(readU64LE(bytes, at + f)) * sectorSize);
    at += sectorSize;
    replayed.set(bytes.subarray(at, at + length!), offset);
    at += length!;
  }
  assertEquals(replayed, file.bytes(), `seed ${seed}`);
});

Deno.test("a node that was written ends its log with a flush, one that was not leaves it alone", async () => {
  for (const writes of [0, 1]) {
    const logFile = new MemoryNode({ filename: "log" });
    const log = WriteLog.begin(logFile, { sectorSize: 512, interval: 4096 });
    const mode = { ...READ_ONLY, writable: true };
    const file = new MemoryNode({ bytes: new Uint8Array(4096) });
    const node = new BlklogwritesNode(file, logFile, log, driverContext("x", mode, QUIET));
    if (writes > 0) await node.write(0, new Uint8Array(512));
    await node[Symbol.asyncDispose]();
    const bytes = logFile.bytes();
    assertEquals(bytes.length === 0 ? 0n : readU64LE(bytes, 16), BigInt(writes * 2));
  }
});

Deno.test("what is cut off a sector of the log at the end of a disk is not written behind it", async () => {
  const file = new MemoryNode({ bytes: new Uint8Array(1536).fill(1) });
  const logFile = new MemoryNode({ filename: "log" });
  const log = WriteLog.begin(logFile, { sectorSize: 1024, interval: 1 });
  const mode = { ...READ_ONLY, writable: true };
  const node = new BlklogwritesNode(file, logFile, log, driverContext("x", mode, QUIET));
  await node.write(1500, new Uint8Array(36).fill(2));
  assertEquals(file.length, 1536);
  assertEquals(file.slice(1499, 37), new Uint8Array([1, ...new Uint8Array(36).fill(2)]));
});
