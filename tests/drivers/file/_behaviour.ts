/** What a file node does, whether native calls are there or not. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { hostDevice } from "../../../drivers/file/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES, READ_ONLY } from "../../../lib/block/mode.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { tempDir } from "../../_folders.ts";
import { openFile, readRange, WRITABLE } from "./_node.ts";

const KEEP = { unmap: false };
const UNMAP = { unmap: true };

/** Registers the tests, each under a name that ends in `how`. */
export function testFileNode(how: string, permissions?: Deno.PermissionOptions): void {
  const test = (name: string, fn: (dir: string) => Promise<void>) =>
    Deno.test({
      name: `${name} (${how})`,
      ...(permissions === undefined ? {} : { permissions }),
      fn: async () => {
        await using dir = await tempDir();
        await fn(dir.path);
      },
    });

  test("a file node's length is rounded up to a sector", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1000).fill(1));
    await using node = await openFile(`${dir}/a`, READ_ONLY);
    assertEquals(node.length, 1024);
    assertEquals(node.exactLength, 1000);
    assertEquals(node.driver, "file");
    assertEquals(node.filename, `${dir}/a`);
    assert(node.readOnly);
  });

  test("what is read behind the end of a file is zeros", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1000).fill(1));
    await using node = await openFile(`${dir}/a`, READ_ONLY);
    const expected = new Uint8Array(512);
    expected.fill(1, 0, 100);
    assertEquals(await readRange(node, 900, 512), expected);
    assertEquals(await readRange(node, 1 << 20, 16), new Uint8Array(16));
  });

  test("writing behind the end grows a file", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(10));
    {
      await using node = await openFile(`${dir}/a`);
      await node.write(1000, new Uint8Array([7, 8]));
      assertEquals(node.exactLength, 1002);
      assertEquals(node.length, 1024);
      assertEquals(await readRange(node, 999, 4), new Uint8Array([0, 7, 8, 0]));
    }
    assertEquals(Deno.statSync(`${dir}/a`).size, 1002);
  });

  test("growth by somebody else is seen in a writable file", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(10));
    await using node = await openFile(`${dir}/a`);
    Deno.truncateSync(`${dir}/a`, 5000);
    assertEquals(node.exactLength, 5000);
  });

  test("a file that shrinks while it is read is an error, not zeros", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(4096).fill(1));
    await using node = await openFile(`${dir}/a`, READ_ONLY);
    Deno.truncateSync(`${dir}/a`, 100);
    const error = await assertRejects(() => readRange(node, 0, 512), ImageError);
    assertEquals(error.message, `'${dir}/a' has shrunk from 4096 to 100 bytes while it was in use`);
    assertEquals(error.errno, "EIO");
  });

  test("shrinking it oneself is none", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(4096).fill(1));
    await using node = await openFile(`${dir}/a`);
    await node.resize(1000, "off");
    const bytes = await readRange(node, 0, 1024);
    assertEquals(bytes.subarray(0, 1000), new Uint8Array(1000).fill(1));
    assertEquals(bytes.subarray(1000), new Uint8Array(24));
  });

  test("a file opened for reading refuses to be written", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(512));
    await using node = await openFile(`${dir}/a`, { ...READ_ONLY, unmap: true });
    for (
      const attempt of [
        () => node.write(0, new Uint8Array(1)),
        () => node.writeZeroes(0, 1, KEEP),
        () => node.discard(0, 1),
        () => node.resize(0, "off"),
      ]
    ) {
      const error = await assertRejects(attempt, ImageError);
      assertEquals(error.errno, "EPERM");
    }
    await node.flush();
    assertEquals(Deno.statSync(`${dir}/a`).size, 512);
  });

  for (const flags of [KEEP, UNMAP]) {
    const kind = flags.unmap ? "unmapping" : "keeping";
    test(`${kind} zero writes erase exactly their range`, async (dir) => {
      Deno.writeFileSync(`${dir}/a`, new Uint8Array(100_000).fill(5));
      await using node = await openFile(`${dir}/a`);
      await node.writeZeroes(5000, 60_000, flags);
      const expected = new Uint8Array(100_000).fill(5);
      expected.fill(0, 5000, 65_000);
      assertEquals(await readRange(node, 0, 100_000), expected);
      assertEquals(node.exactLength, 100_000);
    });

    test(`${kind} zero writes across and behind the end grow a file`, async (dir) => {
      Deno.writeFileSync(`${dir}/a`, new Uint8Array(10_000).fill(5));
      await using node = await openFile(`${dir}/a`);
      await node.writeZeroes(9000, 5000, flags);
      assertEquals(node.exactLength, 14_000);
      await node.writeZeroes(20_000, 1000, flags);
      assertEquals(node.exactLength, 21_000);
      const expected = new Uint8Array(21_000);
      expected.fill(5, 0, 9000);
      assertEquals(await readRange(node, 0, 21_000), expected);
    });
  }

  test("zero writes larger than the buffer of zeros are whole", async (dir) => {
    const length = (5 << 20) + 123;
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(length + 2).fill(9));
    await using node = await openFile(`${dir}/a`);
    await node.writeZeroes(1, length, KEEP);
    const bytes = await readRange(node, 0, length + 2);
    assertEquals([bytes[0], bytes.at(-1)], [9, 9]);
    assertEquals(bytes.subarray(1, -1).findIndex((byte) => byte !== 0), -1);
  });

  test("a discard without unmapping changes nothing", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(65_536).fill(5));
    await using node = await openFile(`${dir}/a`, { ...WRITABLE, unmap: false });
    await node.discard(0, 65_536);
    assertEquals(await readRange(node, 0, 65_536), new Uint8Array(65_536).fill(5));
  });

  test("resizing writes the first block of an empty file, else nothing", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array());
    await using node = await openFile(`${dir}/a`);
    await node.resize(1 << 20, "off");
    assertEquals(node.exactLength, 1 << 20);
    assertEquals(Deno.statSync(`${dir}/a`).blocks! > 0, true);
    await node.resize(3_000_001, "off");
    assertEquals(node.exactLength, 3_000_001);
    await node.resize(77, "off");
    assertEquals(node.exactLength, 77);
  });

  for (const how of ["falloc", "full"] as const) {
    test(`preallocation=${how} reserves the added space and keeps what is there`, async (dir) => {
      Deno.writeFileSync(`${dir}/a`, new Uint8Array(10_000).fill(3));
      await using node = await openFile(`${dir}/a`);
      await node.resize(1 << 20, how);
      assertEquals(node.exactLength, 1 << 20);
      assert((await node.allocatedSize())! >= (1 << 20) - 4096);
      const bytes = await readRange(node, 0, 1 << 20);
      assertEquals(bytes.subarray(0, 10_000), new Uint8Array(10_000).fill(3));
      assertEquals(bytes.subarray(10_000).findIndex((byte) => byte !== 0), -1);
    });
  }

  test("a size that no file can have is an error and leaves the file as it was", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1000).fill(3));
    await using node = await openFile(`${dir}/a`);
    for (const size of [Number.MAX_SAFE_INTEGER, 2 ** 60]) {
      const error = await assertRejects(() => node.resize(size, "off"), ImageError);
      assertEquals(error.message, "Could not resize file: File too large");
      assertEquals(error.errno, "EFBIG");
    }
    assertEquals(node.exactLength, 1000);
  });

  test("metadata is no preallocation of a file", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1000));
    await using node = await openFile(`${dir}/a`);
    const error = await assertRejects(() => node.resize(2000, "metadata"), ImageError);
    assertEquals(error.message, "Unsupported preallocation mode: metadata");
  });

  test("the last sector's part behind the end is a zero extent of its own", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1000).fill(1));
    await using node = await openFile(`${dir}/a`, READ_ONLY);
    const { file: _, ...data } = await node.extent(0, 1024);
    assertEquals(data, { length: 1000, state: "data", compressed: false, offset: 0 });
    const { file, ...rest } = await node.extent(1000, 24);
    assertEquals(rest, { length: 24, state: "zero", compressed: false, offset: 1000 });
    assert(file === node);
    assertEquals((await node.extent(10, 5)).length, 5);
  });

  test("what is local says where and how", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1));
    await using node = await openFile(`${dir}/a`, {
      ...WRITABLE,
      cache: CACHE_MODES["writethrough"]!,
    });
    assertEquals(node.local, { path: `${dir}/a`, direct: false, sync: true });
    await node.write(0, new Uint8Array([1]));
  });

  test("a missing file, a folder, no name: each its own words", async (dir) => {
    const message = async (path: string, mode = READ_ONLY) =>
      (await assertRejects(() => openFile(path, mode), ImageError)).message;
    assertEquals(
      await message(`${dir}/none`),
      `Could not open '${dir}/none': No such file or directory`,
    );
    assertEquals(await message(dir), `'file' driver requires '${dir}' to be a regular file`);
    assertEquals(await message(dir, WRITABLE), `Could not open '${dir}': Is a directory`);
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1));
    assertEquals(await message(`${dir}/a/b`), `Could not open '${dir}/a/b': Not a directory`);
    assertEquals(await message(""), "The 'file' block driver requires a file name");
  });

  test("a regular file is no device", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(1));
    const error = await assertRejects(
      () => hostDevice.open(`${dir}/a`, driverContext(`${dir}/a`, READ_ONLY, QUIET)),
      ImageError,
    );
    assertEquals(
      error.message,
      `'host_device' driver requires '${dir}/a' to be either a character or block device`,
    );
  });

  test("an image written here and written there at once is refused within a process", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(512));
    Deno.symlinkSync(`${dir}/a`, `${dir}/b`);
    await using first = await openFile(`${dir}/a`, READ_ONLY);
    await first.lock!({ uses: ["consistent read"], unshares: ["write", "resize"] });
    await using second = await openFile(`${dir}/b`);
    const error = await assertRejects(
      () => second.lock!({ uses: ["consistent read", "write"], unshares: [] }),
      ImageError,
    );
    assertEquals(error.message, 'Failed to get "write" lock');
    assertEquals(error.hint, `Is another process using the image [${dir}/b]?`);
    // The other way round: the reader is the one who comes too late.
    await first.lock!({ uses: ["consistent read"], unshares: [] });
    await second.lock!({ uses: ["consistent read", "write"], unshares: [] });
    const late = await assertRejects(
      () => first.lock!({ uses: ["consistent read"], unshares: ["write"] }),
      ImageError,
    );
    assertEquals(late.message, 'Failed to get shared "write" lock');
    await first.lock!({ uses: ["consistent read"], unshares: ["resize"] });
  });

  test("a closed file is no obstacle", async (dir) => {
    Deno.writeFileSync(`${dir}/a`, new Uint8Array(512));
    const writer = { uses: ["write"], unshares: ["write"] } as const;
    for (let i = 0; i < 2; i++) {
      await using node = await openFile(`${dir}/a`);
      await node.lock!(writer);
    }
    assertEquals(Deno.statSync(`${dir}/a`).size, 512);
  });
}
