/**
 * The header of LUKS version 1 (sections 1, 2 and 4 of its reference).
 *
 * @module
 */
import {
  cipherFamily,
  type CipherName,
  cipherOf,
  type CipherSpec,
  type HashName,
  isHash,
  isName,
  IV_GENERATORS,
  MODES,
} from "./algorithms.ts";
import { CryptoError } from "./error.ts";

/** Bytes of a header without key material. */
export const LUKS_HEADER_BYTES = 592;
/** Key slots of a header. */
export const LUKS_SLOTS = 8;
/** How often key material is as long as the key. */
export const STRIPES = 4000;

const MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
const SECTOR = 512;
/** Sectors that the header has for itself; key slots begin at multiples of this. */
const HEADER_SECTORS = 8;
const ACTIVE = 0x00ac71f3;
const INACTIVE = 0x0000dead;
const SLOTS_AT = 208;
const SLOT_BYTES = 48;

/** Bytes of a salt. */
export const SALT_BYTES = 32;
/** Bytes of the master key's digest. */
export const DIGEST_BYTES = 20;

/** A place for the master key under one passphrase. */
export interface LuksSlot {
  /** It holds the key. */
  readonly active: boolean;
  /** Of the passphrase. */
  readonly iterations: number;
  /** Of the passphrase, 32 bytes. */
  readonly salt: Uint8Array;
  /** Where the key material lies, bytes from the header on. */
  readonly offset: number;
}

/** What a header says. */
export interface LuksHeader extends CipherSpec {
  /** The hash of passphrases, digest and splitter. */
  readonly hash: HashName;
  /** Bytes of the master key. */
  readonly keyBytes: number;
  /** Where the payload begins, bytes from the header on; 0: in another file. */
  readonly payloadOffset: number;
  /** Of the master key, 20 bytes. */
  readonly digest: Uint8Array;
  /** Of the digest, 32 bytes. */
  readonly salt: Uint8Array;
  /** Of the digest. */
  readonly iterations: number;
  /** Name of the volume. */
  readonly uuid: string;
  /** The eight slots. */
  readonly slots: readonly LuksSlot[];
}

/** Where a header and its key slots lie. */
export interface LuksLayout {
  /** Bytes that a slot has for its key material. */
  readonly slotBytes: number;
  /** Where the payload begins, bytes. */
  readonly payloadOffset: number;
  /** Where the material of slot `index` begins, bytes. */
  slotOffset(index: number): number;
}

/** The layout for master keys of `keyBytes` bytes (section 2). */
export function luksLayout(keyBytes: number): LuksLayout {
  const slotBytes = slotSectors(keyBytes) * SECTOR;
  const slotOffset = (index: number) => HEADER_SECTORS * SECTOR + index * slotBytes;
  return { slotBytes, slotOffset, payloadOffset: slotOffset(LUKS_SLOTS) };
}

function slotSectors(keyBytes: number): number {
  return Math.ceil(Math.ceil(keyBytes * STRIPES / SECTOR) / HEADER_SECTORS) * HEADER_SECTORS;
}

/**
 * Reads a header, at least 592 bytes. With `detached` it is in a file without a
 * payload, whose place then does not bound it.
 *
 * @throws {CryptoError} for the first thing in it that is wrong, in the order of the reference.
 */
export function parseLuksHeader(bytes: Uint8Array, { detached = false } = {}): LuksHeader {
  return new HeaderReader(bytes).read(detached);
}

function refuse(field: string, message: string): never {
  throw new CryptoError(message, `LUKS ${field}`);
}

class HeaderReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(detached: boolean): LuksHeader {
    const view = this.#view;
    this.#check(detached);
    return {
      ...this.#algorithms(),
      keyBytes: view.getUint32(108),
      payloadOffset: view.getUint32(104) * SECTOR,
      digest: this.#bytes.slice(112, 112 + DIGEST_BYTES),
      salt: this.#bytes.slice(132, 132 + SALT_BYTES),
      iterations: view.getUint32(164),
      uuid: this.#text(168, 40),
      slots: Array.from({ length: LUKS_SLOTS }, (_, index) => this.#slot(index)),
    };
  }

  #slot(index: number): LuksSlot {
    const at = SLOTS_AT + SLOT_BYTES * index;
    return {
      active: this.#view.getUint32(at) === ACTIVE,
      iterations: this.#view.getUint32(at + 4),
      salt: this.#bytes.slice(at + 8, at + 8 + SALT_BYTES),
      offset: this.#view.getUint32(at + 40) * SECTOR,
    };
  }

  /** Section 4, in its order. */
  #check(detached: boolean): void {
    const view = this.#view;
    if (MAGIC.some((byte, i) => this.#bytes[i] !== byte)) {
      refuse("magic", "Volume is not in LUKS format");
    }
    const version = view.getUint16(6);
    if (version !== 1) refuse("version", `LUKS version ${version} is not supported`);
    for (
      const [at, what] of [[8, "cipher name"], [40, "cipher mode"], [72, "hash spec"]] as const
    ) {
      if (this.#bytes.subarray(at, at + 32).indexOf(0) < 0) {
        refuse(what, `LUKS header ${what} is not NUL terminated`);
      }
    }
    const payload = detached ? Infinity : view.getUint32(104);
    if (payload < HEADER_SECTORS) {
      refuse("payload offset", "LUKS payload is overlapping with the header");
    }
    if (view.getUint32(164) === 0) {
      refuse("iterations", "LUKS key iteration count is zero");
    }
    this.#checkSlots(payload);
  }

  #checkSlots(payload: number): void {
    const view = this.#view;
    const sectors = slotSectors(view.getUint32(108));
    const start = (slot: number) => view.getUint32(SLOTS_AT + SLOT_BYTES * slot + 40);
    for (let slot = 0; slot < LUKS_SLOTS; slot++) {
      const at = SLOTS_AT + SLOT_BYTES * slot;
      const state = view.getUint32(at);
      const stripes = view.getUint32(at + 44);
      const field = `key slot ${slot}`;
      if (stripes !== STRIPES) {
        refuse(field, `Keyslot ${slot} is corrupted (stripes ${stripes} != ${STRIPES})`);
      }
      if (state !== ACTIVE && state !== INACTIVE) {
        refuse(field, `Keyslot ${slot} state (active/disable) is corrupted`);
      }
      if (state === ACTIVE && view.getUint32(at + 4) === 0) {
        refuse(field, `Keyslot ${slot} iteration count is zero`);
      }
      if (start(slot) < HEADER_SECTORS) {
        refuse(field, `Keyslot ${slot} is overlapping with the LUKS header`);
      }
      if (start(slot) + sectors > payload) {
        refuse(field, `Keyslot ${slot} is overlapping with the encrypted payload`);
      }
      for (let other = slot + 1; other < LUKS_SLOTS; other++) {
        if (start(other) < start(slot) + sectors && start(slot) < start(other) + sectors) {
          refuse(field, `Keyslots ${slot} and ${other} are overlapping in the header`);
        }
      }
    }
  }

  /** The names of section 3, checked in the order of section 4. */
  #algorithms(): CipherSpec & { readonly hash: HashName } {
    const text = this.#text(40, 32);
    const [, mode = "", ivgen = "", ivgenHash] = /^([^-]*)-([^:]*)(?::(.*))?$/s.exec(text) ??
      refuse("cipher mode", `Unexpected cipher mode string format '${text}'`);
    if (ivgenHash !== undefined && !isHash(ivgenHash)) {
      refuse("cipher mode", `Hash algorithm '${ivgenHash}' not supported`);
    }
    if (!isName(MODES, mode)) refuse("cipher mode", `Cipher mode '${mode}' not supported`);
    const cipher = this.#cipher(mode === "xts");
    const hash = this.#text(72, 32);
    if (!isHash(hash)) refuse("hash", `Hash algorithm '${hash}' not supported`);
    if (!isName(IV_GENERATORS, ivgen)) {
      refuse("cipher mode", `IV generator '${ivgen}' not supported`);
    }
    if (ivgen === "essiv" && ivgenHash === undefined) {
      refuse("cipher mode", "Missing IV generator hash specification");
    }
    return { cipher, mode, ivgen, ivgenHash, hash };
  }

  #cipher(halved: boolean): CipherName {
    const family = this.#text(8, 32);
    const keyBytes = this.#view.getUint32(108);
    const cipherBytes = halved ? Math.floor(keyBytes / 2) : keyBytes;
    const cipher = cipherOf(family, cipherBytes);
    if (cipher !== undefined && (!halved || keyBytes % 2 === 0)) return cipher;
    refuse(
      "cipher name",
      `Algorithm '${family}' with key size ${cipherBytes} bytes not supported`,
    );
  }

  #text(at: number, length: number): string {
    const field = this.#bytes.subarray(at, at + length);
    const end = field.indexOf(0);
    return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
  }
}

/** The bytes of a header. */
export function encodeLuksHeader(header: LuksHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  const text = (at: number, value: string) => bytes.set(new TextEncoder().encode(value), at);
  bytes.set(MAGIC);
  view.setUint16(6, 1);
  text(8, cipherFamily(header.cipher));
  text(40, cipherModeText(header));
  text(72, header.hash);
  view.setUint32(104, header.payloadOffset / SECTOR);
  view.setUint32(108, header.keyBytes);
  bytes.set(header.digest, 112);
  bytes.set(header.salt, 132);
  view.setUint32(164, header.iterations);
  text(168, header.uuid);
  header.slots.forEach((slot, index) => bytes.set(encodeLuksSlot(slot), luksSlotAt(index)));
  return bytes;
}

function cipherModeText({ mode, ivgen, ivgenHash }: CipherSpec): string {
  return ivgenHash === undefined ? `${mode}-${ivgen}` : `${mode}-${ivgen}:${ivgenHash}`;
}

/** Where slot `index` is in a header, bytes. */
export function luksSlotAt(index: number): number {
  return SLOTS_AT + SLOT_BYTES * index;
}

/** The bytes of a slot in a header. Its first four say whether it is active. */
export function encodeLuksSlot(slot: LuksSlot): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SLOT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, slot.active ? ACTIVE : INACTIVE);
  view.setUint32(4, slot.iterations);
  bytes.set(slot.salt, 8);
  view.setUint32(40, slot.offset / SECTOR);
  view.setUint32(44, STRIPES);
  return bytes;
}

/** What `info` shows of a slot. */
export type LuksSlotDetails =
  | { readonly active: false; readonly "key-offset": number }
  | {
    readonly active: true;
    readonly iters: number;
    readonly "key-offset": number;
    readonly stripes: number;
  };

/** What `info` shows of a header, in its order; `format` comes after the uuid where it is told. */
export function luksDetails(
  header: LuksHeader,
  format?: string,
): {
  readonly [key: string]: string | number | boolean | readonly LuksSlotDetails[];
} {
  return {
    "ivgen-alg": header.ivgen,
    "detached-header": header.payloadOffset === 0,
    "hash-alg": header.hash,
    "cipher-alg": header.cipher,
    uuid: header.uuid,
    ...(header.ivgen === "essiv" ? { "ivgen-hash-alg": header.ivgenHash! } : {}),
    ...(format === undefined ? {} : { format }),
    "cipher-mode": header.mode,
    slots: header.slots.map(slotDetails),
    "payload-offset": header.payloadOffset,
    "master-key-iters": header.iterations,
  };
}

function slotDetails({ active, iterations, offset }: LuksSlot): LuksSlotDetails {
  return active
    ? { active, iters: iterations, "key-offset": offset, stripes: STRIPES }
    : { active, "key-offset": offset };
}
