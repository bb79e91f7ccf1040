import { assertEquals, assertNotEquals } from "@std/assert";
import * as crypto from "node:crypto";
import { diffuse, mergeKey, splitKey } from "../../lib/crypto/splitter.ts";
import { Random } from "../_random.ts";

Deno.test("bytes are diffused as the LUKS reference says", () => {
  const diffused = (hash: "sha256" | "sha1") => {
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => i);
    diffuse(crypto, hash, bytes);
    return bytes.toHex();
  };
  assertEquals(
    diffused("sha256"),
    "bff51a6d513395979e3a870c8483769a5a70002e6e32c146c53e1d2edc467002" +
      "b32f0e0ffb9565b7420f28f7178244f549461806e38b750e2d47de25d70e9049",
  );
  assertEquals(
    diffused("sha1"),
    "84e066de1e0d3544386085dd64a6451af137c6f0763ce0597e836252b480a8de10feea6c299aadfc" +
      "50c93f84c57f997aad5b165e26adc93e046f03618780cc49",
  );
});

Deno.test("a split key is merged again, whatever the lengths of key and digest", () => {
  const random = new Random(1);
  for (const hash of ["md5", "sha1", "sha256", "sha512", "ripemd160", "sm3"] as const) {
    for (const length of [16, 24, 32, 48, 64]) {
      const key = random.bytes(length);
      const fill = (bytes: Uint8Array) => bytes.set(random.bytes(bytes.length));
      const material = splitKey(crypto, hash, key, 10, fill);
      assertEquals(material.length, length * 10);
      assertEquals(mergeKey(crypto, hash, material, length), key);
    }
  }
});

Deno.test("a byte of the material that changes changes all of the key", () => {
  const random = new Random(2);
  const key = random.bytes(32);
  const fill = (bytes: Uint8Array) => bytes.set(random.bytes(bytes.length));
  const material = splitKey(crypto, "sha256", key, 4000, fill);
  material[0] = material[0]! ^ 1;
  const other = mergeKey(crypto, "sha256", material, 32);
  assertNotEquals(other, key);
  assertEquals(other.filter((byte, i) => byte === key[i]).length < 8, true);
});
