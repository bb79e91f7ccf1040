/**
 * The node of an open image.
 *
 * @module
 */
import type { Amender, ImageDetails, InfoValue } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import { ImageError } from "../../lib/block/error.ts";
import type {
  BlockNode,
  Extent,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { inImage, passphraseOf } from "../../lib/block/passphrase.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";
import {
  LUKS_HEADER_BYTES,
  luksDetails,
  type LuksHeader,
  parseLuksHeader,
} from "../../lib/crypto/luks_header.ts";
import {
  allocatedSize,
  childrenOf,
  closeFiles,
  filesOf,
  type ImageFiles,
  payloadLength,
  SECTOR,
  storeOf,
} from "./parts.ts";

/**
 * Opens an image; for its metadata no passphrase is needed. On failure `file` is left to the caller.
 *
 * @throws {ImageError} section 4 of the LUKS reference, with its texts.
 */
export async function openNode(
  file: BlockNode,
  options: OptionSet,
  context: DriverContext,
): Promise<BlockNode> {
  const files = await filesOf(file, context);
  let encryption: DataEncryption | undefined;
  try {
    if (!context.mode.metadataOnly) encryption = await unlock(files, options, context);
    const header = encryption?.volume?.header ?? await readHeader(files, context);
    payloadLength(files, header.payloadOffset);
    return new LuksNode(files, context, header, encryption);
  } catch (error) {
    encryption?.[Symbol.dispose]();
    await files.header?.[Symbol.asyncDispose]();
    throw error;
  }
}

async function readHeader(files: ImageFiles, context: DriverContext): Promise<LuksHeader> {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  await storeOf(files, context).read(0, bytes);
  const detached = files.header !== undefined;
  return inImage(context.filename, () => parseLuksHeader(bytes, { detached }));
}

async function unlock(
  files: ImageFiles,
  options: OptionSet,
  context: DriverContext,
): Promise<DataEncryption> {
  const passphrase = passphraseOf(options.string("key-secret"), context, "key-secret");
  const { openLuks } = await import("../../lib/block/luks.ts");
  const { luksEncryption } = await import("../../lib/block/encrypted_data.ts");
  const detached = files.header !== undefined;
  const volume = await openLuks(storeOf(files, context), passphrase, context, { detached });
  return await luksEncryption(volume, "guest");
}

/** An open image. Without `encryption` its disk cannot be reached. */
class LuksNode implements BlockNode {
  readonly driver = "luks";
  readonly readOnly: boolean;
  readonly limits: NodeLimits = { requestAlignment: SECTOR, clusterSize: 0, zeroAlignment: 0 };
  readonly children: readonly NodeChild[];
  readonly amender?: Amender;
  readonly #files: ImageFiles;
  readonly #context: DriverContext;
  readonly #header: LuksHeader;
  readonly #encryption: DataEncryption | undefined;
  #closed = false;

  constructor(
    files: ImageFiles,
    context: DriverContext,
    header: LuksHeader,
    encryption: DataEncryption | undefined,
  ) {
    this.readOnly = !context.mode.writable || encryption === undefined;
    this.children = childrenOf(files);
    this.#files = files;
    this.#context = context;
    this.#header = header;
    this.#encryption = encryption;
    const volume = encryption?.volume;
    if (volume !== undefined && !this.readOnly) {
      this.amender = {
        amend: async (options, { force }) => {
          const { amendLuks } = await import("../../lib/block/luks.ts");
          await amendLuks(volume, options, "", { context, force });
        },
      };
    }
  }

  get filename(): string {
    return this.#context.filename;
  }

  get length(): number {
    return Math.max(this.#files.file.length - this.#header.payloadOffset, 0);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const encryption = this.#unlocked();
    requireRange(this, offset, into.length);
    await encryption.read(this.#files.file, this.#place(offset), into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    const encryption = this.#unlocked();
    requireWritable(this);
    requireRange(this, offset, from.length);
    await encryption.inSectors(offset, from, {
      read: (at, into) => this.read(at, into),
      write: (at, sectors) => encryption.write(this.#files.file, this.#place(at), sectors),
    });
  }

  /** Nothing in the format says "zero": zeros are encrypted like all else. */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    await writeZeroData(this, offset, length, flags, (at, zeros) => this.write(at, zeros));
  }

  /** What is of no use stays: where it was must not be seen. */
  discard(offset: number, length: number): Promise<void> {
    try {
      requireWritable(this);
      requireRange(this, offset, length);
      return Promise.resolve();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      requireRange(this, offset, length);
      const extent = { length, state: "data", compressed: false } as const;
      if (offset % SECTOR !== 0) return Promise.resolve(extent);
      const sealed = this.#encryption?.sealed(this.#files.file, this.#place(offset));
      return Promise.resolve(sealed === undefined ? extent : { ...extent, sealed });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#files.file.flush();
  }

  /** Space that is added holds no data of anybody: what it decrypts to is of no meaning. */
  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    await this.#files.file.resize(this.#header.payloadOffset + length, how);
  }

  allocatedSize(): Promise<number | undefined> {
    return allocatedSize(this.#files);
  }

  details(): Promise<ImageDetails> {
    const data = luksDetails(this.#header) as { readonly [key: string]: InfoValue };
    return Promise.resolve({ encrypted: true, dirty: false, specific: { type: "luks", data } });
  }

  /** Zeros in the file are no zeros once they are decrypted. */
  readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#encryption?.[Symbol.dispose]();
    await closeFiles(this.#files);
  }

  #place(offset: number): { host: number; guest: number } {
    return { host: this.#header.payloadOffset + offset, guest: offset };
  }

  #unlocked(): DataEncryption {
    if (this.#encryption !== undefined) return this.#encryption;
    throw new ImageError("The image is open for its metadata only", {
      errno: "ENOTSUP",
      file: this.filename,
    });
  }
}
