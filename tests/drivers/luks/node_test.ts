/** LUKS images against the reference's vectors, against a plain model, and taken apart. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { probeLuks } from "../../../drivers/luks/probe.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { PASSPHRASE, sha256, VECTORS, vectorSources } from "../../crypto/_luks.ts";
import { LuksVolume } from "../../../lib/crypto/luks.ts";
import { equalBytes } from "../../../lib/bytes/equal.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import { amendOptions, create, imageBytes, open, PAYLOAD } from "./_image.ts";

const K = 1024;

async function refusal(action: () => Promise<unknown>): Promise<string> {
  return (await assertRejects(action, ImageError)).message;
}

for (const { name, parameters, size, file: hash } of VECTORS) {
  Deno.test(`an image is written as the reference's vector says: ${name}`, async () => {
    const bytes = new Uint8Array(size);
    await LuksVolume.create(
      {
        read: (offset, into) => Promise.resolve(into.set(bytes.subarray(offset))),
        write: (offset, from) => Promise.resolve(bytes.set(from, offset)),
        barrier: () => Promise.resolve(),
      },
      parameters,
      PASSPHRASE,
      vectorSources(),
    );
    const file = new MemoryNode({ bytes });
    await using disk = await open(file, { writable: true });
    assertEquals(disk.length, 512);
    await disk.write(0, new Uint8Array(512).fill(0x5a));
    assertEquals(sha256(file.bytes()), hash);
    const sector = new Uint8Array(512);
    await disk.read(0, sector);
    assertEquals(sector, new Uint8Array(512).fill(0x5a));
  });
}

for (const detached of [false, true]) {
  Deno.test(`requests of any size give what a plain disk gives${detached ? ", detached" : ""}`, async () => {
    const [seed, size] = [11, 300 * K];
    const random = new Random(seed);
    const bytes = await imageBytes(size);
    const header = detached ? new MemoryNode({ bytes: detach(bytes) }) : undefined;
    const file = new MemoryNode({ bytes: detached ? bytes.subarray(PAYLOAD) : bytes });
    const model = new Uint8Array(size);
    await using disk = await open(file, { writable: true }, {
      secret: "s",
      ...(header === undefined ? {} : { header }),
    });
    assertEquals(disk.length, size);
    await disk.writeZeroes(0, size, { unmap: true });
    for (let round = 0; round < 200; round++) {
      const unit = random.oneIn(2) ? 1 : 512;
      const offset = random.below(size / unit) * unit;
      const length = Math.min(random.between(1, 40 * K / unit) * unit, size - offset);
      if (random.oneIn(4)) {
        await disk.writeZeroes(offset, length, { unmap: random.oneIn(2) });
        model.fill(0, offset, offset + length);
      } else if (random.oneIn(8)) {
        await disk.discard(offset, length);
      } else {
        const data = random.bytes(length);
        await disk.write(offset, data);
        model.set(data, offset);
      }
      const at = random.below(size - 1);
      const into = new Uint8Array(Math.min(random.between(1, 20 * K), size - at));
      await disk.read(at, into);
      assert(equalBytes(into, model.subarray(at, at + into.length)), `seed ${seed}, ${round}`);
    }
    // The same on the way back: nothing was kept in memory.
    await disk.flush();
    await using again = await open(file.copy(), {}, {
      secret: "s",
      ...(header === undefined ? {} : { header: header.copy() }),
    });
    const all = new Uint8Array(size);
    await again.read(0, all);
    assert(equalBytes(all, model), `seed ${seed}`);
  });
}

/** The header of an image, which from now on says that it is alone. */
function detach(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.slice(0, PAYLOAD).fill(0, 104, 108);
}

Deno.test("a disk is encrypted alike with its header before it and in another file", async () => {
  const bytes = await imageBytes(4 * K);
  const whole = new MemoryNode({ bytes });
  const payload = new MemoryNode({ bytes: bytes.subarray(PAYLOAD) });
  await using one = await open(whole, { writable: true });
  await using two = await open(payload, { writable: true }, {
    secret: "s",
    header: new MemoryNode({ bytes: detach(bytes) }),
  });
  const data = new Random(3).bytes(3 * K);
  await one.write(512, data);
  await two.write(512, data);
  assertEquals(payload.bytes(), whole.bytes().subarray(PAYLOAD));
});

Deno.test("parts of one sector that are written at the same time all stay", async () => {
  await using disk = await open(new MemoryNode({ bytes: await imageBytes(K) }), { writable: true });
  await Promise.all(
    Array.from({ length: 16 }, (_, i) => disk.write(i * 32, new Uint8Array(32).fill(i + 1))),
  );
  const sector = new Uint8Array(512);
  await disk.read(0, sector);
  assertEquals([...sector], Array.from({ length: 512 }, (_, i) => Math.floor(i / 32) + 1));
});

Deno.test("the disk is one extent that lies nowhere plainly, and never reads as zeros by itself", async () => {
  await using disk = await open(new MemoryNode({ bytes: await imageBytes(8 * K) }), {
    writable: true,
  });
  const { sealed, ...extent } = await disk.extent(512, 7 * K);
  assertEquals(extent, { length: 7 * K, state: "data", compressed: false });
  assertEquals(sealed?.sector, 1);
  assertEquals(await disk.readsZeroWhenNew!(), false);
  assertEquals([disk.allocator, disk.packer, disk.backing, disk.checker], Array(4).fill(undefined));
  const zeros = disk.writeZeroes(0, 512, { unmap: true, noFallback: true });
  assertEquals((await assertRejects(() => zeros, ImageError)).errno, "ENOTSUP");
});

Deno.test("requests past the end, and writes to what is open for reading, are refused", async () => {
  await using disk = await open(new MemoryNode({ bytes: await imageBytes(K), readOnly: true }));
  const sector = new Uint8Array(512);
  assertEquals((await assertRejects(() => disk.read(K, sector), ImageError)).errno, "EIO");
  assertEquals((await assertRejects(() => disk.write(0, sector), ImageError)).errno, "EPERM");
  assertEquals((await assertRejects(() => disk.resize(K, "off"), ImageError)).errno, "EPERM");
  assertEquals((await assertRejects(() => disk.discard(0, 512), ImageError)).errno, "EPERM");
  assertEquals((await assertRejects(() => disk.extent(K, 1), ImageError)).errno, "EIO");
  assertEquals(disk.amender, undefined);
});

Deno.test("the disk grows and shrinks with its file, and keeps what it holds", async () => {
  const file = new MemoryNode({ bytes: await imageBytes(2 * K) });
  await using disk = await open(file, { writable: true });
  const data = new Random(5).bytes(K);
  await disk.write(0, data);
  await disk.resize(10 * K, "off");
  assertEquals([disk.length, file.length], [10 * K, PAYLOAD + 10 * K]);
  await disk.resize(K, "off");
  assertEquals([disk.length, file.length], [K, PAYLOAD + K]);
  const into = new Uint8Array(K);
  await disk.read(0, into);
  assertEquals(into, data);
});

Deno.test("metadata need no key, and give no data", async () => {
  const disk = await open(
    new MemoryNode({ bytes: await imageBytes(K) }),
    { metadataOnly: true },
    {},
  );
  assertEquals(disk.length, K);
  const { encrypted, specific } = await disk.details!();
  assertEquals([encrypted, specific?.type], [true, "luks"]);
  assertEquals(Object.keys(specific!.data), [
    ...["ivgen-alg", "detached-header", "hash-alg", "cipher-alg", "uuid", "ivgen-hash-alg"],
    ...["cipher-mode", "slots", "payload-offset", "master-key-iters"],
  ]);
  assertEquals(
    (await assertRejects(() => disk.read(0, new Uint8Array(512)), ImageError)).errno,
    "ENOTSUP",
  );
  await disk[Symbol.asyncDispose]();
});

Deno.test("a key is needed, and the right one", async () => {
  const bytes = await imageBytes(K);
  const opened = (secret?: string) => () => open(new MemoryNode({ bytes }), {}, { secret });
  assertEquals(await refusal(opened()), "Parameter 'key-secret' is required for cipher");
  assertEquals(await refusal(opened("none")), "No secret with id 'none'");
  assertEquals(await refusal(opened("t")), "Invalid password, cannot unlock any keyslot");
});

Deno.test("what cannot be opened closes the header's file", async () => {
  const header = new MemoryNode({ bytes: detach(await imageBytes(K)) });
  await refusal(() => open(new MemoryNode(), {}, { secret: "t", header }));
  assert(header.closed);
});

Deno.test("a file that ends before its disk is refused, with and without a key", async () => {
  const bytes = (await imageBytes(0)).subarray(0, PAYLOAD - 512);
  const text = "Could not refresh total sector count: Input/output error";
  assertEquals(await refusal(() => open(new MemoryNode({ bytes }))), text);
  assertEquals(
    await refusal(() => open(new MemoryNode({ bytes }), { metadataOnly: true }, {})),
    text,
  );
});

Deno.test("a header that is alone is no image", async () => {
  const bytes = detach(await imageBytes(K));
  const text = "LUKS payload is overlapping with the header";
  assertEquals(await refusal(() => open(new MemoryNode({ bytes }))), text);
  assertEquals(
    await refusal(() => open(new MemoryNode({ bytes }), { metadataOnly: true }, {})),
    text,
  );
});

Deno.test("a whole image is the header of another file, behind as many bytes of that", async () => {
  const bytes = await imageBytes(0);
  const payload = new MemoryNode({ bytes: new Uint8Array(PAYLOAD + K) });
  await using disk = await open(payload, { writable: true }, {
    secret: "s",
    header: new MemoryNode({ bytes }),
  });
  assertEquals(disk.length, K);
  await disk.write(0, new Uint8Array(K).fill(1));
  assertEquals(payload.bytes().subarray(0, PAYLOAD), new Uint8Array(PAYLOAD));
});

Deno.test("the disk begins where the header says, as cryptsetup aligns it to 2 MiB", async () => {
  const aligned = 2 << 20;
  const bytes = new Uint8Array(aligned + K);
  bytes.set(await imageBytes(0));
  new DataView(bytes.buffer).setUint32(104, aligned / 512);
  const file = new MemoryNode({ bytes });
  await using disk = await open(file, { writable: true });
  assertEquals(disk.length, K);
  const data = new Random(9).bytes(K);
  await disk.write(0, data);
  const into = new Uint8Array(K);
  await disk.read(0, into);
  assertEquals(into, data);
  // The same sectors as with the header right before them.
  const near = new MemoryNode({ bytes: await imageBytes(K) });
  await using other = await open(near, { writable: true });
  await other.write(0, data);
  assertEquals(file.bytes().subarray(aligned), near.bytes().subarray(PAYLOAD));
  assertEquals(file.bytes().subarray(0, aligned), bytes.subarray(0, aligned));
});

Deno.test("passphrases are added to and taken from the header's own file, the payload stays", async () => {
  const bytes = await imageBytes(K);
  const header = new MemoryNode({ bytes: detach(bytes) });
  const file = new MemoryNode({ bytes: bytes.subarray(PAYLOAD) });
  {
    await using disk = await open(file, { writable: true }, { secret: "s", header });
    const add = amendOptions({ state: "active", "new-secret": "t", "iter-time": "0" });
    await disk.amender!.amend(add, { force: false });
    const erase = amendOptions({ state: "inactive", keyslot: "0" });
    await disk.amender!.amend(erase, { force: false });
  }
  assertEquals(file.bytes(), bytes.subarray(PAYLOAD));
  const opened = (secret: string) => open(file.copy(), {}, { secret, header: header.copy() });
  await using disk = await opened("t");
  assertEquals(disk.length, K);
  assertEquals(await refusal(() => opened("s")), "Invalid password, cannot unlock any keyslot");
});

Deno.test("key slots that lie far behind a header are not written", async () => {
  const bytes = detach(await imageBytes(0));
  // Slot 1, in the middle of nowhere.
  new DataView(bytes.buffer).setUint32(208 + 48 + 40, 0x7fffff00);
  const header = new MemoryNode({ bytes });
  await using disk = await open(new MemoryNode(), { writable: true }, { secret: "s", header });
  const add = amendOptions({ state: "active", "new-secret": "t", "iter-time": "0" });
  assertEquals(
    await refusal(() => disk.amender!.amend(add, { force: false })),
    "Key slots reach past the header's file",
  );
  assertEquals(header.length, PAYLOAD);
});

Deno.test("an image is made with what its options say, and its space", async () => {
  const options = {
    ...{ "key-secret": "t", "iter-time": "1", "cipher-alg": "aes-128", "cipher-mode": "ctr" },
    ...{ "hash-alg": "sha512", size: "5000", preallocation: "metadata" },
  };
  const file = await create(options);
  assertEquals(file.bytes().length, PAYLOAD + 5000);
  await using disk = await open(file, {}, { secret: "t" });
  assertEquals(disk.length, 5120);
  const { data } = (await disk.details!()).specific!;
  assertEquals(
    [data["cipher-alg"], data["cipher-mode"], data["hash-alg"], data["ivgen-alg"]],
    ["aes-128", "ctr", "sha512", "plain64"],
  );
});

Deno.test("what cannot be made is refused before a file is", async () => {
  const quick = { "key-secret": "s", "iter-time": "1", size: "1M" };
  for (
    const [change, text] of [
      [{ "hash-alg": "rot13" }, "Parameter 'hash-alg' does not accept value 'rot13'"],
      [{ "cipher-alg": "serpent-256" }, "Algorithm 'serpent-256' not supported"],
      [{ "detached-header": "on" }, "Parameter 'detached-header' is unexpected"],
      [{ preallocation: "some" }, "invalid parameter value: some"],
      [{ size: "9223372036854775807" }, "The requested file size is too large"],
      [{ "key-secret": "none" }, "No secret with id 'none'"],
      [
        { "cipher-alg": "aes-192", "cipher-mode": "cbc" },
        "Algorithm 'aes-192' not supported in mode cbc",
      ],
    ] as const
  ) assertEquals(await refusal(() => create({ ...quick, ...change })), text);
});

Deno.test("magic and version 1 are LUKS, anything else is not", async () => {
  const bytes = (await imageBytes(0)).subarray(0, 512);
  assertEquals(probeLuks(bytes), 100);
  assertEquals(probeLuks(bytes.slice().fill(2, 7, 8)), 0);
  assertEquals(probeLuks(bytes.slice().fill(0, 0, 1)), 0);
  assertEquals(probeLuks(new Uint8Array(512)), 0);
});

Deno.test("headers of strangers may not ask for hours of work", async () => {
  const bytes = await imageBytes(K);
  bytes.fill(0xff, 212, 216);
  assertEquals(
    await refusal(() => open(new MemoryNode({ bytes }), {}, { secret: "s", untrusted: true })),
    "4294967295 iterations of a key are more than 134217728",
  );
});
