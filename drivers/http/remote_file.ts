/**
 * A file on a web server: its size, and ranges of its bytes.
 *
 * A range is taken for what it is only if the server says so: the range it sends, the size of the whole
 * file, and, where it tells them, the version and the date that it had when it was opened.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { failureOf, refusedWith, RequestFailure, withoutRanges } from "./failures.ts";
import { type HttpSettings, unverified } from "./options.ts";

/** Requests that go another way than the one before, at most. */
const MOST_REDIRECTS = 30;

/** How long to wait before a request that failed is made again, milliseconds. */
const PAUSES = [100, 400];

/** A request that brought this many bytes was worth it: it is carried on however it ended. */
const ENOUGH = 64 << 10;

/** Bytes that are taken from a body at a time. */
const PIECE = 256 << 10;

/** Connections that are kept for more requests. */
const MOST_CONNECTIONS = 16;

/** Answers that say that an address is no longer, or not for everyone, the one of the file. */
const STALE: ReadonlySet<number> = new Set([401, 403, 404, 410]);

/** Takes bytes as they come, in order. */
export type Sink = (bytes: Uint8Array) => void;

/** How one request is made. */
interface Attempt {
  readonly method: "HEAD" | "GET";
  readonly range?: string;
  readonly signal: AbortSignal;
}

/** An open file. Nothing is kept of what was read. */
export class RemoteFile implements AsyncDisposable {
  readonly #settings: HttpSettings;
  readonly #client = Deno.createHttpClient({ poolMaxIdlePerHost: MOST_CONNECTIONS });
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  /** Where redirects led the last time. */
  #address: URL;
  #size = 0;
  #version: string | null = null;
  #date: string | null = null;

  private constructor(settings: HttpSettings) {
    this.#settings = settings;
    this.#address = settings.address;
  }

  /**
   * Asks for the size.
   *
   * @throws {ImageError} if the server has no such file, does not say how long it is, or has no ranges.
   */
  static async open(settings: HttpSettings): Promise<RemoteFile> {
    const file = new RemoteFile(settings);
    try {
      await file.#probe();
      return file;
    } catch (error) {
      await file[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Bytes. */
  get size(): number {
    return this.#size;
  }

  /**
   * Hands the bytes from `start` up to `end` to `take`. What fails for a moment is tried again, a request
   * that takes too long goes on in another one if it got anywhere.
   *
   * @throws {ImageError} if the server has no better answer within the time for a request, sends something
   * else than what was asked for, or another file. Some of the bytes were handed over then.
   */
  async read(start: number, end: number, take: Sink): Promise<void> {
    let at = start;
    await this.#insist((signal) =>
      this.#track(this.#readOnce(at, end, signal, (bytes) => {
        take(bytes);
        at += bytes.length;
      })), () => at);
  }

  /** Ends all requests. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new RequestFailure("The file was closed"));
    await Promise.allSettled(this.#running);
    this.#client.close();
  }

  async #track<T>(request: Promise<T>): Promise<T> {
    this.#running.add(request);
    try {
      return await request;
    } finally {
      this.#running.delete(request);
    }
  }

  /** Makes requests until one succeeds. `progress` tells how far they got, in bytes. */
  async #insist<T>(
    request: (signal: AbortSignal) => Promise<T>,
    progress: () => number,
  ): Promise<T> {
    let begin = progress();
    let limit = this.#limit();
    let failures = 0;
    for (;;) {
      try {
        return await this.#within(limit, request);
      } catch (error) {
        const got = progress() - begin;
        if (!(error instanceof RequestFailure) || this.#closing.signal.aborted) throw error;
        if (got >= ENOUGH && error.mayPass) {
          begin = progress();
          limit = this.#limit();
          failures = 0;
          continue;
        }
        const pause = PAUSES[failures++];
        if (!error.mayPass || pause === undefined || performance.now() + pause >= limit) {
          throw error;
        }
        await this.#pause(pause);
      }
    }
  }

  /** When a request that begins now has to be done. */
  #limit(): number {
    return performance.now() + this.#settings.timeout;
  }

  async #within<T>(limit: number, request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { timeout } = this.#settings;
    if (limit === Infinity) return await request(this.#closing.signal);
    const timer = new AbortController();
    const failure = new RequestFailure(`Operation timed out after ${timeout} milliseconds`, {
      mayPass: true,
    });
    const handle = setTimeout(() => timer.abort(failure), Math.max(limit - performance.now(), 1));
    try {
      return await request(AbortSignal.any([timer.signal, this.#closing.signal]));
    } catch (error) {
      throw timer.signal.aborted ? failure : error;
    } finally {
      clearTimeout(handle);
    }
  }

  #pause(milliseconds: number): Promise<void> {
    const { signal } = this.#closing;
    return new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(handle);
        reject(signal.reason);
      };
      const handle = setTimeout(() => {
        signal.removeEventListener("abort", stop);
        resolve();
      }, milliseconds);
      signal.addEventListener("abort", stop, { once: true });
    });
  }

  async #probe(): Promise<void> {
    const { headers } = await this.#insist(async (signal) => {
      const response = await this.#send({ method: "HEAD", signal });
      await discard(response);
      if (response.status >= 300) throw refusedWith(response.status);
      return response;
    }, () => 0);
    const length = headers.get("content-length");
    if (length === null) throw new RequestFailure("Server didn't report file size.");
    requirePlain(headers);
    this.#size = Number(length);
    if (!/^\d+$/.test(length) || !Number.isSafeInteger(this.#size)) {
      throw new RequestFailure(`The server reports a file size of '${length}'`);
    }
    if (!/^\s*bytes\s*$/i.test(headers.get("accept-ranges") ?? "")) throw withoutRanges();
    this.#requireSame(headers);
  }

  async #readOnce(start: number, end: number, signal: AbortSignal, take: Sink): Promise<void> {
    const response = await this.#send({
      method: "GET",
      range: `bytes=${start}-${end - 1}`,
      signal,
    });
    let left = 0;
    try {
      left = this.#promised(response, start, end);
      const short = start + left < end;
      for await (const bytes of pieces(response)) {
        if (bytes.length > left) {
          throw new RequestFailure("The server sends more than was asked for");
        }
        left -= bytes.length;
        if (bytes.length > 0) take(bytes);
      }
      if (left > 0 || short) {
        throw new RequestFailure("The server sends less than was asked for", { mayPass: true });
      }
    } catch (error) {
      throw failureOf(error, this.#address);
    } finally {
      await discard(response);
    }
  }

  /** How many of the bytes from `start` to `end` an answer has, all of them beginning there. */
  #promised({ status, headers }: Response, start: number, end: number): number {
    requirePlain(headers);
    if (status === 200) {
      // The whole file is what was asked for if it is that long.
      if (start > 0 || end < this.#size) throw withoutRanges();
      this.#requireSize(headers.get("content-length") ?? "*");
      this.#requireSame(headers);
      return end;
    }
    const range = headers.get("content-range") ?? "";
    if (status === 416) {
      this.#requireSize(/^bytes \*\/(\d+)$/i.exec(range)?.[1] ?? "*");
      throw new RequestFailure(
        `The server has no bytes ${start} to ${end - 1} of a file of ${this.#size} bytes`,
      );
    }
    if (status !== 206) throw refusedWith(status);
    const [, first, last, size] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(range) ?? [];
    if (size === undefined) {
      throw new RequestFailure("The server does not say which part of the file it sends");
    }
    this.#requireSize(size);
    this.#requireSame(headers);
    if (Number(first) !== start || Number(last) < start || Number(last) >= end) {
      throw new RequestFailure(
        `The server sends bytes ${first} to ${last} instead of ${start} to ${end - 1}`,
      );
    }
    return Number(last) + 1 - start;
  }

  #requireSize(size: string): void {
    if (size === "*" || Number(size) === this.#size) return;
    throw new RequestFailure(
      `The file on the server changed from ${this.#size} to ${size} bytes while it was in use`,
    );
  }

  /** What the first answer says of the version holds for all. */
  #requireSame(headers: Headers): void {
    const version = headers.get("etag")?.replace(/^W\//, "") ?? null;
    const date = headers.get("last-modified");
    const isOther = version !== null && this.#version !== null
      ? version !== this.#version
      : date !== null && this.#date !== null && date !== this.#date;
    if (isOther) {
      throw new RequestFailure("The file on the server changed while it was in use");
    }
    this.#version ??= version;
    this.#date ??= date;
  }

  /** An answer that is no redirect, from where the file is. */
  async #send(attempt: Attempt): Promise<Response> {
    const { address } = this.#settings;
    if (this.#address.href !== address.href) {
      const response = await this.#request(this.#address, attempt);
      const isStale = STALE.has(response.status) || isRedirect(response);
      if (!isStale) return response;
      await discard(response);
    }
    let at = address;
    for (let count = 0; count <= MOST_REDIRECTS; count++) {
      const response = await this.#request(at, attempt);
      if (!isRedirect(response)) {
        if (response.status < 400) this.#address = at;
        return response;
      }
      await discard(response);
      at = this.#target(response, at);
    }
    throw new RequestFailure(`Maximum (${MOST_REDIRECTS}) redirects followed`);
  }

  #target({ headers }: Response, from: URL): URL {
    const location = headers.get("location")!;
    let to: URL;
    try {
      to = new URL(location, from);
    } catch (cause) {
      throw new RequestFailure(`The server redirects to '${location}', which is no URL`, { cause });
    }
    const scheme = to.protocol.slice(0, -1);
    if (scheme !== "http" && scheme !== "https") {
      throw new RequestFailure(`Protocol "${scheme}" not supported or disabled in libcurl`);
    }
    if (scheme === "http" && from.protocol === "https:") {
      throw new RequestFailure(
        `The server redirects from https to '${to.href}', which is not followed`,
      );
    }
    if (scheme === "https" && !this.#settings.verifies) throw unverified();
    to.username = "";
    to.password = "";
    to.hash = "";
    return to;
  }

  /** Cookies and passwords are for the server that they were given for. */
  async #request(to: URL, { method, range, signal }: Attempt): Promise<Response> {
    const { address, headers } = this.#settings;
    try {
      return await fetch(to, {
        method,
        redirect: "manual",
        signal,
        client: this.#client,
        headers: {
          ...(to.origin === address.origin ? headers : {}),
          "accept-encoding": "identity",
          ...(range === undefined ? {} : { range }),
        },
      });
    } catch (error) {
      throw failureOf(error, to);
    }
  }
}

function isRedirect({ status, headers }: Response): boolean {
  return [301, 302, 303, 307, 308].includes(status) && headers.has("location");
}

/** Offsets count in the file itself, not in what it is compressed to on its way. */
function requirePlain(headers: Headers): void {
  const encoding = headers.get("content-encoding");
  if (encoding === null || /^\s*(?:identity)?\s*$/i.test(encoding)) return;
  throw new RequestFailure(`The server sends the file with the encoding '${encoding}'`);
}

/** A body in pieces, each of which lasts until the next one. Half the work of iterating over the body. */
async function* pieces({ body }: Response): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader({ mode: "byob" });
  try {
    let buffer = new ArrayBuffer(PIECE);
    for (;;) {
      const { done, value } = await reader.read(new Uint8Array(buffer));
      if (done || value === undefined) return;
      yield value;
      buffer = value.buffer;
    }
  } finally {
    reader.releaseLock();
  }
}

/** Gives up the rest of a body. */
async function discard({ body }: Response): Promise<void> {
  try {
    await body?.cancel();
  } catch {
    // It ended before, in one way or another.
  }
}

/** Words for a failure to open. */
export function openError(error: unknown, url: string): unknown {
  if (!(error instanceof RequestFailure)) return error;
  return new ImageError(`CURL: Error opening file: ${error.message}`, {
    errno: "EINVAL",
    file: url,
    cause: error,
  });
}
