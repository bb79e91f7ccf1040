/**
 * Doing jobs, in whatever thread.
 *
 * @module
 */
import { firstDifference } from "../../bytes/equal.ts";
import { firstNonZero, isZero } from "../../bytes/zero_scan.ts";
import {
  type Codec,
  CodecError,
  type CodecName,
  loadCodec,
  loadUnpacker,
  type Unpacker,
} from "../../codec/mod.ts";
import type { CipherSpec } from "../../crypto/algorithms.ts";
import type { SectorCipher } from "../../crypto/sector_cipher.ts";
import { HostError } from "../../io/errno.ts";
import { type HostFile, openHostFile } from "../../io/host_file.ts";
import {
  CHUNK_SIZE,
  type CompareJob,
  type DataRun,
  type Job,
  type JobFile,
  type JobPiece,
  type PackJob,
  type Part,
  PLAIN_CLUSTER,
  type ReadJob,
  type ResultOf,
  ZERO_CLUSTER,
} from "./job.ts";
import { dataRuns } from "./sparse.ts";

const SECTOR = 512;

/** Open files kept for later jobs; more are only in use with images of very many files. */
const MOST_FILES = 64;

/** Whether two arrays of one length have the same bytes. */
type Equality = (a: Uint8Array, b: Uint8Array) => boolean;

/** How a {@linkcode JobRunner} does its jobs. */
export interface JobRunnerOptions {
  /** It is worth 10 ms at the start to compare five times as fast. */
  readonly forMuch?: boolean;
}

/** Does jobs one after the other, with files and buffers of its own. */
export class JobRunner implements Disposable {
  readonly #slots: readonly Uint8Array[];
  readonly #forMuch: boolean;
  #equal: Equality = () => false;
  readonly #files = new Map<string, HostFile>();
  readonly #unpackers = new Map<CodecName, Unpacker>();
  /** That of the job that is being done, if it packs. */
  #codec: Codec | undefined;
  readonly #crypto = new Deciphers();
  readonly #packed = new Scratch();
  readonly #cluster = new Scratch();
  readonly #left = new Scratch();
  readonly #right = new Scratch();

  /** A runner of jobs that refer to these slots. */
  constructor(slots: readonly Uint8Array[], { forMuch = false }: JobRunnerOptions = {}) {
    this.#slots = slots;
    this.#forMuch = forMuch;
  }

  /** Does a job. Calls must not overlap. */
  async run<J extends Job>(job: J): Promise<ResultOf<J>> {
    try {
      // Everything that takes waiting comes first; the work itself is synchronous.
      const files: HostFile[] = [];
      for (const file of job.files) files.push(await this.#open(file));
      for (const name of codecsOf(job)) {
        if (!this.#unpackers.has(name)) this.#unpackers.set(name, await loadUnpacker(name));
      }
      if (partsOf(job).some(({ kind }) => kind === "sealed")) await this.#crypto.load();
      if (job.kind === "pack") this.#codec = await loadCodec(job.codec);
      if (job.kind === "compare" && this.#forMuch) this.#equal = await loadEquality();
      return this.#do(job, files) as ResultOf<J>;
    } catch (error) {
      if (error instanceof HostError || error instanceof CodecError) {
        return { kind: "failed" } as ResultOf<J>;
      }
      throw error;
    }
  }

  /** Closes the files. */
  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file.close();
    this.#files.clear();
    this.#crypto[Symbol.dispose]();
  }

  async #open({ path, direct }: JobFile): Promise<HostFile> {
    const key = `${direct ? "direct" : "cached"} ${path}`;
    let file = this.#files.get(key);
    if (file === undefined) {
      file = await openHostFile(path, { direct });
      this.#files.set(key, file);
      for (const [oldest, open] of this.#files) {
        if (this.#files.size <= MOST_FILES) break;
        open.close();
        this.#files.delete(oldest);
      }
    }
    return file;
  }

  #do(job: Job, files: readonly HostFile[]): ResultOf<Job> {
    switch (job.kind) {
      case "read":
        return { kind: "read", runs: this.#read(job, files) };
      case "pack":
        return { kind: "pack", lengths: this.#pack(job, files) };
      case "compare":
        return { kind: "compare", mismatch: this.#compare(job, files) };
    }
  }

  #read({ slot, pieces, sparse }: ReadJob, files: readonly HostFile[]): DataRun[][] {
    let at = 0;
    return pieces.map((piece) => {
      const into = this.#slots[slot]!.subarray(at, at + piece.length);
      at += piece.length;
      this.#fill(piece, into, into, files);
      return dataRuns(into, piece.offset, sparse);
    });
  }

  #pack(job: PackJob, files: readonly HostFile[]): number[] {
    const { pieces, level, clusterSize, keepZeros } = job;
    const codec = this.#codec!;
    const slot = this.#slots[job.slot]!;
    const lengths: number[] = [];
    // Output takes the place of input that was not looked at yet, so all input is taken out first.
    const total = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const input = this.#left.take(total);
    let at = 0;
    for (const piece of pieces) {
      const end = at + piece.length;
      this.#fill(piece, input.subarray(at, end), slot.subarray(at, end), files);
      at = end;
    }
    let from = 0;
    let to = 0;
    for (const piece of pieces) {
      const end = from + piece.length;
      for (; from < end; from += clusterSize) {
        let cluster = input.subarray(from, Math.min(from + clusterSize, end));
        if (!keepZeros && isZero(cluster)) {
          lengths.push(ZERO_CLUSTER);
          continue;
        }
        const stored = cluster;
        if (cluster.length < clusterSize) {
          // A cluster is packed whole, also where the disk ends within it.
          cluster = this.#cluster.take(clusterSize);
          cluster.set(stored);
          cluster.fill(0, stored.length);
        }
        const room = slot.subarray(to, Math.min(to + clusterSize - 1, slot.length));
        const length = codec.pack(cluster, room, level);
        if (length === null) slot.set(stored, to);
        lengths.push(length ?? PLAIN_CLUSTER);
        to += length ?? stored.length;
      }
      from = end;
    }
    return lengths;
  }

  #compare({ pairs }: CompareJob, files: readonly HostFile[]): number {
    for (const { offset, left, right } of pairs) {
      // A cluster is inflated once; plain runs go in steps that stay in the processor's cache.
      const step = left.kind === "packed" || right.kind === "packed" ? left.length : CHUNK_SIZE / 2;
      for (let at = 0; at < left.length; at += step) {
        const length = Math.min(step, left.length - at);
        const found = this.#difference(left, right, at, length, files);
        if (found >= 0) return offset + at + found;
      }
    }
    return -1;
  }

  /** The first sector that differs within `length` bytes of two parts from their byte `at` on. */
  #difference(
    left: Part,
    right: Part,
    at: number,
    length: number,
    files: readonly HostFile[],
  ): number {
    if (left.kind === "zero" || right.kind === "zero") {
      const part = left.kind === "zero" ? right : left;
      const bytes = this.#left.take(length);
      this.#fillPart(part, at, bytes, bytes, files);
      const found = firstNonZero(bytes);
      return found < 0 ? -1 : found - found % SECTOR;
    }
    const a = this.#left.take(length);
    this.#fillPart(left, at, a, a, files);
    const b = this.#right.take(length);
    this.#fillPart(right, at, b, b, files);
    return this.#equal(a, b) ? -1 : firstDifference(a, b, SECTOR);
  }

  /** Fills `into` with a piece. `ready` is the piece's place in the slot. */
  #fill(piece: JobPiece, into: Uint8Array, ready: Uint8Array, files: readonly HostFile[]): void {
    let at = 0;
    for (const part of piece.parts) {
      const end = at + part.length;
      this.#fillPart(part, 0, into.subarray(at, end), ready.subarray(at, end), files);
      at = end;
    }
  }

  /** Fills `into` with the bytes of a part from its byte `from` on. */
  #fillPart(
    part: Part,
    from: number,
    into: Uint8Array,
    ready: Uint8Array,
    files: readonly HostFile[],
  ): void {
    switch (part.kind) {
      case "zero":
        into.fill(0);
        return;
      case "ready":
        if (into !== ready && into.buffer !== ready.buffer) into.set(ready);
        return;
      case "plain":
        readPadded(files[part.file]!, part.offset + from, into);
        return;
      case "packed":
        this.#unpack(part, part.skip + from, into, files[part.file]!);
        return;
      case "sealed":
        readPadded(files[part.file]!, part.offset + from, into);
        this.#crypto.of(part).decrypt(into, into, part.sector + from / SECTOR);
    }
  }

  #unpack(
    part: Extract<Part, { kind: "packed" }>,
    skip: number,
    into: Uint8Array,
    file: HostFile,
  ): void {
    const codec = this.#unpackers.get(part.codec)!;
    const packed = this.#packed.take(part.packedLength);
    const got = packed.subarray(0, file.readAt(part.offset, packed));
    if (skip === 0 && into.length === part.size) {
      codec.unpack(got, into);
      return;
    }
    const cluster = this.#cluster.take(part.size);
    codec.unpack(got, cluster);
    into.set(cluster.subarray(skip, skip + into.length));
  }
}

/** The ciphers that jobs came with, each made once. */
class Deciphers implements Disposable {
  readonly #ciphers = new Map<string, SectorCipher>();
  #make: ((spec: CipherSpec, key: Uint8Array) => SectorCipher) | undefined;

  /** Comes before the first cipher. */
  async load(): Promise<void> {
    if (this.#make !== undefined) return;
    const { loadNodeCrypto } = await import("../../crypto/node_crypto.ts");
    const { createSectorCipher } = await import("../../crypto/sector_cipher.ts");
    const crypto = await loadNodeCrypto();
    this.#make = (spec, key) => createSectorCipher(crypto, spec, key);
  }

  /** The cipher of a part. */
  of({ cipher: spec, key }: Extract<Part, { kind: "sealed" }>): SectorCipher {
    const { cipher, mode, ivgen, ivgenHash } = spec;
    const name = [cipher, mode, ivgen, ivgenHash, key.toHex()].join(" ");
    let found = this.#ciphers.get(name);
    if (found === undefined) this.#ciphers.set(name, found = this.#make!(spec, key));
    return found;
  }

  [Symbol.dispose](): void {
    for (const cipher of this.#ciphers.values()) cipher[Symbol.dispose]();
    this.#ciphers.clear();
  }
}

async function loadEquality(): Promise<Equality> {
  const { Buffer } = await import("node:buffer");
  const view = ({ buffer, byteOffset, length }: Uint8Array) =>
    Buffer.from(buffer, byteOffset, length);
  return (a, b) => view(a).equals(view(b));
}

/** A buffer that grows as needed and is used again and again. */
class Scratch {
  #bytes = new Uint8Array(0);

  /** `length` bytes with any content. */
  take(length: number): Uint8Array {
    if (this.#bytes.length < length) this.#bytes = new Uint8Array(length);
    return this.#bytes.subarray(0, length);
  }
}

/** Reads what is there, and zeros behind the file's end, in chunks that stay in the processor's cache on their way through the system. */
export function readPadded(file: HostFile, offset: number, into: Uint8Array): void {
  for (let at = 0; at < into.length; at += CHUNK_SIZE) {
    const chunk = into.subarray(at, at + CHUNK_SIZE);
    const count = file.readAt(offset + at, chunk);
    if (count < chunk.length) {
      into.fill(0, at + count);
      return;
    }
  }
}

/** The compressions that a job reads. */
function codecsOf(job: Job): Set<CodecName> {
  return new Set(partsOf(job).flatMap((part) => part.kind === "packed" ? [part.codec] : []));
}

/** All that a job reads. */
function partsOf(job: Job): readonly Part[] {
  return job.kind === "compare"
    ? job.pairs.flatMap(({ left, right }) => [left, right])
    : job.pieces.flatMap(({ parts }) => parts);
}
