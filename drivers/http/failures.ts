/**
 * What goes wrong between here and a server, in the reference's words where it has any.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";

/** A request that failed. */
export class RequestFailure extends ImageError {
  /** The same request may well succeed in a moment. */
  readonly mayPass: boolean;
  /** The server's answer, 0 if there was none. */
  readonly status: number;

  /** The message stands for itself. */
  constructor(
    message: string,
    { mayPass = false, status = 0, cause }: {
      readonly mayPass?: boolean;
      readonly status?: number;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, { errno: "EIO", cause });
    this.mayPass = mayPass;
    this.status = status;
  }
}

/** Answers that say that the server is busy or broken just now. */
const TRANSIENT: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What an answer of 400 or more comes to. */
export function refusedWith(status: number): RequestFailure {
  return new RequestFailure(`The requested URL returned error: ${status}`, {
    mayPass: TRANSIENT.has(status),
    status,
  });
}

/** A server that has no ranges of bytes, or answers as if. */
export function withoutRanges(): RequestFailure {
  return new RequestFailure("Server does not support 'range' (byte ranges).");
}

/** What `fetch` or the reading of a body threw. */
export function failureOf(error: unknown, address: URL): unknown {
  if (error instanceof ImageError) return error;
  if (error instanceof Deno.errors.NotCapable) {
    return new RequestFailure(error.message, { cause: error });
  }
  if (!(error instanceof Error)) return error;
  const text = error.cause instanceof Error ? error.cause.message : error.message;
  const { hostname, protocol } = address;
  const port = address.port || (protocol === "https:" ? "443" : "80");
  if (/dns error|failed to lookup address/i.test(text)) {
    return new RequestFailure(`Could not resolve host: ${hostname}`, { cause: error });
  }
  const reason = /client error \(([A-Za-z]+)\): (.*)$/s.exec(text);
  if (reason === null) {
    return new RequestFailure(text, { mayPass: error instanceof TypeError, cause: error });
  }
  const [, stage, words = ""] = reason;
  if (stage !== "Connect") {
    return new RequestFailure(words, { mayPass: true, cause: error });
  }
  const tcp = /tcp connect error: (.*?)(?: \(os error \d+\))?$/.exec(words)?.[1];
  // A certificate that nobody trusts will not get better.
  if (tcp === undefined) return new RequestFailure(words, { cause: error });
  return new RequestFailure(`Failed to connect to ${hostname} port ${port}: ${tcp}`, {
    cause: error,
  });
}
