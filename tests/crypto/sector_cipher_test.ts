import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import * as crypto from "node:crypto";
import type { CipherSpec } from "../../lib/crypto/algorithms.ts";
import { masterKeyBytes } from "../../lib/crypto/algorithms.ts";
import { CryptoError } from "../../lib/crypto/error.ts";
import { createSectorCipher } from "../../lib/crypto/sector_cipher.ts";
import { Random } from "../_random.ts";

const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);

function cipherFor(spec: CipherSpec) {
  return createSectorCipher(crypto, spec, KEY.subarray(0, masterKeyBytes(spec)));
}

/** One block through AES. */
function block(key: Uint8Array, bytes: Uint8Array): Uint8Array {
  const aes = crypto.createCipheriv(`aes-${key.length * 8}-ecb`, key, null).setAutoPadding(false);
  const result = aes.update(bytes);
  aes.final();
  return result;
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, i) => byte ^ b[i]!);
}

/** The vector of a sector, written down as the LUKS reference words it. */
function vector({ ivgen, ivgenHash }: CipherSpec, key: Uint8Array, sector: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const number = ivgen === "plain" ? BigInt.asUintN(32, BigInt(sector)) : BigInt(sector);
  new DataView(bytes.buffer).setBigUint64(0, number, true);
  if (ivgen !== "essiv") return bytes;
  return block(crypto.createHash(ivgenHash!).update(key).digest(), bytes);
}

/** One sector, a block at a time. */
function slowly(spec: CipherSpec, key: Uint8Array, plain: Uint8Array, sector: number): Uint8Array {
  const out = new Uint8Array(512);
  const iv = vector(spec, key, sector);
  const half = key.subarray(0, key.length / 2);
  let mask = spec.mode === "xts" ? block(key.subarray(key.length / 2), iv) : iv;
  for (let at = 0; at < 512; at += 16) {
    const piece = plain.subarray(at, at + 16);
    switch (spec.mode) {
      case "ecb":
        out.set(block(key, piece), at);
        break;
      case "cbc":
        mask = block(key, xor(piece, mask));
        out.set(mask, at);
        break;
      case "ctr": {
        out.set(xor(piece, block(key, mask)), at);
        const counter = BigInt.asUintN(128, BigInt(`0x${mask.toHex()}`) + 1n);
        mask = Uint8Array.fromHex(counter.toString(16).padStart(32, "0"));
        break;
      }
      case "xts": {
        out.set(xor(block(half, xor(piece, mask)), mask), at);
        const number = BigInt(`0x${mask.toReversed().toHex()}`) << 1n;
        const doubled = BigInt.asUintN(128, number) ^ (number >> 128n) * 0x87n;
        mask = Uint8Array.fromHex(doubled.toString(16).padStart(32, "0")).reverse();
      }
    }
  }
  return out;
}

const SPECS: CipherSpec[] = [];
for (const cipher of ["aes-128", "aes-192", "aes-256"] as const) {
  for (const mode of ["xts", "cbc", "ctr", "ecb"] as const) {
    SPECS.push({ cipher, mode, ivgen: "plain64" });
  }
  SPECS.push({ cipher, mode: "cbc", ivgen: "plain" });
  SPECS.push({ cipher, mode: "cbc", ivgen: "essiv", ivgenHash: "sha256" });
  SPECS.push({ cipher, mode: "xts", ivgen: "essiv", ivgenHash: "md5" });
  SPECS.push({ cipher, mode: "ctr", ivgen: "essiv", ivgenHash: "sm3" });
}

for (const spec of SPECS) {
  const { mode, ivgen, ivgenHash = "" } = spec;
  Deno.test(`sectors are what a block at a time makes of them: ${spec.cipher} ${mode} ${ivgen} ${ivgenHash}`, () => {
    const key = KEY.subarray(0, masterKeyBytes(spec));
    const random = new Random(1);
    // Several chunks, and a border of 32 bits within.
    const sectors = 600;
    const first = 2 ** 32 - 290;
    const plain = random.bytes(sectors * 512);
    const sealed = new Uint8Array(plain.length);
    using cipher = cipherFor(spec);
    cipher.encrypt(plain, sealed, first);
    for (const i of [0, 1, 255, 256, 289, 290, 291, 599]) {
      const part = plain.subarray(i * 512, (i + 1) * 512);
      const expected = slowly(spec, key, part, first + i);
      assertEquals(sealed.slice(i * 512, (i + 1) * 512), expected, `sector ${i}`);
    }
    const opened = new Uint8Array(plain.length);
    cipher.decrypt(sealed, opened, first);
    assertEquals(opened, plain);
  });
}

Deno.test("sectors are encrypted and decrypted in place, wherever they lie in a buffer", () => {
  for (const spec of SPECS.slice(0, 4)) {
    using cipher = cipherFor(spec);
    const plain = new Random(2).bytes(3 * 512);
    const buffer = new Uint8Array(4 * 512);
    const odd = buffer.subarray(13, 13 + plain.length);
    odd.set(plain);
    cipher.encrypt(odd, odd, 5);
    assertNotEquals(new Uint8Array(odd), plain);
    assertEquals(buffer.subarray(0, 13), new Uint8Array(13));
    assertEquals(buffer.subarray(13 + plain.length), new Uint8Array(512 - 13));
    cipher.decrypt(odd, odd, 5);
    assertEquals(new Uint8Array(odd), plain);
  }
});

Deno.test("two ciphers do not disturb each other", () => {
  using one = cipherFor(SPECS[0]!);
  using two = cipherFor(SPECS[1]!);
  const plain = new Random(3).bytes(512);
  const [a, b] = [new Uint8Array(512), new Uint8Array(512)];
  one.encrypt(plain, a, 1);
  two.encrypt(plain, b, 1);
  two.decrypt(b, b, 1);
  one.decrypt(a, a, 1);
  assertEquals([a, b], [plain, plain]);
});

Deno.test("vectors are those of the LUKS reference", () => {
  // A sector whose first block is zero shows E(vector) in CBC; the vector comes out by decrypting that block.
  const shown = (spec: CipherSpec, sector: number) => {
    using cipher = cipherFor(spec);
    const bytes = new Uint8Array(512);
    cipher.encrypt(bytes, bytes, sector);
    const aes = crypto.createDecipheriv("aes-256-ecb", KEY.subarray(0, 32), null)
      .setAutoPadding(false);
    const block = new Uint8Array(aes.update(bytes.subarray(0, 16)));
    aes.final();
    return block.toHex();
  };
  const cbc = { cipher: "aes-256", mode: "cbc" } as const;
  const essiv = { ...cbc, ivgen: "essiv", ivgenHash: "sha256" } as const;
  assertEquals(shown(essiv, 0), "a73d5fb0e4041090ca6dc1b820cdaf51");
  assertEquals(shown(essiv, 1), "59a0803f448bdf6d3d3de63feaccd58a");
  assertEquals(shown(essiv, 0x100000001), "d4c6a780bfe2b87d88b87658fe0be242");
  assertEquals(
    shown({ ...cbc, ivgen: "plain" }, 0x100000001),
    "01000000000000000000000000000000",
  );
  assertEquals(
    shown({ ...cbc, ivgen: "plain64" }, 0x100000001),
    "01000000010000000000000000000000",
  );
});

Deno.test("what is no run of sectors is refused", () => {
  using cipher = cipherFor(SPECS[0]!);
  const bytes = (length: number) => new Uint8Array(length);
  assertThrows(() => cipher.encrypt(bytes(511), bytes(511), 0), RangeError);
  assertThrows(() => cipher.decrypt(bytes(1024), bytes(512), 0), RangeError);
});

Deno.test("a key of another size is refused", () => {
  const spec = { cipher: "aes-256", mode: "xts", ivgen: "plain64" } as const;
  assertThrows(() => createSectorCipher(crypto, spec, KEY.subarray(0, 32)), CryptoError);
});
