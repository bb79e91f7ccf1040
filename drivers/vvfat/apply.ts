/**
 * Makes a folder like the disk: new content goes into temporary files first, everything that leaves its
 * place is moved aside, and what is done can be undone until all is done.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { HostError } from "../../lib/io/errno.ts";
import { type Changes, pairsOf } from "./changes.ts";
import { unpackModified } from "./entries.ts";
import type { ParsedItem } from "./parse.ts";
import { type DiskItem, type DiskTree, identityOf } from "./tree.ts";

/** Characters that names on FAT file systems cannot have; control characters are refused, too. */
const FORBIDDEN = /["*/:<>?\\|]/;

/** The longest name that hosts take, bytes. */
const MAX_NAME = 255;

/**
 * Makes the changes in the folder, and answers with what it is then.
 *
 * @throws {ImageError} for what must not be done, and where the host refuses; the folder is then as it was.
 */
export async function applyChanges(changes: Changes, context: DriverContext): Promise<DiskTree> {
  const { leaving, rewritten, touched, origins, before, after } = changes;
  const isSame = leaving.length === 0 && rewritten.size === 0 && touched.length === 0 &&
    [...pairsOf(after.top)].every(([, item]) => origins.has(item));
  if (!isSame) {
    new Guard(changes).check();
    const work = new Work(before.top.path, context);
    try {
      await work.do(changes);
    } catch (error) {
      work.undo();
      throw onHost(error);
    }
    work.finish();
  }
  return { top: settle(after.top, before.top.path, changes), fat: after.fat };
}

function onHost(error: unknown): unknown {
  const known = HostError.from(error, "write", "");
  if (!(known instanceof HostError)) return error;
  // Deno's words name the file.
  const message = error instanceof Error ? error.message : known.message;
  return new ImageError(message, { errno: known.errno, cause: error });
}

function refused(message: string, file: string): ImageError {
  return new ImageError(message, { errno: "EPERM", file });
}

/** Looks at everything before anything is done. */
class Guard {
  readonly #changes: Changes;
  readonly #safeFolders = new Set<DiskItem>();

  constructor(changes: Changes) {
    this.#changes = changes;
  }

  check(): void {
    const { leaving, origins, rewritten, touched, after, before } = this.#changes;
    const kept = new Set(origins.values());
    const gone = new Set(leaving);
    for (const item of gone) {
      this.#requireUnchanged(item);
      if (item.directory !== undefined && !kept.has(item)) requireNothingHidden(item);
    }
    for (const item of [...rewritten, ...touched]) {
      const origin = origins.get(item);
      if (origin !== undefined) this.#requireUnchanged(origin);
    }
    this.#requireSafeFolder(before.top);
    for (const folder of foldersOf(before.top, gone)) this.#requireSafeFolder(folder);
    for (const [parent, item] of pairsOf(after.top)) {
      const origin = origins.get(item);
      const stays = origin !== undefined && !gone.has(origin);
      if (!stays) requireName(item.name);
      const folder = origins.get(parent);
      if ((!stays || rewritten.has(item)) && folder !== undefined) this.#requireSafeFolder(folder);
    }
  }

  /** Nobody else changed the file since the disk was made of it, and nothing leads elsewhere. */
  #requireUnchanged({ path, identity, directory, untouchable }: DiskItem): void {
    if (untouchable) {
      throw refused(
        `'${path}' is a link, is reached through one, or is no file: it is not changed`,
        path,
      );
    }
    const now = look(path);
    const found = now === undefined ? undefined : identityOf(now);
    const isSame = found !== undefined && !now!.isSymlink && found.device === identity.device &&
      found.inode === identity.inode &&
      (directory !== undefined || now!.isFile && found.size === identity.size &&
          found.modified === identity.modified);
    if (isSame) return;
    throw refused(`'${path}' was changed by somebody else meanwhile`, path);
  }

  /** Things are done in a folder only where its path has no links. */
  #requireSafeFolder(folder: DiskItem): void {
    if (this.#safeFolders.has(folder)) return;
    this.#requireUnchanged(folder);
    const path = folder.path === "" ? "/" : folder.path;
    if (slashed(Deno.realPathSync(path)) !== slashed(path)) {
      throw refused(`'${path}' is reached through a link`, path);
    }
    this.#safeFolders.add(folder);
  }
}

/** A path with the same separator everywhere. */
function slashed(path: string): string {
  return Deno.build.os === "windows" ? path.replaceAll("\\", "/") : path;
}

/** The folders that some of the items are in. */
function* foldersOf(top: DiskItem, items: ReadonlySet<DiskItem>): Generator<DiskItem> {
  const open = [top];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    let found = false;
    for (const child of folder.children.values()) {
      if (items.has(child)) found = true;
      if (child.directory !== undefined) open.push(child);
    }
    if (found) yield folder;
  }
}

/** What the disk never showed does not vanish with its folder. */
function requireNothingHidden({ path, children }: DiskItem): void {
  for (const { name } of Deno.readDirSync(path)) {
    if (children.has(name)) continue;
    throw refused(`'${path}' holds '${name}', which the disk does not show`, path);
  }
}

/** @throws {ImageError} for a name that would not be one file of its folder everywhere. */
function requireName(name: string): void {
  const isControl = (char: string) => char.charCodeAt(0) < 0x20 || char === "\x7f";
  const isFine = name !== "" && name !== "." && name !== ".." && !FORBIDDEN.test(name) &&
    !Array.from(name).some(isControl) && name.isWellFormed() &&
    new TextEncoder().encode(name).length <= MAX_NAME &&
    !(Deno.build.os === "windows" && /[. ]$/.test(name));
  if (isFine) return;
  throw new ImageError(`No file can be called ${JSON.stringify(name)}`, {
    errno: "EINVAL",
    field: "name",
  });
}

/** What is there, links not followed; `undefined` if nothing is. */
function look(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw onHost(error);
  }
}

/** The steps, and how to take them back. */
class Work {
  readonly #context: DriverContext;
  /** A folder of its own beside the files: moving within a file system is at once or not at all. */
  readonly #aside: string;
  readonly #undo: (() => void)[] = [];
  /** What to remove at the end, in order. */
  readonly #rest: string[] = [];
  readonly #folders = new Set<string>();
  #count = 0;

  constructor(top: string, context: DriverContext) {
    this.#context = context;
    try {
      this.#aside = Deno.makeTempDirSync({ dir: top === "" ? "/" : top, prefix: ".qimg-vvfat-" });
    } catch (error) {
      throw onHost(error);
    }
  }

  async do(changes: Changes): Promise<void> {
    const { leaving, rewritten, touched, origins, before, after } = changes;
    const fresh = new Map<ParsedItem, string>();
    for (const file of rewritten) fresh.set(file, await this.#store(file, changes));
    const aside = new Map<DiskItem, string>();
    for (const item of leaving) aside.set(item, this.#moveAside(item));
    const paths = new Map([[after.top, before.top.path]]);
    for (const [parent, item] of pairsOf(after.top)) {
      const path = `${paths.get(parent)!}/${item.name}`;
      paths.set(item, path);
      const origin = origins.get(item);
      const from = origin === undefined ? undefined : aside.get(origin);
      const stored = fresh.get(item);
      if (stored !== undefined) {
        this.#place(stored, path, origin !== undefined && from === undefined);
      } else if (from !== undefined) {
        this.#place(from, path, false);
        aside.delete(origin!);
      } else if (origin === undefined) {
        this.#makeFolder(path);
      }
    }
    // What is in a folder was moved before it: the folder is empty by now.
    this.#rest.push(...aside.values());
    for (const item of touched) this.#touch(paths.get(item)!, item, origins.get(item)!);
  }

  /** Stores the content of a file under a name of its own. */
  async #store(file: ParsedItem, { content, origins }: Changes): Promise<string> {
    const path = this.#newPath();
    this.#rest.push(path);
    const stored = Deno.openSync(path, { write: true, createNew: true });
    try {
      for await (const piece of content(file)) {
        for (let done = 0; done < piece.length;) done += stored.writeSync(piece.subarray(done));
      }
      if (!this.#context.mode.cache.noFlush) stored.syncSync();
    } finally {
      stored.close();
    }
    const mode = origins.get(file)?.identity.mode ?? null;
    if (mode !== null && Deno.build.os !== "windows") Deno.chmodSync(path, mode & 0o777);
    const modified = unpackModified(file.modified);
    if (modified !== undefined) Deno.utimeSync(path, modified, modified);
    return path;
  }

  #moveAside(item: DiskItem): string {
    const path = this.#newPath();
    this.#rename(item.path, path);
    return path;
  }

  /** Puts something where it belongs; only what is known to be there is replaced. */
  #place(from: string, path: string, replaces: boolean): void {
    if (!replaces) {
      if (look(path) !== undefined) {
        throw refused(`'${path}' is there already, and the disk does not show it`, path);
      }
      this.#rename(from, path);
      return;
    }
    const kept = this.#newPath();
    try {
      // The old file stays where it is until the new one takes its place in one step.
      Deno.linkSync(path, kept);
    } catch {
      this.#rename(path, kept);
      this.#rest.push(kept);
      this.#rename(from, path);
      return;
    }
    this.#rest.push(kept);
    Deno.renameSync(from, path);
    this.#undo.push(() => Deno.renameSync(kept, path));
    this.#noteFolder(path);
  }

  #rename(from: string, to: string): void {
    Deno.renameSync(from, to);
    this.#undo.push(() => Deno.renameSync(to, from));
    this.#noteFolder(from);
    this.#noteFolder(to);
  }

  #makeFolder(path: string): void {
    Deno.mkdirSync(path);
    this.#undo.push(() => Deno.removeSync(path));
    this.#noteFolder(path);
  }

  #touch(path: string, { modified }: ParsedItem, { identity }: DiskItem): void {
    const time = unpackModified(modified);
    if (time === undefined) return;
    Deno.utimeSync(path, time, time);
    const before = new Date(identity.modified);
    this.#undo.push(() => Deno.utimeSync(path, before, before));
  }

  #newPath(): string {
    return `${this.#aside}/${this.#count++}`;
  }

  #noteFolder(path: string): void {
    this.#folders.add(path.slice(0, path.lastIndexOf("/")));
  }

  /** Takes everything back, as far as the host lets it. */
  undo(): void {
    for (const step of this.#undo.reverse()) this.#try(step);
    this.#cleanUp();
  }

  /** Makes the new names last, and lets go of the old files. */
  finish(): void {
    if (!this.#context.mode.cache.noFlush) {
      for (const folder of this.#folders) {
        try {
          using handle = Deno.openSync(folder === "" ? "/" : folder);
          handle.syncSync();
        } catch {
          // Not all systems have that for folders, and some of the folders are no more.
        }
      }
    }
    this.#cleanUp();
  }

  #cleanUp(): void {
    for (const path of this.#rest) {
      if (look(path) !== undefined) this.#try(() => Deno.removeSync(path));
    }
    this.#try(() => Deno.removeSync(this.#aside));
  }

  #try(step: () => void): void {
    try {
      step();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#context.warn(`'${this.#aside}' may hold files of the folder: ${reason}`);
    }
  }
}

/** What the folder is now. */
function settle(item: ParsedItem, path: string, { origins, before }: Changes): DiskItem {
  const settled = (item: ParsedItem, path: string): DiskItem => {
    const origin = origins.get(item);
    const untouchable = origin?.untouchable ?? false;
    const info = untouchable ? undefined : look(path === "" ? "/" : path);
    const identity = info === undefined ? origin?.identity : identityOf(info);
    return {
      name: item.name,
      path,
      clusters: item.clusters,
      size: item.size,
      modified: item.modified,
      directory: item.directory,
      children: new Map(
        Array.from(
          item.children,
          ([name, child]) => [name, settled(child, `${path}/${name}`)] as const,
        ),
      ),
      // What has vanished within a moment is noticed when it is changed next.
      identity: identity ?? before.top.identity,
      untouchable,
    };
  };
  return settled(item, path);
}
