import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { Autoclear, Extension, Incompatible, UNTRUSTED } from "./_layout.ts";
import { MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS, MAX_FILE_LENGTH } from "./_layout.ts";
import { featureNameTable } from "./features.ts";
import type { BitmapsExtension, Qcow2Header } from "./header.ts";
import { decodeName, encodeName } from "./header.ts";

/** Bytes of the longest backing format name, and one. */
const BACKING_FORMAT_SIZE = 16;

/**
 * Reads the extension area (`extensions`: from the header's end to the backing
 * name or the cluster's end) into `header`: row 21 of section 3, the bitmaps
 * extension's own rules of section 13.
 *
 * @throws {ImageError} with the reference's text.
 */
export function readExtensions(
  extensions: Uint8Array,
  header: Qcow2Header,
  context: DriverContext,
): void {
  const view = new DataView(extensions.buffer, extensions.byteOffset, extensions.byteLength);
  const refuse = (field: string, message: string) =>
    new ImageError(message, { errno: "EINVAL", file: context.filename, field });

  let at = 0;
  while (at < extensions.length) {
    if (extensions.length - at < 8) {
      throw refuse("header extension", "Header extension too large");
    }
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    at += 8;
    if (length > extensions.length - at) {
      throw refuse("header extension", "Header extension too large");
    }
    const data = extensions.subarray(at, at + length);
    switch (type) {
      case Extension.end:
        return;
      case Extension.backingFormat:
        if (length >= BACKING_FORMAT_SIZE) {
          throw refuse(
            "backing format",
            `ERROR: ext_backing_format: len=${length} too large (>=${BACKING_FORMAT_SIZE})`,
          );
        }
        header.backingFormat = decodeName(header, data) || undefined;
        break;
      case Extension.dataFile:
        header.dataFile = decodeName(header, data);
        break;
      case Extension.cryptoHeader:
        header.cryptoHeader = readCryptoHeader(data, header, refuse);
        break;
      case Extension.featureNames:
        // Written anew from what this driver knows.
        break;
      case Extension.bitmaps:
        header.bitmaps = readBitmaps(data, header, context, refuse);
        break;
      default:
        header.unknownExtensions.push({ type, data: data.slice() });
    }
    at += Math.ceil(length / 8) * 8;
  }
}

type Refuse = (field: string, message: string) => ImageError;

function readCryptoHeader(
  data: Uint8Array,
  header: Qcow2Header,
  refuse: Refuse,
): { offset: number; length: number } {
  if (header.cryptMethod !== 2) {
    throw refuse(
      "crypto header",
      "CRYPTO header extension only expected with LUKS encryption method",
    );
  }
  if (data.length !== 16) {
    throw refuse(
      "crypto header",
      `CRYPTO header extension size ${data.length}, but expected size 16`,
    );
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const offset = view.getBigUint64(0);
  const length = view.getBigUint64(8);
  const clusterSize = 2 ** header.clusterBits;
  if (offset % BigInt(clusterSize) !== 0n) {
    throw refuse(
      "crypto header offset",
      `Encryption header offset '${offset}' is not a multiple of cluster size '${clusterSize}'`,
    );
  }
  if (offset + length >= BigInt(MAX_FILE_LENGTH)) {
    throw refuse("crypto header offset", `Encryption header offset '${offset}' is out of range`);
  }
  return { offset: Number(offset), length: Number(length) };
}

function readBitmaps(
  data: Uint8Array,
  header: Qcow2Header,
  context: DriverContext,
  refuse: Refuse,
): BitmapsExtension | undefined {
  if (data.length !== 24) throw refuse("bitmaps", "bitmaps_ext: Invalid extension length");
  if ((header.autoclear & BigInt(Autoclear.bitmaps)) === 0n) {
    // Somebody wrote to the image who did not keep the bitmaps up to date.
    header.staleBitmaps = true;
    context.warn(
      header.version < 3
        ? "This qcow2 v2 image contains bitmaps, but they may have been modified by a program " +
          "without persistent bitmap support; so now they must all be considered inconsistent"
        : "a program lacking bitmap support modified this file, so all bitmaps are now " +
          "considered inconsistent",
    );
    context.report(
      "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.",
    );
    return undefined;
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const count = view.getUint32(0);
  const directorySize = view.getBigUint64(8);
  const directoryOffset = view.getBigUint64(16);
  const [mostBitmaps, mostBytes] = context.untrusted
    ? [UNTRUSTED.bitmaps, UNTRUSTED.bitmapDirectoryBytes]
    : [MAX_BITMAPS, MAX_BITMAP_DIRECTORY_BYTES];
  if (view.getUint32(4) !== 0) {
    throw refuse("bitmaps", "bitmaps_ext: Reserved field is not zero");
  }
  if (count > mostBitmaps) {
    throw refuse(
      "bitmaps",
      `bitmaps_ext: Image has ${count} bitmaps, exceeding the QEMU supported maximum of ${mostBitmaps}`,
    );
  }
  if (count === 0) throw refuse("bitmaps", "found bitmaps extension with zero bitmaps");
  if (
    directoryOffset % BigInt(2 ** header.clusterBits) !== 0n ||
    directoryOffset + BigInt(mostBytes) >= BigInt(MAX_FILE_LENGTH)
  ) throw refuse("bitmaps", "bitmaps_ext: invalid bitmap directory offset");
  if (directorySize > BigInt(mostBytes)) {
    throw refuse(
      "bitmaps",
      `bitmaps_ext: bitmap directory size (${directorySize}) exceeds the maximum supported size (${mostBytes})`,
    );
  }
  return {
    count,
    directorySize: Number(directorySize),
    directoryOffset: Number(directoryOffset),
  };
}

/** The extension area of a header, end marker included, in the order of section 2. */
export function encodeExtensions(header: Qcow2Header, featureNames = true): Uint8Array {
  const extensions: [type: number, data: Uint8Array][] = [];
  const clusterSize = 2 ** header.clusterBits;
  if (header.backingFormat !== undefined) {
    extensions.push([Extension.backingFormat, encodeName(header, header.backingFormat)]);
  }
  if (
    header.dataFile !== undefined &&
    (header.incompatible & BigInt(Incompatible.dataFile)) !== 0n
  ) extensions.push([Extension.dataFile, encodeName(header, header.dataFile)]);
  if (header.cryptoHeader !== undefined) {
    const { offset, length } = header.cryptoHeader;
    extensions.push([Extension.cryptoHeader, words(BigInt(offset), BigInt(length))]);
  }
  if (featureNames && header.version >= 3 && clusterSize > 4096) {
    extensions.push([Extension.featureNames, featureNameTable()]);
  }
  if (header.bitmaps !== undefined && header.bitmaps.count > 0) {
    const { count, directorySize, directoryOffset } = header.bitmaps;
    extensions.push([
      Extension.bitmaps,
      words(BigInt(count) << 32n, BigInt(directorySize), BigInt(directoryOffset)),
    ]);
  }
  // The reference turns their order around at each rewrite, and so do we.
  for (const { type, data } of header.unknownExtensions.toReversed()) extensions.push([type, data]);
  extensions.push([Extension.end, new Uint8Array(0)]);

  const padded = (length: number) => 8 + Math.ceil(length / 8) * 8;
  const area = new Uint8Array(extensions.reduce((sum, [, data]) => sum + padded(data.length), 0));
  const view = new DataView(area.buffer);
  let at = 0;
  for (const [type, data] of extensions) {
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    area.set(data, at + 8);
    at += padded(data.length);
  }
  return area;
}

function words(...values: bigint[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 8));
  for (const [i, value] of values.entries()) view.setBigUint64(i * 8, value);
  return new Uint8Array(view.buffer);
}
