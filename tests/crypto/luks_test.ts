import { assertEquals, assertRejects } from "@std/assert";
import * as crypto from "node:crypto";
import { CryptoError } from "../../lib/crypto/error.ts";
import { deriveKey } from "../../lib/crypto/key_derivation.ts";
import { LuksVolume } from "../../lib/crypto/luks.ts";
import { encodeLuksHeader, luksLayout } from "../../lib/crypto/luks_header.ts";
import { createSectorCipher } from "../../lib/crypto/sector_cipher.ts";
import { splitKey } from "../../lib/crypto/splitter.ts";
import {
  bytesOf,
  MemoryStore,
  PASSPHRASE,
  sha256,
  smallVolume,
  VECTORS,
  vectorSources,
} from "./_luks.ts";

for (const { name, parameters, size, file, digest, material } of VECTORS) {
  Deno.test(`a volume is made as the reference's vector says: ${name}`, async () => {
    const store = new MemoryStore(new Uint8Array(size));
    const volume = await LuksVolume.create(store, parameters, PASSPHRASE, vectorSources());
    const { payloadOffset, slotOffset } = luksLayout(volume.header.keyBytes);
    assertEquals(payloadOffset, size - 512);
    assertEquals(volume.header.digest.toHex(), digest);
    const start = slotOffset(0);
    assertEquals(
      sha256(store.bytes.subarray(start, start + volume.header.keyBytes * 4000)),
      material,
    );
    const payload = store.bytes.subarray(payloadOffset);
    using cipher = await volume.cipher();
    cipher.encrypt(payload.fill(0x5a), payload, 0);
    assertEquals(sha256(store.bytes), file);
  });

  Deno.test(`a volume opens with its passphrase: ${name}`, async () => {
    const store = new MemoryStore(new Uint8Array(size));
    const made = await LuksVolume.create(store, parameters, PASSPHRASE, vectorSources());
    const sector = new Uint8Array(512).fill(0x5a);
    using ours = await made.cipher();
    ours.encrypt(sector, sector, 7);
    const opened = await LuksVolume.open(store, PASSPHRASE);
    assertEquals(opened.header, made.header);
    using theirs = await opened.cipher();
    theirs.decrypt(sector, sector, 7);
    assertEquals(sector, new Uint8Array(512).fill(0x5a));
  });
}

Deno.test("a passphrase that fits no slot is refused", async () => {
  const { store } = await smallVolume();
  for (const wrong of ["", "12345", "1234567", "123457"]) {
    const error = await assertRejects(() => LuksVolume.open(store, bytesOf(wrong)), CryptoError);
    assertEquals(error.message, "Invalid password, cannot unlock any keyslot");
  }
});

Deno.test("a passphrase that is no text is refused", async () => {
  const { store } = await smallVolume();
  await assertRejects(
    () => LuksVolume.open(store, Uint8Array.of(0xff)),
    CryptoError,
    "Data from secret is not valid UTF-8",
  );
});

Deno.test("more iterations than allowed are refused before one is done", async () => {
  const { store } = await smallVolume();
  new DataView(store.bytes.buffer).setUint32(208 + 4, 0xffffffff);
  await assertRejects(
    () => LuksVolume.open(store, PASSPHRASE, { maxIterations: 1000 }),
    CryptoError,
    "4294967295 iterations of a key are more than 1000",
  );
});

const AES_192_CBC = {
  cipher: "aes-192",
  mode: "cbc",
  ivgen: "plain64",
  hash: "sha256",
  iterTime: 0n,
} as const;

Deno.test("keys whose material fills no sectors cannot be made", async () => {
  const store = new MemoryStore(new Uint8Array(1 << 20));
  const error = await assertRejects(
    () => LuksVolume.create(store, AES_192_CBC, PASSPHRASE, vectorSources()),
    CryptoError,
  );
  assertEquals(error.message, "Algorithm 'aes-192' not supported in mode cbc");
  assertEquals(store.requests, []);
});

Deno.test("keys whose material fills no sectors are opened", async () => {
  const { slotOffset, payloadOffset } = luksLayout(24);
  const masterKey = Uint8Array.from({ length: 24 }, (_, i) => i);
  const [salt, iterations, hash] = [new Uint8Array(32).fill(9), 5, "sha256"] as const;
  const slots = Array.from({ length: 8 }, (_, index) => ({
    active: index === 2,
    iterations,
    salt,
    offset: slotOffset(index),
  }));
  const digest = await deriveKey({ hash, secret: masterKey, salt, iterations, length: 20 });
  const store = new MemoryStore(new Uint8Array(payloadOffset));
  store.bytes.set(encodeLuksHeader({
    ...AES_192_CBC,
    keyBytes: 24,
    payloadOffset,
    digest,
    salt,
    iterations,
    uuid: "",
    slots,
  }));
  const key = await deriveKey({ hash, secret: PASSPHRASE, salt, iterations, length: 24 });
  const material = new Uint8Array(188 * 512);
  material.set(splitKey(crypto, hash, masterKey, 4000, () => {}));
  using slotCipher = createSectorCipher(crypto, AES_192_CBC, key);
  slotCipher.encrypt(material, material, 0);
  store.bytes.set(material, slotOffset(2));
  using opened = await (await LuksVolume.open(store, PASSPHRASE)).cipher();
  const [ours, theirs] = [new Uint8Array(512), new Uint8Array(512)];
  opened.encrypt(ours, ours, 3);
  using plain = createSectorCipher(crypto, AES_192_CBC, masterKey);
  plain.encrypt(theirs, theirs, 3);
  assertEquals(ours, theirs);
});

Deno.test("algorithms that are not here are refused by their names", async () => {
  for (
    const [change, text] of [
      [{ cipher: "serpent-256" }, "Algorithm 'serpent-256' not supported"],
      [{ cipher: "twofish-128" }, "Algorithm 'twofish-128' not supported"],
      [
        { cipher: "cast5-128", mode: "xts", ivgen: "plain64" },
        "Unsupported cipher mode xts",
      ],
      [{ cipher: "cast5-128", mode: "cbc" }, "Cipher cast5-128 not supported with essiv"],
      [
        { cipher: "cast5-128", mode: "cbc", ivgen: "plain" },
        "Algorithm 'cast5-128' not supported",
      ],
      [{ cipher: "sm4" }, "Algorithm 'sm4' not supported"],
      [{ ivgenHash: "sha1" }, "No AES cipher with key size 20 available"],
      [{ cipher: "des" }, "Algorithm 'des' not supported"],
    ] as const
  ) {
    const error = await assertRejects(() => smallVolume(change), CryptoError);
    assertEquals(error.message, text);
  }
});

Deno.test("a second passphrase opens the volume, an erased one does not", async () => {
  const { store, volume } = await smallVolume();
  await volume.fillSlot(6, bytesOf("other"), 0n);
  assertEquals((await LuksVolume.open(store, bytesOf("other"))).header, volume.header);
  await volume.eraseSlot(0);
  await assertRejects(() => LuksVolume.open(store, PASSPHRASE), CryptoError);
  const { slots } = (await LuksVolume.open(store, bytesOf("other"))).header;
  assertEquals(slots[0], {
    active: false,
    iterations: 0,
    salt: new Uint8Array(32),
    offset: 4096,
  });
});

Deno.test("erased key material is written over forty times, each time flushed", async () => {
  const { store, volume } = await smallVolume();
  const before = store.bytes.slice(4096, 4096 + 64000);
  store.requests.length = 0;
  await volume.eraseSlot(0);
  const passes = store.requests.filter((r) => r.kind === "write" && r.offset === 4096);
  assertEquals(passes.length, 40);
  assertEquals(store.requests.slice(3).filter(({ kind }) => kind === "barrier").length, 40);
  const after = store.bytes.subarray(4096, 4096 + 64000);
  let equal = 0;
  for (const [i, byte] of after.entries()) if (byte === before[i]) equal++;
  // One in 256 by chance.
  assertEquals(equal < 1000, true, `${equal} bytes are as before`);
});

Deno.test("a detached header has no payload, and opens where it is told that it has none", async () => {
  const store = new MemoryStore(new Uint8Array(528384));
  const { parameters } = VECTORS[1]!;
  const sources = vectorSources();
  await LuksVolume.create(store, parameters, PASSPHRASE, { ...sources, detached: true });
  const opened = await LuksVolume.open(store, PASSPHRASE, { detached: true });
  assertEquals(opened.header.payloadOffset, 0);
  await assertRejects(
    () => LuksVolume.open(store, PASSPHRASE),
    CryptoError,
    "LUKS payload is overlapping with the header",
  );
});
