import { assert, assertEquals, assertThrows } from "@std/assert";
import { pbkdf2Sync } from "node:crypto";
import { HASHES, type HashName } from "../../lib/crypto/algorithms.ts";
import { CryptoError } from "../../lib/crypto/error.ts";
import {
  deriveKey,
  iterationsFor,
  iterationsPerSecond,
  measureIterations,
} from "../../lib/crypto/key_derivation.ts";
import { bytesOf } from "./_luks.ts";

for (const hash of Object.keys(HASHES) as HashName[]) {
  Deno.test(`keys are derived with ${hash}`, async () => {
    for (const [text, length] of [["password", 20], ["", 64], ["x".repeat(200), 33]] as const) {
      const [secret, salt] = [bytesOf(text), bytesOf("salt")];
      const key = await deriveKey({ hash, secret, salt, iterations: 1000, length });
      assertEquals(
        key,
        new Uint8Array(pbkdf2Sync(secret, salt, 1000, length, hash)),
        `${text.length} bytes to ${length}`,
      );
    }
  });
}

Deno.test("PBKDF2 is that of RFC 6070", async () => {
  const key = await deriveKey({
    hash: "sha1",
    secret: bytesOf("password"),
    salt: bytesOf("salt"),
    iterations: 4096,
    length: 20,
  });
  assertEquals(key.toHex(), "4b007901b765489abead49d926f721d065a429c1");
});

Deno.test("iterations are scaled to the time, down to a thousand", () => {
  assertEquals(iterationsFor(4_000_000, 2000n), 8_000_000);
  assertEquals(iterationsFor(4_000_000, 2000n, 8), 1_000_000);
  assertEquals(iterationsFor(4_000_001, 1n), 4000);
  assertEquals(iterationsFor(4_000_000, 0n), 1000);
});

Deno.test("iterations that no header can hold are refused", () => {
  const tooMany = assertThrows(() => iterationsFor(4_000_000, 2_000_000n), CryptoError);
  assertEquals(
    tooMany.message,
    "PBKDF iterations 8000000000 larger than 4294967295: Numerical result out of range",
  );
  const beyond = assertThrows(() => iterationsFor(4_000_000, 2n ** 63n), CryptoError);
  assertEquals(
    beyond.message,
    "PBKDF iterations 4000000 too large to scale: Numerical result out of range",
  );
});

Deno.test("the speed of this machine can be measured, and longer keys take longer", async () => {
  const [short, long] = [
    await measureIterations("sha256", 20),
    await measureIterations("sha256", 200),
  ];
  assert(Number.isInteger(short) && short > 1000, `${short}`);
  // Seven digests instead of one; a busy machine is not to fail the test.
  assert(long < short, `${long} of 200 bytes, ${short} of 20`);
});

Deno.test("what was measured is not measured again", async () => {
  const first = await iterationsPerSecond("sha256", 20);
  // Two measurements are hardly ever equal to the last digit.
  for (let i = 0; i < 3; i++) assertEquals(await iterationsPerSecond("sha256", 20), first);
  assert(await iterationsPerSecond("sha256", 200) < first);
});
