/**
 * The files of an image, and what every node on them has in common.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, NodeChild } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { CryptoError } from "../../lib/crypto/error.ts";
import type { LuksStore } from "../../lib/crypto/luks.ts";

/** Bytes of a sector. */
export const SECTOR = 512;

/** A detached header's key slots lie below this offset: of those that are made, the longest has 2 MiB. */
const MOST_DETACHED = 16 << 20;

/** Where an image lies. */
export interface ImageFiles {
  /** The payload, behind the header if that is not in a file of its own. */
  readonly file: BlockNode;
  /** A header's own file. */
  readonly header: BlockNode | undefined;
}

/** Finds the header; closed by {@linkcode closeFiles}. */
export async function filesOf(file: BlockNode, context: DriverContext): Promise<ImageFiles> {
  return { file, header: await context.openChild?.("header") };
}

/** The nodes below an image, the last attached first. */
export function childrenOf({ file, header }: ImageFiles): NodeChild[] {
  const child = { name: "file", node: file };
  return header === undefined ? [child] : [{ name: "header", node: header }, child];
}

/** Bytes that an image takes on its host. */
export async function allocatedSize({ file, header }: ImageFiles): Promise<number | undefined> {
  const payload = await file.allocatedSize();
  if (header === undefined || payload === undefined) return payload;
  const rest = await header.allocatedSize();
  return rest === undefined ? undefined : payload + rest;
}

/** Closes both files, the header whatever becomes of the other. */
export async function closeFiles({ file, header }: ImageFiles): Promise<void> {
  try {
    await file[Symbol.asyncDispose]();
  } finally {
    await header?.[Symbol.asyncDispose]();
  }
}

/** Header and key slots in the file that has them. */
export function storeOf({ file, header }: ImageFiles, context: DriverContext): LuksStore {
  const holder = header ?? file;
  return {
    read: (offset, into) => readPadded(holder, offset, into),
    write: async (offset, from) => {
      // Where there is a payload behind them, the header was checked against it.
      if (header !== undefined && offset + from.length > Math.max(MOST_DETACHED, header.length)) {
        throw new CryptoError("Key slots reach past the header's file", "LUKS key slots");
      }
      await holder.write(offset, from);
    },
    barrier: async () => {
      if (!context.mode.cache.noFlush) await holder.flush();
    },
  };
}

/**
 * Bytes of the disk: what the payload's file has behind `payloadOffset`.
 *
 * @throws {ImageError} if it ends before that.
 */
export function payloadLength({ file }: ImageFiles, payloadOffset: number): number {
  const length = file.length - payloadOffset;
  if (length >= 0) return length;
  throw new ImageError("Could not refresh total sector count: Input/output error", {
    errno: "EIO",
    file: file.filename,
    field: "LUKS payload offset",
  });
}
