/**
 * LUKS volumes: opening and making them, and their key slots (sections 3, 5 and
 * 6 of the LUKS reference).
 *
 * @module
 */
import { type CipherSpec, type HashName, masterKeyBytes, requireSupported } from "./algorithms.ts";
import { CryptoError } from "./error.ts";
import { deriveKey, iterationsFor, iterationsPerSecond } from "./key_derivation.ts";
import {
  DIGEST_BYTES,
  encodeLuksHeader,
  encodeLuksSlot,
  LUKS_HEADER_BYTES,
  LUKS_SLOTS,
  type LuksHeader,
  luksLayout,
  type LuksSlot,
  luksSlotAt,
  parseLuksHeader,
  SALT_BYTES,
  STRIPES,
} from "./luks_header.ts";
import { loadNodeCrypto } from "./node_crypto.ts";
import { createSectorCipher, type SectorCipher } from "./sector_cipher.ts";
import { mergeKey, type RandomSource, splitKey } from "./splitter.ts";

/** Where a header and its key material are kept. Offsets are bytes from the header's first one. */
export interface LuksStore {
  /** Fills `into`; what is not there reads as zeros. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Writes all of `from`. */
  write(offset: number, from: Uint8Array): Promise<void>;
  /** What was written before reaches the disk before what is written later. */
  barrier(): Promise<void>;
}

/** How long a new passphrase takes to try, unless told: milliseconds. */
export const DEFAULT_ITER_TIME = 2000n;

const SECTOR = 512;
/** How often erased key material is written over. */
const ERASURES = 40;

/** How a volume is to be encrypted. */
export interface LuksParameters extends CipherSpec {
  /** The hash of passphrases, digest and splitter. */
  readonly hash: HashName;
  /** How long its passphrase is to take to try, milliseconds. */
  readonly iterTime: bigint;
}

/** What is drawn by lot or measured, for tests to say. */
export interface LuksSources {
  /** Random bytes. */
  readonly random?: RandomSource;
  /** Names of volumes. */
  readonly uuid?: () => string;
  /** Iterations of a key of some length in a second. */
  readonly speed?: (hash: HashName, length: number) => Promise<number>;
}

const SOURCES: Required<LuksSources> = {
  random(bytes) {
    // The platform gives so many at a time.
    for (let at = 0; at < bytes.length; at += 65536) {
      crypto.getRandomValues(bytes.subarray(at, at + 65536) as Uint8Array<ArrayBuffer>);
    }
  },
  uuid: () => crypto.randomUUID(),
  speed: iterationsPerSecond,
};

/** An open volume: its header and its master key. */
export class LuksVolume {
  readonly #store: LuksStore;
  readonly #masterKey: Uint8Array;
  readonly #sources: Required<LuksSources>;
  #header: LuksHeader;

  private constructor(
    store: LuksStore,
    header: LuksHeader,
    masterKey: Uint8Array,
    sources: LuksSources,
  ) {
    this.#store = store;
    this.#header = header;
    this.#masterKey = masterKey;
    this.#sources = { ...SOURCES, ...sources };
  }

  /** What the header says now. */
  get header(): LuksHeader {
    return this.#header;
  }

  /**
   * Opens a volume with a passphrase.
   *
   * @throws {CryptoError} for a header that cannot be used, and a passphrase that fits no slot.
   */
  static async open(
    store: LuksStore,
    passphrase: Uint8Array,
    { detached = false, maxIterations = Infinity, ...sources }: LuksSources & {
      /** The payload is in another file. */
      readonly detached?: boolean;
      /** Refuse slots that take more iterations. */
      readonly maxIterations?: number;
    } = {},
  ): Promise<LuksVolume> {
    const bytes = new Uint8Array(LUKS_HEADER_BYTES);
    await store.read(0, bytes);
    const header = parseLuksHeader(bytes, { detached });
    requireSupported(header);
    requireText(passphrase);
    requireIterations(header, maxIterations);
    for (const slot of header.slots) {
      const masterKey = await unlockSlot(store, header, slot, passphrase);
      if (masterKey !== undefined) return new LuksVolume(store, header, masterKey, sources);
    }
    throw new CryptoError("Invalid password, cannot unlock any keyslot", "passphrase");
  }

  /**
   * Makes a volume: writes a header and one key slot to a store that is all
   * zeros up to `payloadOffset` of {@linkcode luksLayout}. The header comes last.
   *
   * @throws {CryptoError} for algorithms and times that cannot be used.
   */
  static async create(
    store: LuksStore,
    parameters: LuksParameters,
    passphrase: Uint8Array,
    { detached = false, ...given }: LuksSources & { readonly detached?: boolean } = {},
  ): Promise<LuksVolume> {
    requireCreatable(parameters);
    requireText(passphrase);
    const sources = { ...SOURCES, ...given };
    const { cipher, mode, ivgen, ivgenHash, hash, iterTime } = parameters;
    const keyBytes = masterKeyBytes(parameters);
    const layout = luksLayout(keyBytes);
    const uuid = sources.uuid();
    const salt = randomBytes(sources, SALT_BYTES);
    const masterKey = randomBytes(sources, keyBytes);
    const speed = await sources.speed(hash, DIGEST_BYTES);
    // The digest only tells right keys from wrong ones: an eighth of the time is enough.
    const iterations = iterationsFor(speed, iterTime, 8);
    const digest = await deriveKey({
      hash,
      secret: masterKey,
      salt,
      iterations,
      length: DIGEST_BYTES,
    });
    const header: LuksHeader = {
      cipher,
      mode,
      ivgen,
      ivgenHash,
      hash,
      keyBytes,
      payloadOffset: detached ? 0 : layout.payloadOffset,
      digest,
      salt,
      iterations,
      uuid,
      slots: Array.from({ length: LUKS_SLOTS }, (_, index) => ({
        active: false,
        iterations: 0,
        salt: new Uint8Array(SALT_BYTES),
        offset: layout.slotOffset(index),
      })),
    };
    const volume = new LuksVolume(store, header, masterKey, sources);
    const slot = await volume.#newSlot(0, passphrase, iterTime);
    volume.#replace(0, slot);
    await store.write(0, encodeLuksHeader(volume.#header));
    return volume;
  }

  /** A cipher of the payload, which the caller disposes of. */
  async cipher(): Promise<SectorCipher> {
    return createSectorCipher(await loadNodeCrypto(), this.#header, this.#masterKey);
  }

  /** What that cipher is made of. */
  get recipe(): { readonly cipher: CipherSpec; readonly key: Uint8Array } {
    const { cipher, mode, ivgen, ivgenHash } = this.#header;
    return { cipher: { cipher, mode, ivgen, ivgenHash }, key: this.#masterKey };
  }

  /** Whether a slot is active and its passphrase is this. */
  async slotOpens(index: number, passphrase: Uint8Array): Promise<boolean> {
    const slot = this.#header.slots[index]!;
    return await unlockSlot(this.#store, this.#header, slot, passphrase) !== undefined;
  }

  /**
   * Puts the master key into a slot that is not active under a passphrase, which
   * takes `iterTime` milliseconds to try. Ended anywhere, the slot is as it was,
   * or active.
   */
  async fillSlot(index: number, passphrase: Uint8Array, iterTime: bigint): Promise<void> {
    requireText(passphrase);
    const slot = await this.#newSlot(index, passphrase, iterTime);
    await this.#activate(index, slot);
  }

  /**
   * Makes a slot inactive and destroys its key material. Ended anywhere, the slot
   * is as it was, or inactive.
   */
  async eraseSlot(index: number): Promise<void> {
    const old = this.#header.slots[index]!;
    const slot: LuksSlot = {
      active: false,
      iterations: 0,
      salt: new Uint8Array(SALT_BYTES),
      offset: old.offset,
    };
    const store = this.#store;
    // The state first and by itself: slot 6 lies in two sectors, of which one may be lost.
    await store.write(luksSlotAt(index), encodeLuksSlot({ ...old, active: false }).subarray(0, 4));
    await store.barrier();
    this.#replace(index, slot);
    await store.write(luksSlotAt(index), encodeLuksSlot(slot));
    const garbage = new Uint8Array(this.#header.keyBytes * STRIPES);
    for (let times = 0; times < ERASURES; times++) {
      this.#sources.random(garbage);
      await store.write(slot.offset, garbage);
      // Or all but the last would stay in a cache.
      await store.barrier();
    }
  }

  /** Writes a slot's new key material; what the header is to say of it. */
  async #newSlot(index: number, passphrase: Uint8Array, iterTime: bigint): Promise<LuksSlot> {
    const { hash, slots } = this.#header;
    const slot: LuksSlot = {
      active: true,
      iterations: await this.#slotIterations(index, iterTime),
      salt: randomBytes(this.#sources, SALT_BYTES),
      offset: slots[index]!.offset,
    };
    using cipher = await slotCipher(this.#header, slot, passphrase);
    const { random } = this.#sources;
    const node = await loadNodeCrypto();
    const material = splitKey(node, hash, this.#masterKey, STRIPES, random);
    const sectors = wholeSectors(material);
    cipher.encrypt(sectors, sectors, 0);
    await this.#store.write(slot.offset, sectors);
    return slot;
  }

  async #slotIterations(index: number, iterTime: bigint): Promise<number> {
    const { hash, keyBytes } = this.#header;
    const speed = await this.#sources.speed(hash, keyBytes);
    try {
      return iterationsFor(speed, iterTime);
    } catch (error) {
      if (!(error instanceof CryptoError)) throw error;
      throw new CryptoError(error.message, error.field, `Failed to write to keyslot ${index}`);
    }
  }

  /** Lets the header name a slot's new key material. */
  async #activate(index: number, slot: LuksSlot): Promise<void> {
    const store = this.#store;
    const bytes = encodeLuksSlot(slot);
    await store.barrier();
    // What lies in another sector than the state has to be there before it.
    await store.write(luksSlotAt(index), encodeLuksSlot({ ...slot, active: false }));
    await store.barrier();
    await store.write(luksSlotAt(index), bytes.subarray(0, 4));
    await store.barrier();
    this.#replace(index, slot);
  }

  #replace(index: number, slot: LuksSlot): void {
    this.#header = { ...this.#header, slots: this.#header.slots.with(index, slot) };
  }
}

/**
 * Refuses what no volume can be made with.
 *
 * @throws {CryptoError} in the reference's words where it has any.
 */
export function requireCreatable(spec: CipherSpec): void {
  requireSupported(spec);
  // Its material is no whole number of sectors, at which the reference ends itself.
  if (masterKeyBytes(spec) * STRIPES % SECTOR !== 0) {
    throw new CryptoError(
      `Algorithm '${spec.cipher}' not supported in mode ${spec.mode}`,
      "cipher-mode",
    );
  }
}

/** The reference takes passphrases for text. */
function requireText(passphrase: Uint8Array): void {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(passphrase);
  } catch {
    throw new CryptoError("Data from secret is not valid UTF-8", "passphrase");
  }
}

function requireIterations(header: LuksHeader, most: number): void {
  const used = header.slots.filter(({ active }) => active).map(({ iterations }) => iterations);
  const highest = Math.max(header.iterations, ...used);
  if (highest <= most) return;
  throw new CryptoError(`${highest} iterations of a key are more than ${most}`, "LUKS iterations");
}

/** The master key, if a slot is active and has it under this passphrase. */
async function unlockSlot(
  store: LuksStore,
  header: LuksHeader,
  slot: LuksSlot,
  passphrase: Uint8Array,
): Promise<Uint8Array | undefined> {
  if (!slot.active) return undefined;
  const { hash, keyBytes, salt, iterations, digest } = header;
  using cipher = await slotCipher(header, slot, passphrase);
  const sectors = new Uint8Array(Math.ceil(keyBytes * STRIPES / SECTOR) * SECTOR);
  await store.read(slot.offset, sectors);
  cipher.decrypt(sectors, sectors, 0);
  const material = sectors.subarray(0, keyBytes * STRIPES);
  const node = await loadNodeCrypto();
  const masterKey = mergeKey(node, hash, material, keyBytes);
  const found = await deriveKey({
    hash,
    secret: masterKey,
    salt,
    iterations,
    length: DIGEST_BYTES,
  });
  return node.timingSafeEqual(found, digest) ? masterKey : undefined;
}

async function slotCipher(
  header: LuksHeader,
  { salt, iterations }: LuksSlot,
  passphrase: Uint8Array,
): Promise<SectorCipher> {
  const { hash, keyBytes } = header;
  const key = await deriveKey({ hash, secret: passphrase, salt, iterations, length: keyBytes });
  return createSectorCipher(await loadNodeCrypto(), header, key);
}

/** Material of keys whose stripes do not fill sectors goes up to the end of the last one. */
function wholeSectors(material: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (material.length % SECTOR === 0) return material;
  const sectors = new Uint8Array(Math.ceil(material.length / SECTOR) * SECTOR);
  sectors.set(material);
  return sectors;
}

function randomBytes({ random }: Required<LuksSources>, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  random(bytes);
  return bytes;
}
