/** The project as a web server shows it. */

/** A server of the project's files until it is disposed of. */
export interface ProjectServer extends AsyncDisposable {
  /** Address of the project's top, with a slash at the end. */
  readonly url: string;
  /** `127.0.0.1:PORT`, for `--allow-import`. */
  readonly host: string;
}

const PROJECT = new URL("../", import.meta.url);

/** Serves the modules under `lib/` and `drivers/`, and nothing else, on this machine only. */
export function serveProject(): ProjectServer {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname } = new URL(request.url);
    if (!/^\/(lib|drivers)\/[a-z0-9_\/]+\.ts$/.test(pathname)) {
      return new Response(null, { status: 404 });
    }
    try {
      const source = await Deno.readTextFile(new URL(`.${pathname}`, PROJECT));
      return new Response(source, { headers: { "content-type": "application/typescript" } });
    } catch {
      return new Response(null, { status: 404 });
    }
  });
  const host = `127.0.0.1:${server.addr.port}`;
  return { url: `http://${host}/`, host, [Symbol.asyncDispose]: () => server.shutdown() };
}
