/**
 * Copying within the host (`convert -C`): the bytes never come here.
 *
 * @module
 */
import type { BlockNode, LocalFile } from "../../block/node.ts";
import { HostError } from "../../io/errno.ts";
import { type HostFile, openHostFile } from "../../io/host_file.ts";
import { type NativeFile, openNative } from "../../io/native.ts";
import { writeError, type Writer } from "./writer.ts";

interface OpenFile {
  readonly host: HostFile;
  readonly native: NativeFile | undefined;
}

/** Lets the host copy runs of plain bytes, until it turns out that it cannot. */
export class Offload implements Disposable {
  readonly #writer: Writer;
  readonly #files = new Map<string, OpenFile>();
  #isPossible = true;

  /** Copies into the target of `writer`. */
  constructor(writer: Writer) {
    this.#writer = writer;
  }

  /**
   * Copies `length` bytes at `from` of `file` to guest offset `to`, as far as the host can, and answers
   * how many it did.
   *
   * @throws {ImageError} `error while writing at byte <to>: …`
   */
  async copy(file: BlockNode, from: number, to: number, length: number): Promise<number> {
    let done = 0;
    try {
      while (done < length && this.#isPossible) {
        const count = await this.#copySome(file, from + done, to + done, length - done);
        if (count === undefined) this.#isPossible = false;
        else done += count;
      }
    } catch (error) {
      throw error instanceof HostError ? writeError(error, to) : error;
    }
    return done;
  }

  /** Closes the files. */
  [Symbol.dispose](): void {
    for (const { host, native } of this.#files.values()) {
      native?.close();
      host.close();
    }
    this.#files.clear();
  }

  async #copySome(
    file: BlockNode,
    from: number,
    to: number,
    length: number,
  ): Promise<number | undefined> {
    if (file.local === undefined) return undefined;
    const source = await this.#open(file.local, false);
    if (source === undefined) return undefined;
    const allocation = await this.#writer.allocate(to, length, to);
    if (allocation === null) return undefined;
    let isDone = false;
    try {
      const { local } = allocation.file;
      const target = local === undefined ? undefined : await this.#open(local, true);
      if (target === undefined) return undefined;
      for (let at = 0; at < allocation.length;) {
        const rest = allocation.length - at;
        const count = target.copyFrom(source, from + at, allocation.offset + at, rest);
        // Nothing where the source ends: what lies behind reads as zeros, which is not copying.
        if (count === undefined || count === 0) return undefined;
        at += count;
      }
      if (local!.sync) await allocation.file.flush();
      isDone = true;
      await this.#writer.publish(allocation, to);
      return allocation.length;
    } finally {
      if (!isDone) await allocation.abandon();
    }
  }

  async #open({ path, direct }: LocalFile, write: boolean): Promise<NativeFile | undefined> {
    // The page cache must agree with those who go past it.
    if (direct) return undefined;
    const key = `${write ? "to" : "from"} ${path}`;
    let file = this.#files.get(key);
    if (file === undefined) {
      const host = await openHostFile(path, { write });
      file = { host, native: openNative(host) };
      this.#files.set(key, file);
    }
    return file.native;
  }
}
