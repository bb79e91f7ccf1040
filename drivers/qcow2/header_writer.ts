import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { HEADER_LENGTH_V2, HEADER_LENGTH_V3, MAGIC } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import { encodeExtensions } from "./extensions.ts";
import { encodeName, type Qcow2Header } from "./header.ts";
import { planHeaderRewrite } from "./header_rewrite.ts";

/** Bytes of the magic, the header's first field. */
const MAGIC_LENGTH = 4;

/** What has a header: an open image, or one that is being made. */
export interface HeaderOwner {
  /** The file whose cluster 0 it is. */
  readonly file: BlockNode;
  /** The header. */
  readonly header: Qcow2Header;
  /** Flushes the file; absent where `file.flush()` does. */
  barrier?(): Promise<void>;
}

/** Where {@linkcode encodeHeader} puts what has a choice. */
export interface HeaderLayout {
  /** Whether the feature name table, which nobody needs, is among the extensions; default true. */
  readonly featureNames?: boolean;
  /** Where the backing file name lies in the cluster, bytes; default: right behind the extensions. */
  readonly nameOffset?: number;
}

/**
 * Cluster 0 as it is to be written: fixed fields, extensions, backing name,
 * zeros.
 *
 * @throws {ImageError} `ENOSPC` if it does not fit into one cluster.
 */
export function encodeHeader(
  header: Qcow2Header,
  layout: HeaderLayout = {},
): Uint8Array<ArrayBuffer> {
  const cluster = new Uint8Array(2 ** header.clusterBits);
  const view = new DataView(cluster.buffer);
  const v3 = header.version >= 3;
  const length = v3 ? HEADER_LENGTH_V3 + header.unknownFields.length : HEADER_LENGTH_V2;
  if (length > cluster.length) throw noRoom();
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  view.setUint32(20, header.clusterBits);
  view.setBigUint64(24, BigInt(header.size));
  view.setUint32(32, header.cryptMethod);
  view.setUint32(36, header.l1Size);
  view.setBigUint64(40, BigInt(header.l1Offset));
  view.setBigUint64(48, BigInt(header.refcountTableOffset));
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  view.setBigUint64(64, BigInt(header.snapshotsOffset));
  if (v3) {
    view.setBigUint64(72, header.incompatible);
    view.setBigUint64(80, header.compatible);
    view.setBigUint64(88, header.autoclear);
    view.setUint32(96, header.refcountOrder);
    view.setUint32(100, length);
    view.setUint8(104, header.compressionType);
    cluster.set(header.unknownFields, HEADER_LENGTH_V3);
  }
  const name = encodeName(header, header.backingFile);
  const extensions = encodeExtensions(header, layout.featureNames);
  const nameOffset = layout.nameOffset ?? length + extensions.length;
  if (length + extensions.length > cluster.length || nameOffset + name.length > cluster.length) {
    throw noRoom();
  }
  cluster.set(extensions, length);
  if (name.length > 0) {
    view.setBigUint64(8, BigInt(nameOffset));
    view.setUint32(16, name.length);
    cluster.set(name, nameOffset);
  }
  return cluster;
}

function noRoom(): ImageError {
  return ImageError.fromErrno("ENOSPC", { field: "header" });
}

/**
 * Brings the header into cluster 0: sector by sector what has changed, in the
 * order that `header_rewrite.ts` explains, so that a crash leaves the old
 * header or the new one. Whoever needs it on the disk flushes afterwards.
 *
 * @throws {ImageError} `ENOSPC` if it does not fit; nothing is written then.
 */
export async function writeHeader(image: HeaderOwner): Promise<void> {
  const { file, header } = image;
  // Whether it fits is known before anything else is done.
  const wanted = encodeHeader(header);
  const present = new Uint8Array(wanted.length);
  await readPadded(file, 0, present);
  const moved = (nameOffset: number, featureNames: boolean) =>
    encodeHeader(header, { featureNames, nameOffset });
  for (const [index, step] of planHeaderRewrite(present, wanted, moved).entries()) {
    if (index > 0) await (image.barrier?.() ?? file.flush());
    for (const { offset, bytes } of step) await file.write(offset, bytes);
  }
}

/**
 * Writes the whole of cluster 0 but for the magic, so that nobody takes the
 * file for an image yet: the sectors of a cluster need not reach the disk
 * together. Does not flush.
 *
 * @throws {ImageError} `ENOSPC` if it does not fit; nothing is written then.
 */
export async function writeHeaderBody(image: HeaderOwner): Promise<void> {
  const cluster = encodeHeader(image.header);
  cluster.fill(0, 0, MAGIC_LENGTH);
  await image.file.write(0, cluster);
}

/** Writes the magic alone, which makes the file an image. Does not flush. */
export async function writeMagic(image: HeaderOwner): Promise<void> {
  await image.file.write(0, encodeHeader(image.header).subarray(0, MAGIC_LENGTH));
}

/**
 * Clears or sets known incompatible bits in a file's header by a header
 * rewrite, with a flush before and after. Nothing is written if they are as
 * wanted.
 */
export async function updateFeatures(
  image: HeaderOwner,
  changes: { readonly set?: number; readonly clear?: number },
): Promise<void> {
  const before = image.header.incompatible;
  const after = (before | BigInt(changes.set ?? 0)) & ~BigInt(changes.clear ?? 0);
  if (after === before) return;
  await image.file.flush();
  image.header.incompatible = after;
  try {
    await writeHeader(image);
    await image.file.flush();
  } catch (error) {
    image.header.incompatible = before;
    throw error;
  }
}
