/** Folders as disks, for tests. */
import { assert, assertEquals } from "@std/assert";
import { layoutOf } from "../../../drivers/vvfat/layout.ts";
import { openImage } from "../../../lib/graph/open.ts";
import { type Environment, QUIET } from "../../../lib/graph/environment.ts";
import { equalBytes } from "../../../lib/bytes/equal.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { Random } from "../../_random.ts";
import { FatEditor } from "./_fat_editor.ts";

/** The floppy disk that these tests use: small enough to be held in memory. */
export const FLOPPY = layoutOf({ fatType: undefined, floppy: true });

/** A folder's content: bytes of files, where links lead to, `null` for folders, by path. */
export type Content = Map<string, Uint8Array | null>;

/** What a folder holds. */
export function contentOf(folder: string, below = "", content: Content = new Map()): Content {
  for (const entry of Deno.readDirSync(`${folder}/${below}`)) {
    const path = below + entry.name;
    const bytes = () =>
      entry.isSymlink
        ? new TextEncoder().encode(`-> ${Deno.readLinkSync(`${folder}/${path}`)}`)
        : Deno.readFileSync(`${folder}/${path}`);
    content.set(path, entry.isDirectory ? null : bytes());
    if (entry.isDirectory) contentOf(folder, `${path}/`, content);
  }
  return content;
}

/** Asserts that a folder holds this and nothing else. */
export function assertContent(folder: string, expected: Content, message?: string): void {
  const found = contentOf(folder);
  assertEquals([...found.keys()].sort(), [...expected.keys()].sort(), message);
  for (const [path, bytes] of expected) assertEquals(found.get(path), bytes, `${message}: ${path}`);
}

/** Opens a folder. */
export function openFolder(
  folder: string,
  { words = "floppy:", writable = false, environment = QUIET }: {
    readonly words?: string;
    readonly writable?: boolean;
    readonly environment?: Environment;
  } = {},
): Promise<BlockNode> {
  return openImage({ filename: `fat:${words}${folder}`, format: "raw" }, {
    ...READ_ONLY,
    writable,
  }, environment);
}

/** A folder as a floppy disk that can be written, and a user of it. */
export class WritableFolder implements AsyncDisposable {
  /** The disk. */
  readonly node: BlockNode;
  /** Changes it; not before `send` does the node know of it. */
  readonly editor: FatEditor;
  readonly #sent: Uint8Array;
  readonly #random: Random;

  private constructor(node: BlockNode, disk: Uint8Array, random: Random) {
    this.node = node;
    this.#sent = disk.slice();
    this.#random = random;
    this.editor = new FatEditor(disk, FLOPPY, random);
  }

  /** Opens a folder. */
  static async open(folder: string, random = new Random(1)): Promise<WritableFolder> {
    const node = await openFolder(folder, { words: "floppy:rw:", writable: true });
    const disk = new Uint8Array(node.length);
    await node.read(0, disk);
    return new WritableFolder(node, disk, random);
  }

  /** Writes the sectors that are different by now, in any order. */
  async send(): Promise<void> {
    const { disk } = this.editor;
    const changed: number[] = [];
    for (let at = 0; at < disk.length; at += 512) {
      const isSame = equalBytes(disk.subarray(at, at + 512), this.#sent.subarray(at, at + 512));
      if (!isSame) changed.splice(this.#random.below(changed.length + 1), 0, at);
    }
    for (const at of changed) await this.node.write(at, disk.subarray(at, at + 512));
    this.#sent.set(disk);
  }

  /** Writes what is different and flushes. */
  async commit(): Promise<void> {
    await this.send();
    await this.node.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node[Symbol.asyncDispose]();
  }
}

/** Fills a folder. */
export function fill(folder: string, files: Readonly<Record<string, string | null>>): void {
  for (const [path, text] of Object.entries(files)) {
    if (text === null) Deno.mkdirSync(`${folder}/${path}`);
    else Deno.writeTextFileSync(`${folder}/${path}`, text);
  }
}

/** Number of a file on its file system. */
export function inodeOf(path: string): number {
  const { ino } = Deno.lstatSync(path);
  assert(ino !== null);
  return ino;
}
