/**
 * Web servers for tests: a static one that hands out ranges, with whatever faults a test gives it, and one
 * that says what it likes.
 */

/** What the static server was asked. */
export interface HttpRequest {
  /** `HEAD`, `GET`. */
  readonly method: string;
  /** The path, with a slash in front. */
  readonly path: string;
  /** The header fields. */
  readonly headers: Headers;
  /** First byte asked for; 0 without a range. */
  readonly start: number;
  /** End of what is asked for, exclusive; infinite where that is the end of the file. */
  readonly end: number;
  /** Number of the request, from 0. */
  readonly number: number;
}

/** A server on this machine until it is disposed of. */
export interface HttpServer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT`, without a slash at the end. */
  readonly url: string;
  /** `127.0.0.1:PORT`, for `--allow-net`. */
  readonly host: string;
  /** What it was asked so far. */
  readonly requests: readonly HttpRequest[];
  /** The most requests that were in hand at the same time. */
  readonly mostAtOnce: number;
}

/** What the answer to a request differs in from that of a well-behaved server; nothing: in nothing. */
export type Fault =
  | void
  | Response
  | {
    /** Milliseconds before the answer. */
    readonly delay?: number;
    /** Instead of the server's own, `null`: not at all. */
    readonly headers?: Readonly<Record<string, string | null>>;
    /** Ranges are taken for what they are not: all is sent. */
    readonly ignoresRange?: boolean;
    /** The file is another one. */
    readonly content?: Uint8Array<ArrayBuffer>;
  };

/** How a server is made. */
export interface ServerOptions {
  /** Says what goes wrong with a request. */
  readonly fault?: (request: HttpRequest) => Fault | Promise<Fault>;
  /** The certificate and the key of a server that speaks TLS, as PEM. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** Serves `content` under every path. */
export function serveContent(
  content: Uint8Array<ArrayBuffer>,
  { fault, tls }: ServerOptions = {},
): HttpServer {
  const requests: HttpRequest[] = [];
  let [now, most] = [0, 0];
  const stop = new AbortController();
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {}, signal: stop.signal, ...tls },
    async (raw) => {
      const { pathname } = new URL(raw.url);
      const range = /^bytes=(\d+)-(\d*)$/.exec(raw.headers.get("range") ?? "");
      const request: HttpRequest = {
        method: raw.method,
        path: pathname,
        headers: raw.headers,
        start: Number(range?.[1] ?? 0),
        end: range?.[2] ? Number(range[2]) + 1 : Infinity,
        number: requests.length,
      };
      requests.push(request);
      most = Math.max(most, ++now);
      try {
        const given = await fault?.(request);
        if (given instanceof Response) return given;
        if (given?.delay !== undefined) await sleep(given.delay);
        return answer(given?.content ?? content, request, {
          hasRange: range !== null && !given?.ignoresRange,
          headers: given?.headers ?? {},
        });
      } finally {
        now--;
      }
    },
  );
  const host = `127.0.0.1:${server.addr.port}`;
  return {
    url: `${tls === undefined ? "http" : "https"}://${host}`,
    host,
    requests,
    get mostAtOnce() {
      return most;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await server.finished;
    },
  };
}

function answer(
  content: Uint8Array<ArrayBuffer>,
  { method, start, end }: HttpRequest,
  { hasRange, headers: changes }: {
    readonly hasRange: boolean;
    readonly headers: Readonly<Record<string, string | null>>;
  },
): Response {
  const headers = new Headers({ "accept-ranges": "bytes", etag: '"one"' });
  let status = 200;
  let body: Uint8Array<ArrayBuffer> | null = content;
  if (method === "HEAD") {
    headers.set("content-length", String(content.length));
    body = null;
  } else if (hasRange && start >= content.length) {
    status = 416;
    headers.set("content-range", `bytes */${content.length}`);
    body = null;
  } else if (hasRange) {
    status = 206;
    body = content.subarray(start, end);
    headers.set("content-range", `bytes ${start}-${start + body.length - 1}/${content.length}`);
  }
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) headers.delete(name);
    else headers.set(name, value);
  }
  return new Response(body, { status, headers });
}

/** Waits. */
export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A connection to a server that says what it likes. */
export interface Talk {
  /** The request, its header. */
  readonly request: string;
  /** Number of the request, from 0, whatever the connection. */
  readonly number: number;
  /** Says something. */
  send(text: string | Uint8Array): Promise<void>;
  /** Ends when the server does, and should end what waits. */
  readonly signal: AbortSignal;
}

/** Lets `talk` answer each request; the connection is closed when it is done. */
export function serveTalk(talk: (talk: Talk) => void | Promise<void>): HttpServer {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const stop = new AbortController();
  const open = new Set<Promise<void>>();
  let count = 0;
  const serve = async (connection: Deno.TcpConn) => {
    using _connection = connection;
    const close = () => {
      try {
        connection.close();
      } catch {
        // It is.
      }
    };
    stop.signal.addEventListener("abort", close, { once: true });
    try {
      const buffer = new Uint8Array(16 << 10);
      let request = "";
      while (!request.includes("\r\n\r\n")) {
        const length = await connection.read(buffer);
        if (length === null) return;
        request += new TextDecoder().decode(buffer.subarray(0, length));
      }
      await talk({
        request,
        number: count++,
        signal: stop.signal,
        async send(text) {
          let bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
          while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes));
        },
      });
    } catch {
      // The other side had enough.
    } finally {
      stop.signal.removeEventListener("abort", close);
    }
  };
  const accepting = (async () => {
    for await (const connection of listener) {
      const done = serve(connection);
      open.add(done);
      done.finally(() => open.delete(done));
    }
  })();
  const host = `127.0.0.1:${listener.addr.port}`;
  return {
    url: `http://${host}`,
    host,
    requests: [],
    mostAtOnce: 0,
    async [Symbol.asyncDispose]() {
      stop.abort();
      listener.close();
      await Promise.allSettled([accepting, ...open]);
    },
  };
}
