import { assert, assertEquals, assertRejects } from "@std/assert";
import { hostDevice } from "../../../drivers/file/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES, READ_ONLY } from "../../../lib/block/mode.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { loadNative } from "../../../lib/io/native.ts";
import { mayOpenDevices } from "../../_devices.ts";
import { tempDir } from "../../_temp.ts";
import { testFileNode } from "./_behaviour.ts";
import { openFile, readRange, WRITABLE } from "./_node.ts";

// Outside the tests, each of which would count it as left open.
const hasNative = loadNative();

testFileNode("native");

/** A file of 64 KiB data, 64 KiB hole, 64 KiB data, 64 KiB hole. */
function makeSparse(path: string): void {
  using file = Deno.openSync(path, { write: true, create: true });
  for (const start of [0, 128 << 10]) {
    file.seekSync(start, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(64 << 10).fill(1));
  }
  file.truncateSync(256 << 10);
}

Deno.test({
  name: "extents are the runs of data and holes",
  ignore: !hasNative,
  fn: async () => {
    await using dir = await tempDir();
    makeSparse(dir.file("a"));
    await using node = await openFile(dir.file("a"), READ_ONLY);
    const states: [number, string][] = [];
    for (let at = 0; at < node.length;) {
      const extent = await node.extent(at, node.length - at);
      assertEquals(extent.offset, at);
      states.push([at >> 10, extent.state]);
      at += extent.length;
    }
    assertEquals(states, [[0, "data"], [64, "zero"], [128, "data"], [192, "zero"]]);
    assertEquals((await node.extent(70_000, 1000)).state, "zero");
  },
});

Deno.test({
  name: "unmapping zero writes and discards make holes; without unmap they do not",
  ignore: !hasNative,
  fn: async () => {
    await using dir = await tempDir();
    for (const unmap of [true, false]) {
      Deno.writeFileSync(dir.file("a"), new Uint8Array(1 << 20).fill(1));
      await using node = await openFile(dir.file("a"), { ...WRITABLE, unmap });
      const before = (await node.allocatedSize())!;
      await node.writeZeroes(0, 512 << 10, { unmap: true });
      await node.discard(512 << 10, 256 << 10);
      const freed = before - (await node.allocatedSize())!;
      assertEquals(freed, unmap ? 768 << 10 : 0);
      const [first, second] = await Promise.all([
        readRange(node, 0, 512 << 10),
        readRange(node, 512 << 10, 256 << 10),
      ]);
      assertEquals(first, new Uint8Array(512 << 10));
      assertEquals(second, new Uint8Array(256 << 10).fill(unmap ? 0 : 1));
    }
  },
});

Deno.test({
  name: "direct access reads and writes at any offset",
  // Some file systems have none.
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    await using dir = await tempDir();
    Deno.writeFileSync(dir.file("a"), new Uint8Array(10_000).fill(1));
    await using node = await openFile(dir.file("a"), {
      ...WRITABLE,
      cache: CACHE_MODES["directsync"]!,
    });
    assert(node.limits.requestAlignment >= 512);
    assertEquals(node.local, { path: dir.file("a"), direct: true, sync: true });
    await node.write(4095, new Uint8Array([7, 8, 9]));
    await node.writeZeroes(100, 50, { unmap: false });
    const expected = new Uint8Array(10_240);
    expected.fill(1, 0, 10_000).fill(0, 100, 150).set([7, 8, 9], 4095);
    assertEquals(await readRange(node, 0, 10_240), expected);
    assertEquals(node.exactLength, 10_000);
    // Whole units are read, so the last one counts as data whole.
    assertEquals((await node.extent(8192, 2048)).length, 2048);
  },
});

Deno.test({
  name: "a FIFO is refused without waiting for its other end",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await using dir = await tempDir();
    const made = await new Deno.Command("mkfifo", { args: [dir.file("f")] }).output();
    assert(made.success);
    const error = await assertRejects(() => openFile(dir.file("f")), ImageError);
    assertEquals(error.message, `'file' driver requires '${dir.file("f")}' to be a regular file`);
  },
});

Deno.test({
  name: "the null device is an empty device that cannot grow",
  ignore: !mayOpenDevices,
  fn: async () => {
    const context = driverContext("/dev/null", WRITABLE, QUIET);
    await using node = await hostDevice.open("/dev/null", context);
    assertEquals([node.driver, node.length, node.fixedLength], ["host_device", 0, true]);
    await node.resize(0, "off");
    const error = await assertRejects(() => node.resize(512, "off"), ImageError);
    assertEquals(error.message, "Cannot grow device files");
    assertEquals(await node.readsZeroWhenNew!(), false);
  },
});

Deno.test({
  name: "a full disk is an error with its words",
  ignore: !mayOpenDevices,
  fn: async () => {
    const context = driverContext("/dev/full", WRITABLE, QUIET);
    await using node = await hostDevice.open("/dev/full", context);
    const error = await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
    assertEquals([error.message, error.errno], ["No space left on device", "ENOSPC"]);
    assertEquals(error.file, "/dev/full");
  },
});

Deno.test("nothing is written where no offset is exact any more", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(512));
  await using node = await openFile(dir.file("a"), WRITABLE);
  for (const offset of [2 ** 53 - 512, 2 ** 56]) {
    for (
      const write of [
        () => node.write(offset, new Uint8Array(512)),
        () => node.writeZeroes(offset, 512, { unmap: false }),
      ]
    ) assertEquals((await assertRejects(write, ImageError)).errno, "EFBIG");
  }
  assertEquals((await Deno.stat(dir.file("a"))).size, 512);
});
