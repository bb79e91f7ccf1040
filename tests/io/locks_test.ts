import { assert, assertEquals, assertThrows } from "@std/assert";
import { openHostFile } from "../../lib/io/host_file.ts";
import {
  ImageLock,
  LockConflictError,
  type LockPermission,
  type LockRequest,
} from "../../lib/io/locks.ts";
import { loadNative, type NativeFile, openNative, unloadNative } from "../../lib/io/native.ts";
import { forSeeds } from "../_random.ts";
import { reference, runReference, useReference } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

/** Native calls are Linux's and need the ffi permission: elsewhere these tests are ignored, visibly. */
const ignore = !loadNative();
unloadNative();

const PERMISSIONS: LockPermission[] = ["consistent read", "write", "write unchanged", "resize"];

const READS: LockRequest = { uses: ["consistent read"], unshares: [] };
const WRITES: LockRequest = {
  uses: ["consistent read", "write", "resize"],
  unshares: ["write", "resize"],
};
const SHARES_ALL_BUT_WRITES: LockRequest = {
  uses: ["consistent read"],
  unshares: ["write", "resize"],
};

function test(
  name: string,
  fn: (dir: TempDir) => void | Promise<void>,
  options: { ignore?: boolean } = {},
): void {
  Deno.test({
    name: `image locks: ${name}`,
    ignore: ignore || (options.ignore ?? false),
    sanitizeResources: true,
    sanitizeOps: true,
    async fn() {
      await using dir = await tempDir();
      try {
        await fn(dir);
      } finally {
        unloadNative();
      }
    },
  });
}

/** A descriptor of its own: to the locks as good as another process. */
async function user(path: string): Promise<NativeFile> {
  using host = await openHostFile(path, { write: true, create: true });
  const native = openNative(host);
  assert(native !== undefined);
  return native;
}

/** The bytes that somebody else than `observer` has locked. */
function lockedBytes(observer: NativeFile): number[] {
  return Array.from({ length: 300 }, (_, i) => i).filter((byte) => observer.isByteLocked(byte));
}

test("every permission has its two bytes", async (dir) => {
  using observer = await user(dir.file("image"));
  using file = await user(dir.file("image"));
  for (const [i, permission] of PERMISSIONS.entries()) {
    using _uses = ImageLock.acquire(file, { uses: [permission], unshares: [] });
    assertEquals(lockedBytes(observer), [100 + i]);
  }
  for (const [i, permission] of PERMISSIONS.entries()) {
    using _unshares = ImageLock.acquire(file, { uses: [], unshares: [permission] });
    assertEquals(lockedBytes(observer), [200 + i]);
  }
});

test("releasing, and closing the descriptor, gives everything back", async (dir) => {
  using observer = await user(dir.file("image"));
  using file = await user(dir.file("image"));
  const lock = ImageLock.acquire(file, WRITES);
  assertEquals(lockedBytes(observer), [100, 101, 103, 201, 203]);
  lock.release();
  lock.release();
  assertEquals(lockedBytes(observer), []);
  const again = ImageLock.acquire(file, WRITES);
  file.close();
  assertEquals(lockedBytes(observer), []);
  again.release();
});

test("readers that share go together", async (dir) => {
  using observer = await user(dir.file("image"));
  using a = await user(dir.file("image"));
  using b = await user(dir.file("image"));
  using _first = ImageLock.acquire(a, READS);
  using _second = ImageLock.acquire(b, SHARES_ALL_BUT_WRITES);
  assertEquals(lockedBytes(observer), [100, 201, 203]);
});

test("what another does not share cannot be had", async (dir) => {
  using a = await user(dir.file("image"));
  using b = await user(dir.file("image"));
  using _held = ImageLock.acquire(a, { uses: [], unshares: ["write"] });
  const error = assertThrows(
    () => ImageLock.acquire(b, { uses: ["write"], unshares: [] }),
    LockConflictError,
  );
  assertEquals(error.message, 'Failed to get "write" lock');
  assertEquals(error.hint, `Is another process using the image [${dir.file("image")}]?`);
  assertEquals([error.permission, error.shared], ["write", false]);
});

test("what another uses cannot be kept from being shared", async (dir) => {
  using a = await user(dir.file("image"));
  using b = await user(dir.file("image"));
  using _held = ImageLock.acquire(a, { uses: ["resize"], unshares: [] });
  const error = assertThrows(
    () => ImageLock.acquire(b, { uses: [], unshares: ["write", "resize"] }),
    LockConflictError,
  );
  assertEquals(error.message, 'Failed to get shared "resize" lock');
  assertEquals([error.permission, error.shared], ["resize", true]);
});

test("tests go by permission, those for use first", async (dir) => {
  using a = await user(dir.file("image"));
  using b = await user(dir.file("image"));
  using _held = ImageLock.acquire(a, {
    uses: ["consistent read", "write"],
    unshares: ["write unchanged", "resize"],
  });
  const conflict = (request: LockRequest) =>
    assertThrows(() => ImageLock.acquire(b, request), LockConflictError).message;
  const all = { uses: PERMISSIONS.toReversed(), unshares: PERMISSIONS.toReversed() };
  assertEquals(conflict(all), 'Failed to get "write unchanged" lock');
  assertEquals(conflict({ ...all, uses: ["resize"] }), 'Failed to get "resize" lock');
  assertEquals(conflict({ ...all, uses: [] }), 'Failed to get shared "consistent read" lock');
});

test("after a conflict everything is as before", async (dir) => {
  using observer = await user(dir.file("image"));
  using a = await user(dir.file("image"));
  using b = await user(dir.file("image"));
  const held = ImageLock.acquire(a, SHARES_ALL_BUT_WRITES);
  const lock = ImageLock.acquire(b, READS);
  held.release();
  using _write = ImageLock.acquire(a, { uses: ["write"], unshares: [] });
  assertThrows(() => lock.change(SHARES_ALL_BUT_WRITES), LockConflictError);
  assertEquals(lockedBytes(observer), [100, 101]);
  assertEquals(lockedBytes(a), [100]);
  // Nothing of the attempt stays behind that would keep the other from going on.
  using c = await user(dir.file("image"));
  using _third = ImageLock.acquire(c, { uses: ["write"], unshares: [] });
  lock.release();
});

test("a lock can be changed up and down without letting go in between", async (dir) => {
  using observer = await user(dir.file("image"));
  using file = await user(dir.file("image"));
  using lock = ImageLock.acquire(file, READS);
  lock.change(WRITES);
  assertEquals(lockedBytes(observer), [100, 101, 103, 201, 203]);
  lock.change({ uses: ["consistent read"], unshares: ["resize"] });
  assertEquals(lockedBytes(observer), [100, 203]);
});

test("random users conflict exactly when one uses what another does not share", async (dir) => {
  const files = [
    await user(dir.file("image")),
    await user(dir.file("image")),
    await user(dir.file("image")),
  ];
  try {
    forSeeds(20, (random) => {
      const locks = files.map((file) => ImageLock.acquire(file, { uses: [], unshares: [] }));
      const held = locks.map((): LockRequest => ({ uses: [], unshares: [] }));
      for (let step = 0; step < 30; step++) {
        const i = random.below(locks.length);
        const some = () => PERMISSIONS.filter(() => random.oneIn(3));
        const request = { uses: some(), unshares: some() };
        const others = held.filter((_, j) => j !== i);
        const conflict = others.some((other) =>
          request.uses.some((permission) => other.unshares.includes(permission)) ||
          request.unshares.some((permission) => other.uses.includes(permission))
        );
        if (conflict) {
          assertThrows(() => locks[i]!.change(request), LockConflictError);
        } else {
          locks[i]!.change(request);
          held[i] = request;
        }
      }
      for (const lock of locks) lock.release();
    });
  } finally {
    for (const file of files) file.close();
  }
});

const withReference = { ignore: reference.ignore };

/** Lets the reference's `qemu-io` hold an image while `body` runs. */
async function whileHeld(
  dir: TempDir,
  args: readonly string[],
  body: () => void | Promise<void>,
): Promise<void> {
  const holder = new Deno.Command("qemu-io", {
    args: [...args],
    cwd: dir.path,
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const commands = holder.stdin.getWriter();
  const output = holder.stdout.pipeThrough(new TextDecoderStream()).getReader();
  try {
    await commands.write(new TextEncoder().encode("length\n"));
    // It opens the image before it answers to anything.
    for (let text = ""; !/\d [KMG]iB/.test(text);) {
      const { value, done } = await output.read();
      assert(!done, `qemu-io ended: ${text}`);
      text += value;
    }
    await body();
  } finally {
    await commands.close();
    for (;;) {
      const { done } = await output.read();
      if (done) break;
    }
    await holder.status;
  }
}

test("an image that qemu-io writes is seen to be in use", async (dir) => {
  await useReference(["create", "-q", "-f", "qcow2", "image", "1M"], { cwd: dir.path });
  using file = await user(dir.file("image"));
  await whileHeld(dir, ["-f", "qcow2", "image"], () => {
    assertEquals(lockedBytes(file), [100, 101, 103, 201, 203]);
    const conflict = (request: LockRequest) =>
      assertThrows(() => ImageLock.acquire(file, request), LockConflictError).message;
    assertEquals(conflict(WRITES), 'Failed to get "write" lock');
    assertEquals(conflict(SHARES_ALL_BUT_WRITES), 'Failed to get shared "write" lock');
    using _reader = ImageLock.acquire(file, READS);
  });
  using _lock = ImageLock.acquire(file, WRITES);
}, withReference);

test("an image that qemu-io reads can be read but not written", async (dir) => {
  await useReference(["create", "-q", "-f", "qcow2", "image", "1M"], { cwd: dir.path });
  using file = await user(dir.file("image"));
  await whileHeld(dir, ["-r", "-f", "qcow2", "image"], () => {
    assertEquals(lockedBytes(file), [100, 201, 203]);
    using lock = ImageLock.acquire(file, SHARES_ALL_BUT_WRITES);
    assertThrows(() => lock.change(WRITES), LockConflictError, 'Failed to get "write" lock');
  });
}, withReference);

test("the reference tool sees an image of ours in use, in its own words", async (dir) => {
  await useReference(["create", "-q", "-f", "qcow2", "image", "1M"], { cwd: dir.path });
  using file = await user(dir.file("image"));
  using lock = ImageLock.acquire(file, WRITES);
  const info = () => runReference(["info", "image"], { cwd: dir.path });
  const hint = "Is another process using the image [image]?\n";
  const refused = await info();
  assertEquals(refused.code, 1);
  assertEquals(
    refused.stderr,
    `qemu-img: Could not open 'image': Failed to get shared "write" lock\n${hint}`,
  );
  const resized = () => runReference(["resize", "image", "2M"], { cwd: dir.path });
  assertEquals(
    (await resized()).stderr,
    `qemu-img: Could not open 'image': Failed to get "write" lock\n${hint}`,
  );
  lock.change(SHARES_ALL_BUT_WRITES);
  assertEquals((await info()).code, 0);
  assertEquals((await resized()).code, 1);
  lock.release();
  assertEquals((await resized()).code, 0);
}, withReference);
