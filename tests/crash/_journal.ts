/**
 * What reached the files below an image, and what a crash may leave of it.
 *
 * Two kinds of crash: a killed process, after which a file holds every request
 * up to some moment; and a host that loses its page cache, after which each
 * sector written since the file's last flush holds what it held at any moment
 * since then. A sector of 512 bytes is never torn.
 */
import { MemoryNode, type MemoryRequest } from "../_memory_node.ts";
import type { Random } from "../_random.ts";

const SECTOR = 512;

/** A request that changes a file, or flushes it. */
type Change = MemoryRequest & { readonly kind: Exclude<MemoryRequest["kind"], "read"> };

/** A request that reached a file. */
export interface JournalEvent {
  /** Index of the file in the order of {@linkcode Journal.watch}. */
  readonly file: number;
  /** What was asked of it. Reads are not recorded. */
  readonly request: Change;
}

/** Records the requests of several files in the one order in which they came. */
export class Journal {
  /** Everything so far; an index in it is a moment. */
  readonly events: JournalEvent[] = [];
  readonly #files: { readonly name: string; readonly bytes: Uint8Array }[] = [];

  /** The moment after everything so far. */
  get now(): number {
    return this.events.length;
  }

  /**
   * Records the requests of a file from now on. `before` is asked first; a
   * request that it throws for is not recorded, for it is not done.
   */
  watch(node: MemoryNode, before: (request: MemoryRequest) => void = () => {}): void {
    const file = this.#files.push({ name: node.filename, bytes: node.bytes() }) - 1;
    node.onRequest((request) => {
      before(request);
      if (request.kind === "read") return;
      this.events.push({
        file,
        request: request.kind === "write"
          ? { ...request, bytes: request.bytes.slice() }
          : request as Change,
      });
    });
  }

  /** Goes through the recorded moments from the first to the last. */
  replay(): Replay {
    return new Replay(this.#files, this.events);
  }
}

/** Bytes of a file that can grow and shrink. */
class FileBytes {
  #bytes: Uint8Array;
  #length: number;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes.slice();
    this.#length = bytes.length;
  }

  get length(): number {
    return this.#length;
  }

  set length(length: number) {
    this.#reserve(length);
    this.#length = length;
  }

  /** What a reader sees. */
  get content(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  copy(): FileBytes {
    return new FileBytes(this.content);
  }

  /** Sets bytes; the length stays. */
  store(offset: number, bytes: Uint8Array): void {
    this.#reserve(offset + bytes.length);
    this.#bytes.set(bytes, offset);
  }

  erase(from: number, to: number): void {
    this.#bytes.fill(0, Math.min(from, this.#bytes.length), Math.min(to, this.#bytes.length));
  }

  #reserve(length: number): void {
    if (length <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(length, this.#bytes.length * 2));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** Does a part of a request to a file's bytes; `from` and `to` are bytes of the file. */
function apply(bytes: FileBytes, request: Change, from: number, to: number): void {
  if (request.kind === "write") {
    const start = Math.max(from, request.offset);
    const end = Math.min(to, request.offset + request.length);
    bytes.store(start, request.bytes.subarray(start - request.offset, end - request.offset));
  } else {
    bytes.erase(from, to);
  }
}

/** The bytes that a request changes, and the file's length afterwards. */
function effect(
  request: Change,
  length: number,
): { from: number; to: number; length: number } {
  const end = request.offset + request.length;
  switch (request.kind) {
    case "write":
    case "zero":
      return { from: request.offset, to: end, length: Math.max(length, end) };
    case "discard":
      return { from: request.offset, to: Math.min(end, length), length };
    case "resize":
      // What is cut off is zeros when the file grows again.
      return { from: request.length, to: Math.max(length, request.length), length: request.length };
    case "flush":
      return { from: 0, to: 0, length };
  }
}

/** A file while its requests are replayed. */
interface ReplayedFile {
  readonly name: string;
  /** After all requests so far. */
  readonly current: FileBytes;
  /** After the last flush. */
  durable: FileBytes;
  /** Requests since then, with the file's length after each. */
  pending: { readonly request: Change; readonly length: number }[];
}

/** The way through a journal. */
export class Replay {
  /** The moment: how many events are done. */
  time = 0;
  readonly #events: readonly JournalEvent[];
  readonly #files: readonly ReplayedFile[];

  /** Starts before the first event. */
  constructor(
    files: readonly { readonly name: string; readonly bytes: Uint8Array }[],
    events: readonly JournalEvent[],
  ) {
    this.#events = events;
    this.#files = files.map(({ name, bytes }) => ({
      name,
      current: new FileBytes(bytes),
      durable: new FileBytes(bytes),
      pending: [],
    }));
  }

  /** Does the next event. `false`: there is none. */
  step(): boolean {
    const event = this.#events[this.time];
    if (event === undefined) return false;
    this.time++;
    const file = this.#files[event.file]!;
    if (event.request.kind === "flush") {
      if (file.pending.length > 0) file.durable = file.current.copy();
      file.pending = [];
      return true;
    }
    const { from, to, length } = effect(event.request, file.current.length);
    if (to > from) apply(file.current, event.request, from, to);
    file.current.length = length;
    file.pending.push({ request: event.request, length });
    return true;
  }

  /** The files after everything. */
  end(): MemoryNode[] {
    while (this.step());
    return this.killed();
  }

  /** Whether a host that fails now may lose something. */
  get volatile(): boolean {
    return this.#files.some(({ pending }) => pending.length > 0);
  }

  /** The files after the process was killed at this moment. */
  killed(): MemoryNode[] {
    return this.#files.map(({ name, current }) =>
      new MemoryNode({ filename: name, bytes: current.content })
    );
  }

  /** The files after the host failed at this moment: one of the many possible outcomes. */
  lost(random: Random): MemoryNode[] {
    return this.#files.map((file) => {
      const bytes = file.durable.copy();
      if (file.pending.length > 0) keepSome(bytes, file, chooseLosses(file, random), random);
      return new MemoryNode({ filename: file.name, bytes: bytes.content });
    });
  }
}

/** Says of a request whether one sector's part of it (and all later ones to that sector) is lost. */
type Losses = (index: number, sector: number) => boolean;

function chooseLosses({ pending }: ReplayedFile, random: Random): Losses {
  const one = random.below(pending.length);
  switch (random.below(5)) {
    case 0:
      // All but one: finds every pair in the wrong order.
      return (index) => index === one;
    case 1:
      return (index) => index !== one;
    case 2:
      // One sector of one request.
      return (index, sector) => index === one && sector % 2 === random.below(2);
    case 3: {
      const lost = pending.map(() => random.oneIn(2));
      return (index) => lost[index]!;
    }
    default: {
      const often = random.pick([2, 3, 8]);
      return () => random.oneIn(often);
    }
  }
}

function keepSome(
  bytes: FileBytes,
  { pending, durable }: ReplayedFile,
  losses: Losses,
  random: Random,
): void {
  const over = new Set<number>();
  const lengths = [durable.length];
  let length = durable.length;
  for (const [index, { request, length: after }] of pending.entries()) {
    const { from, to } = effect(request, length);
    for (let at = from - from % SECTOR; at < to; at += SECTOR) {
      const sector = at / SECTOR;
      if (over.has(sector)) continue;
      if (losses(index, sector)) over.add(sector);
      else apply(bytes, request, Math.max(at, from), Math.min(at + SECTOR, to));
    }
    length = after;
    lengths.push(after);
  }
  // The length is a thing of its own; mostly it is there.
  bytes.length = random.oneIn(4) ? random.pick(lengths) : Math.max(...lengths);
}
