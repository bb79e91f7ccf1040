/**
 * Guest data of encrypted images: sectors of 512 bytes, each under its number
 * in the file (LUKS in qcow2) or on the disk (LUKS by itself, the old
 * encryption of qcow and qcow2).
 *
 * @module
 */
import type { CipherSpec } from "../crypto/algorithms.ts";
import type { LuksVolume } from "../crypto/luks.ts";
import { loadNodeCrypto } from "../crypto/node_crypto.ts";
import { createSectorCipher, type SectorCipher } from "../crypto/sector_cipher.ts";
import { Mutex } from "./mutex.ts";
import type { BlockNode } from "./node.ts";
import type { SealedRun } from "./plan.ts";
import { readPadded } from "./read_padded.ts";

/** Bytes of a sector. */
const SECTOR = 512;
/** Key of the old encryption, bytes: AES-128, whatever its name says elsewhere. */
const OLD_KEY_BYTES = 16;
/** Bytes that are encrypted and written at a time. */
const PIECE = 2 << 20;

/** Where guest bytes are. */
export interface DataPlace {
  /** In the data file. */
  readonly host: number;
  /** On the disk. */
  readonly guest: number;
}

/** By which of the two a sector has its number. */
export type SectorNumbers = keyof DataPlace;

/** How whoever has encrypted data reads and writes it. Offsets are bytes on the disk. */
export interface DataAccess {
  /** Fills `into`. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Encrypts and writes whole sectors. */
  write(offset: number, from: Uint8Array): Promise<void>;
}

/** What a cipher is made of. */
export type CipherRecipe = Pick<SealedRun, "cipher" | "key">;

/** The encryption of an open image's guest data. Whoever closes the image disposes of it. */
export class DataEncryption implements Disposable {
  /** The LUKS volume with the key, `undefined` with the old encryption. */
  readonly volume: LuksVolume | undefined;
  /** Held by writes of parts of sectors, which have to read the rest. */
  readonly #partial = new Mutex();
  readonly #numbers: SectorNumbers;
  readonly #cipher: SectorCipher;
  readonly #recipe: CipherRecipe;
  readonly #buffers: Uint8Array[] = [];

  /** Encryption with a cipher that was made after a recipe. */
  constructor(
    cipher: SectorCipher,
    recipe: CipherRecipe,
    numbers: SectorNumbers,
    volume?: LuksVolume,
  ) {
    this.#cipher = cipher;
    this.#recipe = recipe;
    this.#numbers = numbers;
    this.volume = volume;
  }

  /** Reads and decrypts; the range need not be whole sectors. */
  async read(file: BlockNode, { host, guest }: DataPlace, into: Uint8Array): Promise<void> {
    const skip = host % SECTOR;
    const length = Math.ceil((skip + into.length) / SECTOR) * SECTOR;
    const place = { host: host - skip, guest: guest - skip };
    if (length === into.length) {
      await readPadded(file, host, into);
      this.#cipher.decrypt(into, into, this.#sector(place));
      return;
    }
    const sectors = new Uint8Array(length);
    await readPadded(file, place.host, sectors);
    this.#cipher.decrypt(sectors, sectors, this.#sector(place));
    into.set(sectors.subarray(skip, skip + into.length));
  }

  /** How others decrypt what is at a place, which is one of whole sectors. */
  sealed(file: BlockNode, place: DataPlace): SealedRun {
    return { file, offset: place.host, sector: this.#sector(place), ...this.#recipe };
  }

  /** Hands bytes on in whole sectors, of which those that are written in part are read before. */
  async inSectors(offset: number, from: Uint8Array, access: DataAccess): Promise<void> {
    const start = offset - offset % SECTOR;
    const end = Math.ceil((offset + from.length) / SECTOR) * SECTOR;
    if (end - start === from.length) return await access.write(offset, from);
    await this.#partial.run(async () => {
      const sectors = new Uint8Array(end - start);
      await access.read(start, sectors.subarray(0, SECTOR));
      await access.read(end - SECTOR, sectors.subarray(sectors.length - SECTOR));
      sectors.set(from, offset - start);
      await access.write(start, sectors);
    });
  }

  /** Encrypts and writes whole sectors. */
  async write(file: BlockNode, { host, guest }: DataPlace, from: Uint8Array): Promise<void> {
    for (let at = 0; at < from.length; at += PIECE) {
      const piece = from.subarray(at, at + PIECE);
      const buffer = this.#buffers.pop() ?? new Uint8Array(PIECE);
      try {
        const sectors = buffer.subarray(0, piece.length);
        this.#cipher.encrypt(piece, sectors, this.#sector({ host: host + at, guest: guest + at }));
        await file.write(host + at, sectors);
      } finally {
        this.#buffers.push(buffer);
      }
    }
  }

  /** Frees what the platform holds for the cipher. */
  [Symbol.dispose](): void {
    this.#cipher[Symbol.dispose]();
  }

  #sector(place: DataPlace): number {
    return place[this.#numbers] / SECTOR;
  }
}

/** LUKS. */
export async function luksEncryption(
  volume: LuksVolume,
  numbers: SectorNumbers,
): Promise<DataEncryption> {
  return new DataEncryption(await volume.cipher(), volume.recipe, numbers, volume);
}

const OLD_CIPHER: CipherSpec = { cipher: "aes-128", mode: "cbc", ivgen: "plain64" };

/** The old encryption: the passphrase is the key, cut or filled up with zeros. Nothing tells whether it is right. */
export async function oldEncryption(passphrase: Uint8Array): Promise<DataEncryption> {
  const key = new Uint8Array(OLD_KEY_BYTES);
  key.set(passphrase.subarray(0, key.length));
  const cipher = createSectorCipher(await loadNodeCrypto(), OLD_CIPHER, key);
  return new DataEncryption(cipher, { cipher: OLD_CIPHER, key }, "guest");
}
