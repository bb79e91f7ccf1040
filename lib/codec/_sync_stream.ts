/**
 * A native stream of `node:zlib` that is driven synchronously and used again and again.
 *
 * The public functions (`inflateRawSync` and the like) set up a new stream a call and collect its output
 * in new buffers. The native object beneath a stream writes straight into memory of ours and starts
 * over when told: inflating is half as fast again, zstd more than twice. Node's own JavaScript talks to
 * that object, so its shape has stayed the same for years, but nobody promised it:
 * {@linkcode reuseStream} looks whether it is as expected, and the callers can do without.
 *
 * @module
 */
import { CodecError } from "./_codec.ts";

/** What one run of a stream came to. */
export interface StreamRun {
  /** Bytes written to the output. */
  written: number;
  /** Bytes of the input that were not consumed. */
  unread: number;
}

/** A native stream. */
export interface SyncStream {
  /** Begins a new stream of bytes. */
  reset(): void;
  /** Consumes input until it ends or the output is full. Throws {@linkcode CodecError} for damaged input. */
  run(input: Uint8Array, output: Uint8Array): StreamRun;
}

interface NativeHandle {
  reset(): void;
  writeSync(
    flush: number,
    input: Uint8Array,
    inputOffset: number,
    inputLength: number,
    output: Uint8Array,
    outputOffset: number,
    outputLength: number,
  ): void;
  onerror: (message: string) => void;
}

/**
 * The native object beneath `stream`, to be run with the flush mode `flush`; `undefined` when it does
 * not have the shape that is known here.
 */
export function reuseStream(stream: object, flush: number): SyncStream | undefined {
  const { _handle: handle, _writeState: state } = stream as {
    _handle?: Partial<NativeHandle>;
    _writeState?: unknown;
  };
  if (typeof handle?.reset !== "function" || typeof handle.writeSync !== "function") {
    return undefined;
  }
  if (!(state instanceof Uint32Array && state.length === 2)) return undefined;
  return new HandleStream(handle as NativeHandle, state, flush);
}

class HandleStream implements SyncStream {
  readonly #handle: NativeHandle;
  /** Filled by a run: free bytes of the output, unread bytes of the input. */
  readonly #state: Uint32Array;
  readonly #flush: number;
  #failure: string | undefined;

  constructor(handle: NativeHandle, state: Uint32Array, flush: number) {
    this.#handle = handle;
    this.#state = state;
    this.#flush = flush;
    handle.onerror = (message) => {
      this.#failure = message;
    };
  }

  reset(): void {
    this.#handle.reset();
  }

  run(input: Uint8Array, output: Uint8Array): StreamRun {
    this.#failure = undefined;
    try {
      this.#handle.writeSync(this.#flush, input, 0, input.length, output, 0, output.length);
    } catch (error) {
      // zstd throws what deflate reports.
      this.#failure = error instanceof Error ? error.message : String(error);
    }
    if (this.#failure !== undefined) throw new CodecError(this.#failure);
    return { written: output.length - this.#state[0]!, unread: this.#state[1]! };
  }
}
