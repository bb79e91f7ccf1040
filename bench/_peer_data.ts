/** The images that `peers.ts` measures with, each made when a row first asks for it. */

import { join } from "@std/path";
import { deflateSync } from "node:zlib";
import { ChunkType, type DmgChunk, dmgImage } from "../tests/_dmg.ts";
import { ProgramBytes, RandomBytes, writeAt } from "./_disk.ts";
import { serveFolder } from "./_web.ts";

const KiB = 1 << 10;
const MiB = 1 << 20;

/** Images in one folder. */
export class PeerData {
  readonly #dir: string;
  readonly #scale: number;
  readonly #made = new Map<string, Promise<void>>();
  #web: string | undefined;

  /** In `dir`; sizes are multiplied by `scale`. */
  constructor(dir: string, scale: number) {
    this.#dir = dir;
    this.#scale = scale;
  }

  /** A file of this name, made by `make` once. */
  async #once(name: string, make: (path: string) => void | Promise<void>): Promise<string> {
    if (!this.#made.has(name)) {
      this.#made.set(name, Promise.resolve(make(join(this.#dir, name))));
    }
    await this.#made.get(name);
    return name;
  }

  /** Removes a file, which is made again when the next row asks for it. */
  async remove(name: string): Promise<void> {
    if (!this.#made.delete(name)) return;
    await Deno.remove(join(this.#dir, name));
  }

  #reference(...args: string[]): Promise<void> {
    return this.#tool("qemu-img", args);
  }

  async #tool(tool: string, args: string[]): Promise<void> {
    const { success, stderr } = await new Deno.Command(tool, { args, cwd: this.#dir }).output();
    if (!success) throw new Error(`${tool} ${args[0]}: ${new TextDecoder().decode(stderr)}`);
  }

  /** Has the reference serve a raw image at the socket `nbd.sock`, until its only client leaves. */
  async serve(name: string): Promise<void> {
    const socket = join(this.#dir, "nbd.sock");
    await Deno.remove(socket).catch(() => {});
    await this.#tool("qemu-nbd", ["--fork", "-f", "raw", "-k", socket, name]);
  }

  /** Of each 8 MiB 5 with data (programs, random bytes), 1 with zeros, 2 without anything. */
  #mixture(name: string, unscaledSize: number, seed: number): Promise<string> {
    return this.#once(name, (path) => {
      using file = Deno.openSync(path, { write: true, createNew: true });
      using program = new ProgramBytes();
      const random = new RandomBytes(seed);
      const size = unscaledSize * this.#scale;
      file.truncateSync(size);
      const piece = new Uint8Array(MiB);
      for (let at = 0; at < size; at += 8 * MiB) {
        for (let i = 0; i < 5; i++) {
          writeAt(file, at + i * MiB, i < 3 ? program.fill(piece) : random.fill(piece));
        }
        writeAt(file, at + 5 * MiB, piece.fill(0));
      }
    });
  }

  /** A raw disk as large as the sparse one, without data. */
  blank(): Promise<string> {
    return this.#once("blank.img", async (path) => {
      const { size } = await Deno.stat(join(this.#dir, await this.sparse()));
      await Deno.writeFile(path, new Uint8Array(0));
      await Deno.truncate(path, size);
    });
  }

  /** 2 GiB, of each 8 MiB 5 with data (programs, random bytes), 1 with zeros, 2 without anything. */
  sparse(): Promise<string> {
    return this.#mixture("sparse.img", 2048 * MiB, 1);
  }

  /** 1 GiB of the same kind. */
  mixed(): Promise<string> {
    return this.#mixture("mixed.img", 1024 * MiB, 4);
  }

  /** That 1 GiB in another format, as the reference stores it; `options` are those of `create -o`. */
  mixedAs(format: string, options: readonly string[]): Promise<string> {
    const name = `mixed.${[format, ...options].join("_").replaceAll(/[^a-zA-Z0-9]+/g, "_")}`;
    return this.#once(name, async () => {
      const source = await this.mixed();
      await this.#reference(
        ...["convert", "-f", "raw", "-O", format, ...options.flatMap((o) => ["-o", o])],
        ...[source, name],
      );
    });
  }

  /** The same as qcow2. */
  sparseQcow2(): Promise<string> {
    return this.#once("sparse.qcow2", async () => {
      await this.#reference("convert", "-O", "qcow2", await this.sparse(), "sparse.qcow2");
    });
  }

  /** 512 MiB of program files. */
  programs(): Promise<string> {
    return this.#once("programs.img", (path) => {
      using file = Deno.openSync(path, { write: true, createNew: true });
      using program = new ProgramBytes();
      const piece = new Uint8Array(MiB);
      for (let i = 0; i < 512 * this.#scale; i++) writeAt(file, i * MiB, program.fill(piece));
    });
  }

  #encrypted(name: string, options: string): Promise<string> {
    return this.#once(name, () =>
      this.#reference(
        ...["create", "-q", "--object", "secret,id=key,data=passphrase", "-f", "qcow2", "-o"],
        ...[`encrypt.format=luks,encrypt.key-secret=key${options}`, name],
        String(512 * MiB * this.#scale),
      ));
  }

  /** An empty encrypted qcow2 for them, which opens at once. */
  encryptedEmpty(): Promise<string> {
    return this.#encrypted("encrypted_empty.qcow2", ",encrypt.iter-time=10");
  }

  /** An encrypted qcow2 that takes two seconds to open. */
  hardToOpen(): Promise<string> {
    return this.#encrypted("hard.qcow2", ",encrypt.iter-time=2000");
  }

  /** The same as encrypted qcow2. */
  programsEncrypted(): Promise<string> {
    return this.#once("programs_encrypted.qcow2", async () => {
      await this.#reference(
        ...["convert", "--object", "secret,id=key,data=passphrase", "-f", "raw", "-O", "qcow2"],
        ...["-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"],
        ...[await this.programs(), "programs_encrypted.qcow2"],
      );
    });
  }

  /** An empty LUKS image for them, which opens at once. */
  luksEmpty(): Promise<string> {
    return this.#once("empty.luks", () =>
      this.#reference(
        ...["create", "-q", "--object", "secret,id=key,data=passphrase", "-f", "luks", "-o"],
        ...["key-secret=key,iter-time=10", "empty.luks", String(512 * MiB * this.#scale)],
      ));
  }

  /** The same as a LUKS image. */
  programsLuks(): Promise<string> {
    return this.#once("programs.luks", async () => {
      await this.#reference(
        ...["convert", "--object", "secret,id=key,data=passphrase", "-f", "raw", "-O", "luks"],
        ...["-o", "key-secret=key,iter-time=10", await this.programs(), "programs.luks"],
      );
    });
  }

  /** The same as compressed qcow2. */
  programsCompressed(): Promise<string> {
    return this.#once("programs.qcow2", async () => {
      const source = await this.programs();
      await this.#reference(
        ...["convert", "-c", "-W", "-m", "16", "-O", "qcow2", source, "programs.qcow2"],
      );
    });
  }

  /** 2 GiB, every other MiB with data. */
  #changed(): Promise<string> {
    return this.#once("changed.img", (path) => {
      using file = Deno.openSync(path, { write: true, createNew: true });
      const random = new RandomBytes(2);
      const size = 2048 * MiB * this.#scale;
      file.truncateSync(size);
      const piece = new Uint8Array(MiB);
      for (let at = 0; at < size; at += 2 * MiB) writeAt(file, at, random.fill(piece));
    });
  }

  /** The same as qcow2. */
  changedQcow2(): Promise<string> {
    return this.#once("changed.qcow2", async () => {
      await this.#reference("convert", "-O", "qcow2", await this.#changed(), "changed.qcow2");
    });
  }

  /** An image that holds the same data in front of an empty one, which has to be there as `base`; as `name`. */
  async copyChangesOf(base: string, name: string): Promise<void> {
    const original = await this.#once("changes.qcow2", async (path) => {
      const source = await this.#changed();
      await this.#reference("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path);
      await this.#reference(
        ...["convert", "-n", "--target-is-zero", "-f", "raw", "-O", "qcow2", source, path],
      );
    });
    await Deno.copyFile(join(this.#dir, original), join(this.#dir, name));
  }

  /** An image that holds nothing in front of the same data. */
  inFrontOfChanged(): Promise<string> {
    return this.#once("front.qcow2", async (path) => {
      const behind = await this.changedQcow2();
      await this.#reference("create", "-q", "-f", "qcow2", "-b", behind, "-F", "qcow2", path);
    });
  }

  /** 1 TiB with all tables and no data. */
  preallocated(): Promise<string> {
    return this.#once("preallocated.qcow2", async () => {
      const size = `${this.#scale}T`;
      await this.#reference(
        ...["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata"],
        ...["preallocated.qcow2", size],
      );
    });
  }

  /** Such an image with a snapshot. */
  withSnapshot(): Promise<string> {
    return this.#once("snapshot.qcow2", async () => {
      const size = `${this.#scale}T`;
      await this.#reference(
        ...["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "snapshot.qcow2", size],
      );
      await this.#reference("snapshot", "-c", "one", "snapshot.qcow2");
    });
  }

  /** 100,000 clusters, every other one with data. */
  alternating(): Promise<string> {
    return this.#once("alternating.qcow2", async () => {
      const path = join(this.#dir, "alternating.img");
      {
        using file = Deno.openSync(path, { write: true, createNew: true });
        const clusters = 100_000 * this.#scale;
        file.truncateSync(clusters * 64 * KiB);
        const block = new Uint8Array(4 * KiB).fill(0x5a);
        for (let i = 0; i < clusters; i += 2) writeAt(file, i * 64 * KiB, block);
      }
      await this.#reference("convert", "-O", "qcow2", "alternating.img", "alternating.qcow2");
      await Deno.remove(path);
    });
  }

  /** The URL of a file here on a server that answers 10 milliseconds late. */
  url(name: string): string {
    this.#web ??= serveFolder(this.#dir, 10);
    return `${this.#web}/${name}`;
  }

  /** 64 MiB of program files as compressed qcow2. */
  fewProgramsCompressed(): Promise<string> {
    return this.#once("few.qcow2", async (path) => {
      const raw = `${path}.raw`;
      {
        using file = Deno.openSync(raw, { write: true, createNew: true });
        using program = new ProgramBytes();
        const piece = new Uint8Array(MiB);
        for (let i = 0; i < 64 * this.#scale; i++) writeAt(file, i * MiB, program.fill(piece));
      }
      await this.#reference("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path);
      await Deno.remove(raw);
    });
  }

  /** An empty qcow2 of this size (`8T`). */
  empty(size: string): Promise<string> {
    return this.#once(`empty-${size}.qcow2`, async (path) => {
      await this.#reference("create", "-q", "-f", "qcow2", path, size);
    });
  }

  /** A Deno program that does nothing. */
  emptyScript(): Promise<string> {
    return this.#once("empty.ts", (path) => Deno.writeTextFile(path, ""));
  }

  /** 1 GiB as hdiutil stores a partition, deflated in chunks of 256 KiB: of each 8 MiB 5 programs, 1 random, 2 empty. */
  deflatedDmg(): Promise<string> {
    return this.#once("deflated.dmg", (path) => {
      using file = Deno.openSync(path, { write: true, createNew: true });
      using program = new ProgramBytes();
      const random = new RandomBytes(3);
      const piece = new Uint8Array(MiB / 4);
      const sectors = piece.length / 512;
      const chunks: DmgChunk[] = [];
      let at = 0;
      for (let index = 0; index < 4096 * this.#scale; index++) {
        const kind = Math.floor(index / 4) % 8;
        if (kind > 5) {
          chunks.push({ type: ChunkType.ignore, sectors });
          continue;
        }
        const bytes = deflateSync(kind < 5 ? program.fill(piece) : random.fill(piece));
        writeAt(file, at, bytes);
        chunks.push({ type: ChunkType.zlib, sectors, offset: at, length: bytes.length });
        at += bytes.length;
      }
      // Partitions begin at sector 40.
      const tables = [[{ type: ChunkType.zero, sectors: 40 }], chunks];
      writeAt(file, at, dmgImage({ tables, stored: at }));
    });
  }
}
