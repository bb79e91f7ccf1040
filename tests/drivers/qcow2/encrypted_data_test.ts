/** Guest data of encrypted images, against a plain model and against what lies in the file. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import { context, create, open } from "./_image.ts";

const AES = { "encrypt.format": "aes", "encrypt.key-secret": "s" };
const LUKS = {
  "encrypt.format": "luks",
  "encrypt.key-secret": "s",
  "encrypt.cipher-alg": "aes-128",
  "encrypt.cipher-mode": "cbc",
  "encrypt.iter-time": "1",
};
const K = 1024;

for (
  const [name, options] of [
    ["AES", { ...AES, cluster_size: "4k" }],
    ["AES, extended L2", { ...AES, cluster_size: "16k", extended_l2: "on" }],
    ["AES, version 2", { ...AES, cluster_size: "512", compat: "0.10" }],
    ["LUKS", { ...LUKS, cluster_size: "4k" }],
  ] as const
) {
  for (const backed of [false, true]) {
    Deno.test(`requests of any size give what a plain disk gives: ${name}${backed ? ", with a backing file" : ""}`, async () => {
      const seed = 7;
      const random = new Random(seed);
      const size = 300 * K;
      const file = await create({
        ...options,
        size: `${size}`,
        ...(backed ? { backing_file: "b", backing_fmt: "raw" } : {}),
      });
      const model = new Uint8Array(size);
      const below = random.bytes(200 * K);
      if (backed) model.set(below);
      const openDisk = async () => {
        const node = await open(file.copy(), context({ writable: true, unmap: true }));
        node.backing!.attach(backed ? new MemoryNode({ bytes: below, readOnly: true }) : null);
        return node;
      };
      const disk = await openDisk();
      try {
        for (let round = 0; round < 150; round++) {
          // Half of the requests begin and end anywhere, as the first and the last of a copy may.
          const unit = random.oneIn(2) ? 1 : 512;
          const offset = random.below(size / unit) * unit;
          const length = Math.min(random.between(1, 30 * K / unit) * unit, size - offset);
          if (random.oneIn(4)) {
            await disk.writeZeroes(offset, length, { unmap: random.oneIn(2) });
            model.fill(0, offset, offset + length);
          } else {
            const bytes = random.bytes(length);
            await disk.write(offset, bytes);
            assertEquals(bytes.length, length);
            model.set(bytes, offset);
          }
          const at = random.below(size - 1);
          const into = new Uint8Array(Math.min(random.between(1, 20 * K), size - at));
          await disk.read(at, into);
          assert(same(into, model.subarray(at, at + into.length)), `seed ${seed}, round ${round}`);
        }
        const all = new Uint8Array(size);
        await disk.read(0, all);
        assert(same(all, model), `seed ${seed}`);
        const check = await disk.checker!.check("none", () => {});
        assertEquals([check.corruptions, check.leaks, check.checkErrors], [0, 0, 0]);
      } finally {
        await disk[Symbol.asyncDispose]();
      }
    });
  }
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

Deno.test("what is written is nowhere in the file", async () => {
  for (const options of [AES, LUKS]) {
    const file = await create({ ...options, size: "1M" });
    const disk = await open(file, context({ writable: true }));
    const plain = new Uint8Array(100 * K).fill(0x5a);
    await disk.write(3 * K, plain);
    await disk.flush();
    assertEquals(file.bytes().toHex().indexOf("5a".repeat(16)), -1);
    await disk[Symbol.asyncDispose]();
  }
});

Deno.test("the caller's bytes are left as they are", async () => {
  await using disk = await open(await create({ ...AES, size: "1M" }), context({ writable: true }));
  const bytes = new Random(1).bytes(70 * K);
  const copy = bytes.slice();
  await disk.write(512, bytes);
  await disk.write(100, bytes);
  assert(same(bytes, copy));
});

Deno.test("parts of one sector that are written at the same time all stay", async () => {
  await using disk = await open(await create({ ...AES, size: "1M" }), context({ writable: true }));
  await Promise.all(
    Array.from({ length: 16 }, (_, i) => disk.write(i * 32, new Uint8Array(32).fill(i + 1))),
  );
  const sector = new Uint8Array(512);
  await disk.read(0, sector);
  assertEquals([...sector], Array.from({ length: 512 }, (_, i) => Math.floor(i / 32) + 1));
});

Deno.test("extents of encrypted data say no plain place, and nobody else may fill or pack clusters", async () => {
  await using disk = await open(await create({ ...AES, size: "1M" }), context({ writable: true }));
  await disk.write(0, new Uint8Array(64 * K).fill(1));
  const { sealed, ...extent } = await disk.extent(0, 1024 * K);
  assertEquals(extent, { length: 64 * K, state: "data", compressed: false });
  // Under numbers on the disk, not in the file.
  assertEquals([sealed?.sector, sealed?.cipher.mode], [0, "cbc"]);
  assertEquals(sealed!.offset % (64 * K), 0);
  assertEquals((await disk.extent(100, 10)).sealed, undefined);
  assertEquals([disk.allocator, disk.packer], [undefined, undefined]);
});

Deno.test("a disk with space taken in advance does not read as zeros", async () => {
  await using empty = await open(await create({ ...AES, size: "1M" }), context());
  assertEquals(await empty.readsZeroWhenNew!(), true);
  const file = await create({ ...AES, size: "1M", preallocation: "metadata" });
  await using taken = await open(file, context());
  assertEquals(await taken.readsZeroWhenNew!(), false);
});

Deno.test("a long run of clusters is one write to the file", async () => {
  const file = await create({ ...LUKS, size: "4M" });
  await using disk = await open(file, context({ writable: true }));
  file.logging = true;
  await disk.write(0, new Uint8Array(1024 * K).fill(7));
  const writes = file.log.filter(({ kind, length }) => kind === "write" && length > 64 * K);
  assertEquals(writes.map(({ length }) => length), [1024 * K]);
});

Deno.test("the wrong secret is refused by LUKS, and gives other bytes without it", async () => {
  const luks = await create({ ...LUKS, size: "1M" });
  const error = await assertRejects(() => open(luks, context(), "t"), ImageError);
  assertEquals(error.message, "Invalid password, cannot unlock any keyslot");
  const none = await assertRejects(() => open(luks, context(), "none"), ImageError);
  assertEquals(none.message, "No secret with id 'none'");

  const aes = await create({ ...AES, size: "1M" });
  const disk = await open(aes.copy(), context({ writable: true }));
  await disk.write(0, new Uint8Array(512).fill(9));
  await disk[Symbol.asyncDispose]();
  await using other = await open(aes.copy(), context(), "t");
  const bytes = new Uint8Array(512);
  await other.read(0, bytes);
  assert(!bytes.every((byte) => byte === 9));
});

Deno.test("a LUKS header that is shorter than its key slots takes no writes behind it", async () => {
  const file = await create({ ...LUKS, size: "1M" });
  // The header extension's length: less than the first slot.
  const head = file.bytes().subarray(0, 65536);
  const view = new DataView(head.buffer, head.byteOffset);
  let at = 112;
  while (view.getUint32(at) !== 0x0537be77) at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  const short = new Uint8Array(8);
  new DataView(short.buffer).setBigUint64(0, 8192n);
  await file.write(at + 16, short);
  await using disk = await open(file, context({ writable: true }));
  const { qcow2 } = await import("../../../drivers/qcow2/driver.ts");
  const { OptionSet } = await import("../../../lib/block/options.ts");
  const options = new OptionSet(qcow2.amendOptions!, [
    ["encrypt.state", "active"],
    ["encrypt.new-secret", "t"],
    ["encrypt.iter-time", "1"],
  ]);
  const before = file.bytes();
  const error = await assertRejects(
    () => disk.amender!.amend(options, { force: false }),
    ImageError,
  );
  assertEquals(error.message, "Key slots reach past the encryption header");
  assert(same(file.bytes(), before));
});

Deno.test("untrusted headers may not ask for hours of work", async () => {
  const file = await create({ ...LUKS, size: "1M" });
  const bytes = file.bytes();
  const header = bytes.findIndex((_, i) =>
    i % 512 === 0 && bytes[i] === 0x4c && bytes[i + 1] === 0x55
  );
  const iterations = new Uint8Array(4).fill(0xff);
  await file.write(header + 208 + 4, iterations);
  const error = await assertRejects(
    () => open(file, context({}, { untrusted: true })),
    ImageError,
  );
  assertEquals(error.message, "4294967295 iterations of a key are more than 134217728");
});
