import type { DriverContext } from "../../lib/block/driver.ts";
import { during, ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { Errno } from "../../lib/io/errno.ts";
import {
  HEADER_LENGTH_V2,
  HEADER_LENGTH_V3,
  Incompatible,
  MAGIC,
  MAX_BACKING_NAME,
  MAX_FILE_LENGTH,
  MAX_L1_BYTES,
  MAX_REFCOUNT_TABLE_BYTES,
  MAX_SNAPSHOTS,
  UNTRUSTED,
} from "./_layout.ts";
import { readPadded } from "./_read.ts";
import { readExtensions } from "./extensions.ts";
import { describeUnknownFeatures } from "./features.ts";
import { decodeName, hasFeature, type Qcow2Header } from "./header.ts";
import type { Geometry } from "./image.ts";

/** Sizes that follow from the header. */
export function geometryOf(header: Qcow2Header): Geometry {
  const clusterSize = 2 ** header.clusterBits;
  const extended = hasFeature(header, Incompatible.extendedL2);
  const entrySize = extended ? 16 : 8;
  const l2Entries = clusterSize / entrySize;
  return {
    clusterSize,
    clusterBits: header.clusterBits,
    entrySize,
    l2Entries,
    l2Span: clusterSize * l2Entries,
    subclusters: extended ? 32 : 1,
    subclusterSize: extended ? clusterSize / 32 : clusterSize,
  };
}

/**
 * Reads and checks a header: rows 1 to 19, 21 and 24 of section 3, in that
 * order. What a check repairs is let through in `mode.checking`.
 *
 * @throws {ImageError} naming the file and the field, with the reference's text.
 */
export async function readHeader(file: BlockNode, context: DriverContext): Promise<Qcow2Header> {
  const head = new Uint8Array(HEADER_LENGTH_V3);
  await during("Could not read qcow2 header", () => readPadded(file, 0, head));
  const fixed = new FixedFields(head, context);
  const { header, length, extensionsEnd } = fixed.identify();

  const cluster = new Uint8Array(2 ** header.clusterBits);
  await during("Could not read qcow2 header", () => readPadded(file, 0, cluster));
  if (length > HEADER_LENGTH_V3) {
    header.unknownFields = cluster.slice(HEADER_LENGTH_V3, length);
  }
  const extensions = cluster.subarray(length, extensionsEnd);
  fixed.checkFeatures(header, extensions);
  fixed.readTables(header);
  fixed.checkSize(header);
  if (header.cryptMethod > 2) {
    throw fixed.error("crypt_method", `Unsupported encryption method ${header.cryptMethod | 0}`);
  }
  readExtensions(extensions, header, context);
  header.backingFile = fixed.backingName(header, cluster);
  return header;
}

/** The fixed fields as they lie on disk, and the rules that they must keep. */
class FixedFields {
  readonly #view: DataView;
  readonly #context: DriverContext;

  constructor(head: Uint8Array, context: DriverContext) {
    this.#view = new DataView(head.buffer, head.byteOffset, head.byteLength);
    this.#context = context;
  }

  error(field: string, message: string, errno: Errno = "EINVAL"): ImageError {
    return new ImageError(message, { errno, field, file: this.#context.filename });
  }

  /** Rows 1 to 6: what says where the rest of the header is. */
  identify(): { header: Qcow2Header; length: number; extensionsEnd: number } {
    const view = this.#view;
    if (view.getUint32(0) !== MAGIC) throw this.error("magic", "Image is not in qcow2 format");
    const version = view.getUint32(4);
    if (version !== 2 && version !== 3) {
      throw this.error("version", `Unsupported qcow2 version ${version}`, "ENOTSUP");
    }
    const clusterBits = view.getUint32(20);
    if (clusterBits < 9 || clusterBits > 21) {
      throw this.error("cluster_bits", `Unsupported cluster size: 2^${clusterBits}`);
    }
    const clusterSize = 2 ** clusterBits;
    const length = version === 2 ? HEADER_LENGTH_V2 : view.getUint32(100);
    if (version === 3 && length < 104) throw this.error("header_length", "qcow2 header too short");
    if (length > clusterSize) {
      throw this.error("header_length", "qcow2 header exceeds cluster size");
    }
    const backingOffset = view.getBigUint64(8);
    if (backingOffset > BigInt(clusterSize)) {
      throw this.error("backing_file_offset", "Invalid backing file offset");
    }
    return {
      header: this.#header(version, clusterBits, length),
      length,
      // A name that begins inside the header leaves no room for extensions.
      extensionsEnd: Math.max(Number(backingOffset) || clusterSize, length),
    };
  }

  #header(version: number, clusterBits: number, length: number): Qcow2Header {
    const view = this.#view;
    const v3 = version >= 3;
    return {
      version,
      clusterBits,
      backingFile: "",
      backingFormat: undefined,
      size: 0,
      cryptMethod: view.getUint32(32),
      l1Size: view.getUint32(36),
      l1Offset: 0,
      refcountTableOffset: 0,
      refcountTableClusters: view.getUint32(56),
      snapshotCount: view.getUint32(60),
      snapshotsOffset: 0,
      incompatible: v3 ? view.getBigUint64(72) : 0n,
      compatible: v3 ? view.getBigUint64(80) : 0n,
      autoclear: v3 ? view.getBigUint64(88) : 0n,
      refcountOrder: v3 ? view.getUint32(96) : 4,
      compressionType: v3 && length > 104 ? view.getUint8(104) : 0,
      unknownFields: new Uint8Array(0),
      dataFile: undefined,
      cryptoHeader: undefined,
      bitmaps: undefined,
      staleBitmaps: false,
      unknownExtensions: [],
      spellings: new Map(),
    };
  }

  /** Rows 7 to 12. */
  checkFeatures(header: Qcow2Header, extensions: Uint8Array): void {
    const { compressionType } = header;
    if (compressionType > 1) {
      throw this.error(
        "compression_type",
        `qcow2: unknown compression type: ${compressionType}`,
        "ENOTSUP",
      );
    }
    if (hasFeature(header, Incompatible.compressionType) !== (compressionType !== 0)) {
      const must = compressionType === 0 ? "must not" : "must";
      throw this.error(
        "incompatible_features",
        `qcow2: Compression type incompatible feature bit ${must} be set`,
      );
    }
    const unknown = header.incompatible & ~BigInt(Incompatible.all);
    if (unknown !== 0n) {
      throw this.error(
        "incompatible_features",
        `Unsupported qcow2 feature(s): ${describeUnknownFeatures(unknown, extensions)}`,
        "ENOTSUP",
      );
    }
    const { writable, checking } = this.#context.mode;
    if (hasFeature(header, Incompatible.corrupt) && writable && !checking) {
      throw this.error(
        "incompatible_features",
        "qcow2: Image is corrupt; cannot be opened read/write",
        "EACCES",
      );
    }
    if (hasFeature(header, Incompatible.extendedL2) && header.clusterBits < 14) {
      throw this.error(
        "cluster_bits",
        `Unsupported subcluster size: ${2 ** header.clusterBits / 32}`,
      );
    }
    if (header.refcountOrder > 6) {
      throw this.error(
        "refcount_order",
        "Reference count entry width too large; may not exceed 64 bits",
      );
    }
  }

  /** Rows 13 to 16. */
  readTables(header: Qcow2Header): void {
    const { mode, untrusted } = this.#context;
    const clusterSize = 2 ** header.clusterBits;
    if (header.refcountTableClusters === 0 && !mode.checking) {
      throw this.error(
        "refcount_table_clusters",
        "Image does not contain a reference count table",
      );
    }
    header.refcountTableOffset = this.#tableOffset("refcount_table", {
      name: "Reference count table",
      at: 48,
      bytes: header.refcountTableClusters * clusterSize,
      limit: untrusted ? UNTRUSTED.refcountTableBytes : MAX_REFCOUNT_TABLE_BYTES,
      clusterSize,
    });
    // A damaged snapshot table is for the check to find and repair.
    if (mode.checking) {
      const offset = this.#view.getBigUint64(64);
      header.snapshotsOffset = Number(offset);
    } else {
      header.snapshotsOffset = this.#tableOffset("snapshots", {
        name: "Snapshot table",
        at: 64,
        bytes: header.snapshotCount * 40,
        limit: (untrusted ? UNTRUSTED.snapshots : MAX_SNAPSHOTS) * 40,
        clusterSize,
      });
    }
    header.l1Offset = this.#tableOffset("l1_table", {
      name: "Active L1 table",
      at: 40,
      bytes: header.l1Size * 8,
      limit: untrusted ? UNTRUSTED.l1Bytes : MAX_L1_BYTES,
      clusterSize,
    });
  }

  #tableOffset(
    field: string,
    table: { name: string; at: number; bytes: number; limit: number; clusterSize: number },
  ): number {
    const { name, bytes, limit, clusterSize } = table;
    if (bytes > limit) throw this.error(`${field} size`, `${name} too large`, "EFBIG");
    const offset = this.#view.getBigUint64(table.at);
    if (
      offset % BigInt(clusterSize) !== 0n ||
      offset + BigInt(bytes) >= BigInt(MAX_FILE_LENGTH)
    ) throw this.error(`${field} offset`, `${name} offset invalid`);
    return Number(offset);
  }

  /** Rows 17 and 18. */
  checkSize(header: Qcow2Header): void {
    const stored = this.#view.getBigUint64(24);
    const span = BigInt(geometryOf({ ...header, size: 0 }).l2Span);
    // The sum wraps around at 64 bits, as in the reference: what is negative is found out below.
    const needed = BigInt.asUintN(64, stored + span - 1n) / span;
    if (needed > 0x7fffffffn) throw this.error("size", "Image is too big", "EFBIG");
    if (needed > BigInt(header.l1Size)) throw this.error("l1_size", "L1 table is too small");
    if (stored >= 1n << 63n) {
      throw this.error(
        "size",
        "Could not refresh total sector count: File too large",
        "EFBIG",
      );
    }
    if (stored > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw this.error(
        "size",
        `Image size ${stored} exceeds the supported maximum of ${Number.MAX_SAFE_INTEGER} bytes`,
        "EFBIG",
      );
    }
    header.size = Number(stored - stored % 512n);
  }

  /** Row 24. */
  backingName(header: Qcow2Header, cluster: Uint8Array): string {
    const offset = Number(this.#view.getBigUint64(8));
    if (offset === 0) return "";
    const length = this.#view.getUint32(16);
    if (length > Math.min(MAX_BACKING_NAME, cluster.length - offset)) {
      throw this.error("backing_file_size", "Backing file name too long");
    }
    return decodeName(header, cluster.subarray(offset, offset + length));
  }
}
