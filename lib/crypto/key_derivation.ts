/**
 * From passphrases to keys: PBKDF2, and how many iterations take how long
 * (sections 3 and 5 of the LUKS reference).
 *
 * @module
 */
import type { HashName } from "./algorithms.ts";
import { CryptoError } from "./error.ts";
import { loadNodeCrypto } from "./node_crypto.ts";

/** What a key is derived from. */
export interface Derivation {
  /** Its hash. */
  readonly hash: HashName;
  /** The passphrase, or a key. */
  readonly secret: Uint8Array;
  /** Salt. */
  readonly salt: Uint8Array;
  /** How many iterations, 1 to 2^32 - 1. */
  readonly iterations: number;
  /** How many bytes. */
  readonly length: number;
}

/** Hashes that the browser interface has, several times as fast as the other one. */
const SUBTLE: Partial<Record<HashName, string>> = {
  sha1: "SHA-1",
  sha256: "SHA-256",
  sha384: "SHA-384",
  sha512: "SHA-512",
};

/**
 * PBKDF2-HMAC. It works on a thread of its own, so signals are heard, but once
 * begun it cannot be stopped.
 */
export async function deriveKey(
  { hash, secret, salt, iterations, length }: Derivation,
): Promise<Uint8Array<ArrayBuffer>> {
  const name = SUBTLE[hash];
  if (name !== undefined) {
    const { subtle } = globalThis.crypto;
    const key = await subtle.importKey("raw", plain(secret), "PBKDF2", false, ["deriveBits"]);
    const parameters = { name: "PBKDF2", hash: name, salt: plain(salt), iterations };
    return new Uint8Array(await subtle.deriveBits(parameters, key, length * 8));
  }
  const { pbkdf2 } = await loadNodeCrypto();
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
  pbkdf2(secret, salt, iterations, length, hash, (error, key) => {
    if (error) reject(error);
    else resolve(new Uint8Array(key));
  });
  return await promise;
}

/** The type says that a view may be on shared memory, which keys never are. */
function plain(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes as Uint8Array<ArrayBuffer>;
}

/** How often the speed is measured before it is given up. */
const MOST_MEASUREMENTS = 7;

/**
 * How many iterations a second of the processor's time has, for keys of
 * `length` bytes. Takes about a second.
 *
 * @throws {CryptoError} if the clock does not say.
 */
export async function measureIterations(hash: HashName, length: number): Promise<number> {
  let iterations = 1 << 15;
  const [secret, salt] = [new Uint8Array(8), new Uint8Array(32)];
  for (let measured = 0; measured < MOST_MEASUREMENTS; measured++) {
    const taken = await timeOf(() => deriveKey({ hash, secret, salt, iterations, length }));
    if (taken > 500) return Math.floor(iterations * 1000 / taken);
    iterations = taken < 100 ? iterations * 10 : Math.floor(iterations * 1000 / taken);
  }
  throw new CryptoError("Unable to get accurate CPU usage", "iter-time");
}

/** Speeds by hash and length, as far as they were measured. */
const speeds = new Map<string, Promise<number>>();

/**
 * As {@linkcode measureIterations}, but a process that makes many keys measures once: its processor does
 * not change.
 *
 * @throws {CryptoError} if the clock does not say.
 */
export function iterationsPerSecond(hash: HashName, length: number): Promise<number> {
  const name = `${hash} ${length}`;
  let speed = speeds.get(name);
  if (speed === undefined) {
    speed = measureIterations(hash, length);
    speeds.set(name, speed);
    // The next one may have more luck.
    speed.catch(() => speeds.delete(name));
  }
  return speed;
}

/**
 * Milliseconds of work. The process' own time where there is one to ask for: a busy machine would make
 * the key a weak one. This thread does nothing meanwhile; should others do, the clock on the wall is less.
 */
async function timeOf(body: () => Promise<unknown>): Promise<number> {
  const { cpuUsage } = await import("node:process");
  const before = performance.now();
  const used = cpuUsage();
  await body();
  const { user, system } = cpuUsage(used);
  return Math.min(performance.now() - before, (user + system) / 1000);
}

/** The fewest iterations, however short the time. */
const FEWEST_ITERATIONS = 1000;
const MOST_ITERATIONS = 2 ** 32 - 1;

/**
 * The iterations for `milliseconds` at a speed, a `share` of them.
 *
 * @throws {CryptoError} above what a header can say.
 */
export function iterationsFor(speed: number, milliseconds: bigint, share = 1): number {
  const scaled = BigInt(speed) * milliseconds;
  if (scaled >= 2n ** 64n) {
    throw new CryptoError(
      `PBKDF iterations ${speed} too large to scale: Numerical result out of range`,
      "iter-time",
    );
  }
  const iterations = Number(scaled / 1000n / BigInt(share));
  if (iterations > MOST_ITERATIONS) {
    throw new CryptoError(
      `PBKDF iterations ${iterations} larger than ${MOST_ITERATIONS}: Numerical result out of range`,
      "iter-time",
    );
  }
  return Math.max(iterations, FEWEST_ITERATIONS);
}
