/**
 * Encryption of disks in sectors of 512 bytes, each on its own under the
 * initialization vector of its number (section 3 of the LUKS reference).
 *
 * The platform has AES for single blocks (ECB) that is fast in bulk, and modes
 * that are slow a sector at a time. So all modes are composed of bulk ECB over
 * many sectors at once: XTS and CTR need nothing else, CBC decrypts all blocks
 * and chains afterwards, and encrypts block by block of all sectors side by side.
 *
 * @module
 */
import { moveTo } from "../bytes/move.ts";
import { CHUNK, SECTOR, sharedWorkspace, type Workspace } from "./_simd.ts";
import {
  type CipherSpec,
  essivKeyBytes,
  type IvGeneratorName,
  masterKeyBytes,
  requireSupported,
} from "./algorithms.ts";
import { CryptoError } from "./error.ts";
import type { NodeCrypto } from "./node_crypto.ts";

/** Bytes of an AES block. */
const BLOCK = 16;
const BLOCKS = SECTOR / BLOCK;

/**
 * Encrypts and decrypts whole sectors. Synchronous; no object serves two threads. Disposing of it frees what
 * the platform holds for it; it is of no use afterwards.
 */
export interface SectorCipher extends Disposable {
  /**
   * Encrypts `from`, whose first sector has the number `sector`, to `into`, which
   * is as long and may be `from` itself, but must not overlap it otherwise.
   *
   * @throws {RangeError} unless both are whole sectors of one length.
   */
  encrypt(from: Uint8Array, into: Uint8Array, sector: number): void;
  /** Decrypts likewise. */
  decrypt(from: Uint8Array, into: Uint8Array, sector: number): void;
}

/**
 * The cipher that a spec describes, with its key.
 *
 * @throws {CryptoError} for algorithms that are not supported, and a key of the wrong size.
 */
export function createSectorCipher(
  crypto: NodeCrypto,
  spec: CipherSpec,
  key: Uint8Array,
): SectorCipher {
  requireSupported(spec);
  if (key.length !== masterKeyBytes(spec)) {
    throw new CryptoError(
      `A key of ${key.length} bytes does not fit ${spec.cipher} in mode ${spec.mode}`,
      "key",
    );
  }
  const ciphers = new DisposableStack();
  return new ChunkedCipher(createMode(crypto, spec, key, ciphers), ciphers);
}

/** A mode of operation over the sectors in a workspace. */
interface Mode {
  /** Encrypts or decrypts the first `bytes` of the workspace's data in place. */
  encrypt(workspace: Workspace, bytes: number, sector: number): void;
  decrypt(workspace: Workspace, bytes: number, sector: number): void;
}

/** Takes sectors through the workspace, as many as fit at a time. */
class ChunkedCipher implements SectorCipher {
  readonly #mode: Mode;
  readonly #ciphers: Disposable;
  readonly #workspace = sharedWorkspace();

  /** With the ciphers that the mode uses. */
  constructor(mode: Mode, ciphers: Disposable) {
    this.#mode = mode;
    this.#ciphers = ciphers;
  }

  encrypt(from: Uint8Array, into: Uint8Array, sector: number): void {
    this.#run("encrypt", from, into, sector);
  }

  decrypt(from: Uint8Array, into: Uint8Array, sector: number): void {
    this.#run("decrypt", from, into, sector);
  }

  #run(what: "encrypt" | "decrypt", from: Uint8Array, into: Uint8Array, sector: number): void {
    if (from.length % SECTOR !== 0 || from.length !== into.length) {
      throw new RangeError(`${from.length} and ${into.length} bytes are no equal runs of sectors`);
    }
    const { data } = this.#workspace;
    for (let at = 0; at < from.length; at += CHUNK) {
      const bytes = Math.min(CHUNK, from.length - at);
      data.set(from.subarray(at, at + bytes));
      this.#mode[what](this.#workspace, bytes, sector + at / SECTOR);
      into.set(data.subarray(0, bytes), at);
    }
  }

  [Symbol.dispose](): void {
    this.#ciphers[Symbol.dispose]();
  }
}

/** AES on blocks, each for itself. */
class BlockCipher implements Disposable {
  readonly #crypto: NodeCrypto;
  readonly #key: Uint8Array;
  #encrypting: ReturnType<NodeCrypto["createCipheriv"]> | undefined;
  #decrypting: ReturnType<NodeCrypto["createDecipheriv"]> | undefined;

  constructor(crypto: NodeCrypto, key: Uint8Array) {
    this.#crypto = crypto;
    this.#key = key;
  }

  get #name(): string {
    return `aes-${this.#key.length * 8}-ecb`;
  }

  /** Encrypts blocks to the begin of `into`, which may be where they are. */
  encrypt(blocks: Uint8Array, into: Uint8Array): void {
    // Without padding there is no state between calls.
    this.#encrypting ??= ofWholeBlocks(
      this.#crypto.createCipheriv(this.#name, this.#key, null).setAutoPadding(false),
    );
    moveTo(into, this.#encrypting.update(blocks));
  }

  /** Decrypts likewise. */
  decrypt(blocks: Uint8Array, into: Uint8Array): void {
    this.#decrypting ??= ofWholeBlocks(
      this.#crypto.createDecipheriv(this.#name, this.#key, null).setAutoPadding(false),
    );
    moveTo(into, this.#decrypting.update(blocks));
  }

  /** The platform frees a cipher at its end, and not when it is collected. */
  [Symbol.dispose](): void {
    this.#encrypting?.final();
    this.#decrypting?.final();
  }
}

/**
 * Has a cipher take what it is given as it is. Deno's copies all of it first, lest a block come in two parts,
 * and only the collector frees the copies: 64 MiB in every thread. Where there is no such switch it copies on.
 */
function ofWholeBlocks<T extends object>(cipher: T): T {
  if ("_needsBlockCache" in cipher) cipher._needsBlockCache = false;
  return cipher;
}

function createMode(
  crypto: NodeCrypto,
  spec: CipherSpec,
  key: Uint8Array,
  ciphers: DisposableStack,
): Mode {
  const aes = (bytes: Uint8Array) => ciphers.use(new BlockCipher(crypto, bytes));
  if (spec.mode === "ecb") return new EcbMode(aes(key));
  const essiv = essivKey(crypto, spec, key);
  const vectors = new Vectors(spec.ivgen, essiv && aes(essiv));
  switch (spec.mode) {
    case "xts": {
      const half = key.length / 2;
      const [data, masks] = [key.subarray(0, half), key.subarray(half)];
      return new XtsMode(aes(data), aes(masks), vectors);
    }
    case "cbc":
      return new CbcMode(aes(key), vectors);
    case "ctr":
      return new CtrMode(aes(key), vectors);
  }
}

/** The key that makes vectors of ESSIV from the others; `undefined` with another generator. */
function essivKey(
  crypto: NodeCrypto,
  spec: CipherSpec,
  key: Uint8Array,
): Uint8Array | undefined {
  if (spec.ivgen !== "essiv") return undefined;
  const digest = crypto.createHash(spec.ivgenHash!).update(key).digest();
  return digest.subarray(0, essivKeyBytes(spec));
}

/** The initialization vectors of sectors. */
class Vectors {
  readonly #wide: boolean;
  readonly #essiv: BlockCipher | undefined;
  readonly #bytes = new Uint8Array(CHUNK / SECTOR * BLOCK);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #encrypted = new Uint8Array(this.#bytes.length);

  constructor(generator: IvGeneratorName, essiv: BlockCipher | undefined) {
    this.#wide = generator !== "plain";
    this.#essiv = essiv;
  }

  /** The vectors of `count` sectors from the one with the number `sector` on. Valid until the next call. */
  of(sector: number, count: number): Uint8Array {
    const view = this.#view;
    for (let i = 0; i < count; i++) {
      const number = sector + i;
      view.setUint32(i * BLOCK, number >>> 0, true);
      view.setUint32(i * BLOCK + 4, this.#wide ? Math.floor(number / 2 ** 32) : 0, true);
    }
    const vectors = this.#bytes.subarray(0, count * BLOCK);
    if (this.#essiv === undefined) return vectors;
    this.#essiv.encrypt(vectors, this.#encrypted);
    return this.#encrypted.subarray(0, vectors.length);
  }
}

class EcbMode implements Mode {
  readonly #cipher: BlockCipher;

  constructor(cipher: BlockCipher) {
    this.#cipher = cipher;
  }

  encrypt({ data }: Workspace, bytes: number): void {
    this.#cipher.encrypt(data.subarray(0, bytes), data);
  }

  decrypt({ data }: Workspace, bytes: number): void {
    this.#cipher.decrypt(data.subarray(0, bytes), data);
  }
}

class XtsMode implements Mode {
  readonly #cipher: BlockCipher;
  readonly #masks: BlockCipher;
  readonly #vectors: Vectors;

  constructor(cipher: BlockCipher, masks: BlockCipher, vectors: Vectors) {
    this.#cipher = cipher;
    this.#masks = masks;
    this.#vectors = vectors;
  }

  encrypt(workspace: Workspace, bytes: number, sector: number): void {
    this.#run("encrypt", workspace, bytes, sector);
  }

  decrypt(workspace: Workspace, bytes: number, sector: number): void {
    this.#run("decrypt", workspace, bytes, sector);
  }

  #run(what: "encrypt" | "decrypt", workspace: Workspace, bytes: number, sector: number): void {
    const { data, seeds } = workspace;
    this.#masks.encrypt(this.#vectors.of(sector, bytes / SECTOR), seeds);
    workspace.mask(bytes);
    this.#cipher[what](data.subarray(0, bytes), data);
    workspace.xor(bytes);
  }
}

class CbcMode implements Mode {
  readonly #cipher: BlockCipher;
  readonly #vectors: Vectors;
  /** One block of every sector, as words. */
  readonly #column = new Int32Array(CHUNK / BLOCKS / 4);
  readonly #columnBytes = new Uint8Array(this.#column.buffer);

  constructor(cipher: BlockCipher, vectors: Vectors) {
    this.#cipher = cipher;
    this.#vectors = vectors;
  }

  /** Every block waits for its predecessor, but not for other sectors: their n-th blocks go together. */
  encrypt({ data }: Workspace, bytes: number, sector: number): void {
    const sectors = bytes / SECTOR;
    const words = new Int32Array(data.buffer, data.byteOffset, bytes / 4);
    const column = this.#column;
    const columnBytes = this.#columnBytes.subarray(0, sectors * BLOCK);
    columnBytes.set(this.#vectors.of(sector, sectors));
    for (let block = 0; block < BLOCKS; block++) {
      let at = block * BLOCK / 4;
      for (let i = 0; i < sectors * 4; i += 4, at += SECTOR / 4) {
        column[i] = column[i]! ^ words[at]!;
        column[i + 1] = column[i + 1]! ^ words[at + 1]!;
        column[i + 2] = column[i + 2]! ^ words[at + 2]!;
        column[i + 3] = column[i + 3]! ^ words[at + 3]!;
      }
      this.#cipher.encrypt(columnBytes, columnBytes);
      at = block * BLOCK / 4;
      for (let i = 0; i < sectors * 4; i += 4, at += SECTOR / 4) {
        words[at] = column[i]!;
        words[at + 1] = column[i + 1]!;
        words[at + 2] = column[i + 2]!;
        words[at + 3] = column[i + 3]!;
      }
    }
  }

  decrypt(workspace: Workspace, bytes: number, sector: number): void {
    const { data, masks } = workspace;
    // Before each block belongs its predecessor, and the sector's vector before its first one.
    masks.set(data.subarray(0, bytes - BLOCK), BLOCK);
    const vectors = this.#vectors.of(sector, bytes / SECTOR);
    for (let i = 0; i < bytes / SECTOR; i++) {
      masks.set(vectors.subarray(i * BLOCK, (i + 1) * BLOCK), i * SECTOR);
    }
    this.#cipher.decrypt(data.subarray(0, bytes), data);
    workspace.xor(bytes);
  }
}

class CtrMode implements Mode {
  readonly #cipher: BlockCipher;
  readonly #vectors: Vectors;

  constructor(cipher: BlockCipher, vectors: Vectors) {
    this.#cipher = cipher;
    this.#vectors = vectors;
  }

  encrypt(workspace: Workspace, bytes: number, sector: number): void {
    const { masks } = workspace;
    const vectors = this.#vectors.of(sector, bytes / SECTOR);
    for (let i = 0; i < bytes / SECTOR; i++) {
      const counter = masks.subarray(i * SECTOR, (i + 1) * SECTOR);
      counter.set(vectors.subarray(i * BLOCK, (i + 1) * BLOCK));
      for (let at = BLOCK; at < SECTOR; at += BLOCK) {
        counter.copyWithin(at, at - BLOCK, at);
        increment(counter, at);
      }
    }
    this.#cipher.encrypt(masks.subarray(0, bytes), masks);
    workspace.xor(bytes);
  }

  decrypt(workspace: Workspace, bytes: number, sector: number): void {
    this.encrypt(workspace, bytes, sector);
  }
}

/** Adds 1 to the big-endian number in the block at `at`. */
function increment(bytes: Uint8Array, at: number): void {
  for (let i = at + BLOCK - 1; i >= at; i--) {
    bytes[i] = bytes[i]! + 1;
    if (bytes[i] !== 0) return;
  }
}
