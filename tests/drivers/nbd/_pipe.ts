import type { Connection } from "../../../lib/nbd/stream.ts";

/** Bytes on their way in one direction. */
class Stream {
  #bytes = new Uint8Array();
  #isEnded = false;
  #wake: () => void = () => {};
  /** Somebody waits for bytes. */
  isAwaited = false;

  push(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.#bytes.length + bytes.length);
    joined.set(this.#bytes);
    joined.set(bytes, this.#bytes.length);
    this.#bytes = joined;
    this.#wake();
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  async take(into: Uint8Array, most: number): Promise<number | null> {
    while (this.#bytes.length === 0) {
      if (this.#isEnded) return null;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.isAwaited = true;
      await promise;
      this.isAwaited = false;
    }
    const count = Math.min(into.length, this.#bytes.length, most);
    into.set(this.#bytes.subarray(0, count));
    this.#bytes = this.#bytes.slice(count);
    return count;
  }
}

/** How bytes get from one end to the other. */
export interface PipeOptions {
  /** Changes what the server sends, in the pieces in which it does. */
  readonly alter?: (bytes: Uint8Array) => Uint8Array;
  /** The longest piece that a read of the client gets, bytes. */
  readonly piece?: number;
}

/** A connection without a network: what is written at one end is read at the other. */
export interface Pipe {
  /** The client's end. */
  readonly client: Connection;
  /** The server's end. */
  readonly server: Connection;
  /** Whether both wait for the other to say something. */
  readonly isStuck: boolean;
  /** Ends both directions. */
  end(): void;
}

/** A new connection. */
export function pipe({ alter = (bytes) => bytes, piece = Infinity }: PipeOptions = {}): Pipe {
  const up = new Stream();
  const down = new Stream();
  const end = () => {
    up.end();
    down.end();
  };
  return {
    client: {
      read: (into) => down.take(into, piece),
      write(from) {
        up.push(from);
        return Promise.resolve(from.length);
      },
      close: end,
    },
    server: {
      read: (into) => up.take(into, Infinity),
      write(from) {
        down.push(alter(Uint8Array.from(from)));
        return Promise.resolve(from.length);
      },
      close: end,
    },
    get isStuck() {
      return up.isAwaited && down.isAwaited;
    },
    end,
  };
}
