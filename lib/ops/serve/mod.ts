/**
 * An NBD server for one image.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import { type CacheMode, READ_ONLY } from "../../block/mode.ts";
import type { BlockNode } from "../../block/node.ts";
import { type Environment, QUIET } from "../../graph/environment.ts";
import { type ImageReference, openImage } from "../../graph/open.ts";
import { LIMIT } from "../../nbd/constants.ts";
import { selectSnapshot, type SnapshotSelector } from "../snapshot.ts";
import { listen, type ServeAddress } from "./endpoint.ts";
import { DiskExport } from "./export.ts";
import { allocationContext, bitmapContexts, type MetaContext } from "./meta_contexts.ts";
import { NbdServer } from "./server.ts";

export type { ServeAddress } from "./endpoint.ts";
export type { NbdServer } from "./server.ts";

/** How to serve an image. */
export interface ServeOptions {
  /** Where clients connect, default port 10809 of this machine for programs on this machine. */
  readonly address?: ServeAddress;
  /** Let clients write. */
  readonly writable?: boolean;
  /** The name by which clients ask for the image, default `""`: what they get without asking for any. */
  readonly exportName?: string;
  /** What clients may be told of it. */
  readonly description?: string | undefined;
  /** Show an internal snapshot in place of the disk as it is. Not together with `writable`. */
  readonly snapshot?: SnapshotSelector | undefined;
  /**
   * Dirty bitmaps that clients can look at; without it all that were closed properly. None of a snapshot,
   * which they know nothing of.
   */
  readonly bitmaps?: readonly string[] | undefined;
  /** Stop when the last client has left. */
  readonly once?: boolean;
  /**
   * Clients at a time, 0 for any number; more wait. Default 16, and 1 if they can write: few programs
   * write to a disk together.
   */
  readonly shared?: number | undefined;
  /** How the host caches the image, default writeback. */
  readonly cache?: CacheMode | undefined;
}

const READERS = 16;
const WRITERS = 1;

/**
 * Serves an image as an NBD export until the server is stopped, the environment's signal is aborted or,
 * with `once`, the last client has left.
 *
 * ```ts
 * import { createImage, serveImage } from "@qimg/qimg";
 * import { assertMatch } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * {
 *   await using server = await serveImage({ filename }, { address: { port: 0 } });
 *   assertMatch(server.uri, /^nbd:\/\/127\.0\.0\.1:\d+$/);
 * }
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Failed to listen on '<where>': <reason>`, and what opening throws. Nothing stays
 * open then.
 */
export async function serveImage(
  image: ImageReference | string,
  options: ServeOptions = {},
  environment: Environment = QUIET,
): Promise<NbdServer> {
  const { writable = false, exportName = "", snapshot, shared = writable ? WRITERS : READERS } =
    options;
  if (snapshot !== undefined && writable) throw invalid("Snapshots cannot be written", "snapshot");
  requireText(exportName, "export name");
  requireText(options.description ?? "", "description");
  const mode = {
    ...READ_ONLY,
    writable,
    unmap: writable,
    cache: options.cache ?? READ_ONLY.cache,
  };
  const reference = typeof image === "string" ? { filename: image } : image;
  const node = await openImage(reference, mode, environment);
  try {
    if (snapshot !== undefined) await selectSnapshot(node, snapshot);
    let changes = 0;
    const disk = new DiskExport(node, {
      name: exportName,
      description: options.description,
      shared: shared !== 1,
      contexts: contextsOf(node, options, () => changes),
      changed: () => changes++,
    });
    const endpoint = await listen(options.address ?? {});
    return new NbdServer(endpoint, node, disk, {
      shared,
      once: options.once ?? false,
      signal: environment.signal,
    });
  } catch (error) {
    await node[Symbol.asyncDispose]();
    throw error;
  }
}

function contextsOf(
  node: BlockNode,
  { snapshot, bitmaps }: ServeOptions,
  changes: () => number,
): readonly MetaContext[] {
  if (snapshot === undefined) {
    return [allocationContext(node), ...bitmapContexts(node, bitmaps, changes)];
  }
  if (bitmaps !== undefined && bitmaps.length > 0) {
    throw invalid("Dirty bitmaps are of the disk as it is, not of its snapshots", "bitmap");
  }
  return [allocationContext(node)];
}

function requireText(text: string, what: string): void {
  if (new TextEncoder().encode(text).length > LIMIT.text) {
    throw invalid(`${what} is longer than ${LIMIT.text} bytes`, what);
  }
  if (text.includes("\0")) throw invalid(`${what} has a NUL in it`, what);
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}
