/**
 * Internal snapshots. Command-line reference, section 8.
 *
 * @module
 */
import type { SnapshotInfo } from "../block/capabilities.ts";
import { during, ImageError } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";

/** How to get at snapshots. */
export interface SnapshotOptions {
  /** Open the image even if others write to it meanwhile (`-U`); nothing can be changed then. */
  readonly forceShare?: boolean;
}

/** How to make a snapshot. */
export interface CreateSnapshotOptions extends SnapshotOptions {
  /** When it was made, milliseconds since 1970; default now. */
  readonly date?: number;
}

/** Says which snapshot is meant: a name or an id, whichever it turns out to be, or one or both of the two. */
export type SnapshotSelector =
  | string
  | { readonly id?: string | undefined; readonly name?: string | undefined };

const WRITABLE = { ...READ_ONLY, writable: true, unmap: true };

/**
 * The internal snapshots of an image, in the order of their table; none if its format has none.
 *
 * ```ts
 * import { createImage, createSnapshot, listSnapshots } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * await createSnapshot({ filename }, "before");
 * const [snapshot] = await listSnapshots({ filename });
 * assertEquals([snapshot?.id, snapshot?.name], ["1", "before"]);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} if the image cannot be opened.
 */
export async function listSnapshots(
  image: ImageReference,
  { forceShare = false }: SnapshotOptions = {},
  environment: Environment = QUIET,
): Promise<readonly SnapshotInfo[]> {
  await using node = await openImage(image, { ...READ_ONLY, forceShare }, environment);
  return node.snapshots?.list() ?? [];
}

/**
 * Makes a snapshot of an image's disk as it is. Names need not be different from those of others.
 *
 * After a failure the image is as it was before.
 *
 * @throws {ImageError} `Could not create snapshot '<name>': <reason>`
 */
export async function createSnapshot(
  image: ImageReference,
  name: string,
  { date = now(), forceShare = false }: CreateSnapshotOptions = {},
  environment: Environment = QUIET,
): Promise<void> {
  await using node = await openImage(image, { ...WRITABLE, forceShare }, environment);
  await during(`Could not create snapshot '${name}'`, async () => {
    const { create } = node.snapshots ?? {};
    if (create === undefined) throw ImageError.fromErrno("ENOTSUP", { file: node.filename });
    await create(name, date);
  });
}

/** Milliseconds since 1970, with microseconds behind the point. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

/**
 * Makes an image's disk what it was when a snapshot was made, its size included. What it holds is lost
 * unless another snapshot has it. `idOrName` is looked for among the ids first, then among the names.
 *
 * ```ts
 * import { applySnapshot, createImage, createSnapshot, openImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * await createSnapshot({ filename }, "empty");
 * {
 *   await using disk = await openImage(filename, { writable: true });
 *   await disk.write(0, Uint8Array.of(1, 2, 3));
 * }
 * await applySnapshot({ filename }, "empty");
 * {
 *   await using disk = await openImage(filename);
 *   const bytes = new Uint8Array(3);
 *   await disk.read(0, bytes);
 *   assertEquals(bytes, new Uint8Array(3));
 * }
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Could not apply snapshot '<idOrName>': <reason>`; the disk is then as it was before.
 */
export async function applySnapshot(
  image: ImageReference,
  idOrName: string,
  { forceShare = false }: SnapshotOptions = {},
  environment: Environment = QUIET,
): Promise<void> {
  const mode = { ...WRITABLE, resizing: true, forceShare };
  await using node = await openImage(image, mode, environment);
  const refuse = (reason: string, errno: "EBUSY" | "ENOTSUP") =>
    new ImageError(`Could not apply snapshot '${idOrName}': ${reason}`, {
      errno,
      file: node.filename,
    });
  if ((node.bitmaps?.list() ?? []).length > 0) {
    throw refuse("Device has active dirty bitmaps", "EBUSY");
  }
  const store = node.snapshots;
  if (store === undefined) throw refuse("Block driver does not support snapshots", "ENOTSUP");
  await during(`Could not apply snapshot '${idOrName}': Failed to load snapshot`, async () => {
    if (store.apply === undefined) throw ImageError.fromErrno("ENOTSUP", { file: node.filename });
    const snapshot = find(store.list(), { id: idOrName }) ?? find(store.list(), { name: idOrName });
    if (snapshot === undefined) throw notFound(node);
    await store.apply(snapshot);
  });
}

/**
 * Removes the first snapshot with a name, and from the image what nothing else uses.
 *
 * @throws {ImageError} `Could not delete snapshot '<name>': <reason>`
 */
export async function deleteSnapshot(
  image: ImageReference,
  name: string,
  { forceShare = false }: SnapshotOptions = {},
  environment: Environment = QUIET,
): Promise<void> {
  await using node = await openImage(image, { ...WRITABLE, forceShare }, environment);
  const failure = `Could not delete snapshot '${name}': `;
  const { list, remove } = node.snapshots ?? {};
  const snapshot = list === undefined ? undefined : find(list(), { name });
  if (snapshot === undefined || remove === undefined) {
    throw new ImageError(`${failure}snapshot not found`, { errno: "ENOENT", file: node.filename });
  }
  try {
    await remove(snapshot);
  } catch (error) {
    throw ImageError.from(error).prefixed(failure);
  }
}

/**
 * Lets an image that is open for reading show the data of a snapshot in place of its own.
 *
 * @throws {ImageError} `Failed to load snapshot: <reason>`
 */
export async function selectSnapshot(node: BlockNode, selector: SnapshotSelector): Promise<void> {
  const failure = "Failed to load snapshot: ";
  const { list, select } = node.snapshots ?? {};
  if (list === undefined || select === undefined) {
    throw new ImageError(
      `${failure}Block format '${node.driver}' used by device '' does not support temporarily loading ` +
        "internal snapshots",
      { errno: "ENOTSUP", file: node.filename },
    );
  }
  const wanted = typeof selector === "string" ? undefined : selector;
  if (wanted !== undefined && wanted.id === undefined && wanted.name === undefined) {
    throw new ImageError(`${failure}snapshot_id and name are both NULL`, { errno: "EINVAL" });
  }
  const snapshots = list();
  const snapshot = typeof selector === "string"
    ? find(snapshots, { id: selector }) ?? find(snapshots, { name: selector })
    : find(snapshots, selector);
  if (snapshot === undefined) {
    throw new ImageError(`${failure}Can't find snapshot`, {
      errno: "ENOENT",
      file: node.filename,
    });
  }
  try {
    await select(snapshot);
  } catch (error) {
    throw ImageError.from(error).prefixed(failure);
  }
}

/** The first snapshot with this id and this name, as far as they are given. */
function find(
  snapshots: readonly SnapshotInfo[],
  { id, name }: Exclude<SnapshotSelector, string>,
): SnapshotInfo | undefined {
  return snapshots.find((snapshot) =>
    (id === undefined || snapshot.id === id) && (name === undefined || snapshot.name === name)
  );
}

function notFound(node: BlockNode): ImageError {
  return ImageError.fromErrno("ENOENT", { file: node.filename, field: "snapshot table" });
}
