/**
 * Encrypted images: what their headers tell without a key. They cannot be
 * read or written yet.
 *
 * @module
 */
import type { InfoValue } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "./_read.ts";
import type { Qcow2Header } from "./header.ts";

/** Bytes of a LUKS header without key material. */
const LUKS_HEADER = 592;
const LUKS_MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
const SLOT_ACTIVE = 0x00ac71f3;
const SLOT_INACTIVE = 0x0000dead;
const SLOTS = 8;
const STRIPES = 4000;

/** Key sizes in bytes of the ciphers that headers may name. */
const CIPHERS: Readonly<Record<string, readonly number[]>> = {
  aes: [16, 24, 32],
  serpent: [16, 24, 32],
  twofish: [16, 24, 32],
  cast5: [16],
  sm4: [16],
};
const MODES = ["ecb", "cbc", "xts", "ctr"];
const IV_GENERATORS = ["plain", "plain64", "essiv"];
const HASHES = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3"];

/**
 * What `info` shows of an image's encryption, `undefined` if it has none.
 *
 * @throws {ImageError} row 23 of section 3, and for a damaged LUKS header (section 4 of its reference).
 */
export async function encryptionDetails(
  file: BlockNode,
  header: Qcow2Header,
  context: DriverContext,
): Promise<{ readonly [key: string]: InfoValue } | undefined> {
  if (header.cryptMethod === 0) return undefined;
  if (header.cryptMethod === 1) return { format: "aes" };
  if (header.cryptoHeader === undefined) {
    throw new ImageError("Missing CRYPTO header for crypt method 2", {
      errno: "EINVAL",
      file: context.filename,
      field: "crypto header",
    });
  }
  const bytes = new Uint8Array(LUKS_HEADER);
  await readPadded(file, header.cryptoHeader.offset, bytes);
  return new LuksHeader(bytes, context).details();
}

/**
 * Guest data of an encrypted image cannot be reached.
 *
 * @throws {ImageError} for an encrypted image, as the reference does without a key.
 */
export function refuseEncrypted(header: Qcow2Header, context: DriverContext): void {
  if (header.cryptMethod === 0) return;
  throw new ImageError("Parameter 'encrypt.key-secret' is required for cipher", {
    errno: "EINVAL",
    file: context.filename,
    field: "crypt_method",
  });
}

/** The fields of a LUKS header (section 1 of the LUKS reference). */
class LuksHeader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #context: DriverContext;

  constructor(bytes: Uint8Array, context: DriverContext) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#context = context;
  }

  details(): { readonly [key: string]: InfoValue } {
    this.#check();
    const { cipher, mode, ivgen, ivgenHash, hash } = this.#algorithms();
    return {
      "ivgen-alg": ivgen,
      "detached-header": false,
      "hash-alg": hash,
      "cipher-alg": cipher,
      uuid: this.#text(168, 40),
      ...(ivgen === "essiv" ? { "ivgen-hash-alg": ivgenHash! } : {}),
      format: "luks",
      "cipher-mode": mode,
      slots: Array.from({ length: SLOTS }, (_, slot) => this.#slot(slot)),
      "payload-offset": this.#view.getUint32(104) * 512,
      "master-key-iters": this.#view.getUint32(164),
    };
  }

  #slot(index: number): InfoValue {
    const at = 208 + 48 * index;
    const keyOffset = this.#view.getUint32(at + 40) * 512;
    if (this.#view.getUint32(at) !== SLOT_ACTIVE) return { active: false, "key-offset": keyOffset };
    return {
      active: true,
      iters: this.#view.getUint32(at + 4),
      "key-offset": keyOffset,
      stripes: this.#view.getUint32(at + 44),
    };
  }

  /** The names of section 3 of the LUKS reference, checked in the order of section 4. */
  #algorithms(): {
    cipher: string;
    mode: string;
    ivgen: string;
    ivgenHash: string | undefined;
    hash: string;
  } {
    const spec = this.#text(40, 32);
    const [, mode = "", ivgen = "", ivgenHash] = /^([^-]*)-([^:]*)(?::(.*))?$/.exec(spec) ??
      this.#refuse("cipher mode", `Unexpected cipher mode string format '${spec}'`);
    const known = (field: string, what: string, value: string, values: readonly string[]) => {
      if (!values.includes(value)) this.#refuse(field, `${what} '${value}' not supported`);
    };
    if (ivgenHash !== undefined) known("cipher mode", "Hash algorithm", ivgenHash, HASHES);
    known("cipher mode", "Cipher mode", mode, MODES);
    const name = this.#text(8, 32);
    const keyBytes = this.#view.getUint32(108);
    // XTS takes half of the key for its tweaks.
    const cipherBytes = mode === "xts" ? Math.floor(keyBytes / 2) : keyBytes;
    if (!Object.hasOwn(CIPHERS, name) || !CIPHERS[name]!.includes(cipherBytes)) {
      this.#refuse(
        "cipher name",
        `Algorithm '${name}' with key size ${cipherBytes} bytes not supported`,
      );
    }
    const hash = this.#text(72, 32);
    known("hash", "Hash algorithm", hash, HASHES);
    known("cipher mode", "IV generator", ivgen, IV_GENERATORS);
    if (ivgen === "essiv" && ivgenHash === undefined) {
      this.#refuse("cipher mode", "Missing IV generator hash specification");
    }
    return { cipher: `${name}-${cipherBytes * 8}`, mode, ivgen, ivgenHash, hash };
  }

  /** Section 4 of the LUKS reference, in its order. */
  #check(): void {
    const view = this.#view;
    if (LUKS_MAGIC.some((byte, i) => this.#bytes[i] !== byte)) {
      this.#refuse("magic", "Volume is not in LUKS format");
    }
    const version = view.getUint16(6);
    if (version !== 1) this.#refuse("version", `LUKS version ${version} is not supported`);
    for (
      const [at, what] of [[8, "cipher name"], [40, "cipher mode"], [72, "hash spec"]] as const
    ) {
      if (this.#bytes.subarray(at, at + 32).indexOf(0) < 0) {
        this.#refuse(what, `LUKS header ${what} is not NUL terminated`);
      }
    }
    const payload = view.getUint32(104);
    if (payload < 8) {
      this.#refuse("payload offset", "LUKS payload is overlapping with the header");
    }
    if (view.getUint32(164) === 0) {
      this.#refuse("iterations", "LUKS key iteration count is zero");
    }
    this.#checkSlots(payload);
  }

  #checkSlots(payload: number): void {
    const view = this.#view;
    const sectors = Math.ceil(Math.ceil(view.getUint32(108) * STRIPES / 512) / 8) * 8;
    const start = (slot: number) => view.getUint32(208 + 48 * slot + 40);
    for (let slot = 0; slot < SLOTS; slot++) {
      const at = 208 + 48 * slot;
      const state = view.getUint32(at);
      const stripes = view.getUint32(at + 44);
      const field = `key slot ${slot}`;
      if (stripes !== STRIPES) {
        this.#refuse(field, `Keyslot ${slot} is corrupted (stripes ${stripes} != ${STRIPES})`);
      }
      if (state !== SLOT_ACTIVE && state !== SLOT_INACTIVE) {
        this.#refuse(field, `Keyslot ${slot} state (active/disable) is corrupted`);
      }
      if (state === SLOT_ACTIVE && view.getUint32(at + 4) === 0) {
        this.#refuse(field, `Keyslot ${slot} iteration count is zero`);
      }
      if (start(slot) < 8) {
        this.#refuse(field, `Keyslot ${slot} is overlapping with the LUKS header`);
      }
      if (start(slot) + sectors > payload) {
        this.#refuse(field, `Keyslot ${slot} is overlapping with the encrypted payload`);
      }
      for (let other = slot + 1; other < SLOTS; other++) {
        if (start(other) < start(slot) + sectors && start(slot) < start(other) + sectors) {
          this.#refuse(field, `Keyslots ${slot} and ${other} are overlapping in the header`);
        }
      }
    }
  }

  #text(at: number, length: number): string {
    const field = this.#bytes.subarray(at, at + length);
    const end = field.indexOf(0);
    return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
  }

  #refuse(field: string, message: string): never {
    throw new ImageError(message, {
      errno: "EINVAL",
      file: this.#context.filename,
      field: `LUKS ${field}`,
    });
  }
}
