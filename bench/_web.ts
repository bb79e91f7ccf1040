/** A web server that is some way off. */

import { join } from "@std/path";

/**
 * Serves the files in `dir`, by ranges and without, each answer `delay` milliseconds late. Answers with the
 * URL of the folder. It does not keep the process.
 */
export function serveFolder(dir: string, delay: number): string {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    await new Promise((resolve) => setTimeout(resolve, delay));
    using file = await Deno.open(join(dir, new URL(request.url).pathname));
    const { size } = await file.stat();
    const headers = { "accept-ranges": "bytes", "content-length": String(size) };
    if (request.method === "HEAD") return new Response(null, { headers });
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "");
    if (range === null) return new Response(null, { status: 501 });
    const start = Number(range[1]);
    const bytes = new Uint8Array(Math.min(Number(range[2]) + 1, size) - start);
    await file.seek(start, Deno.SeekMode.Start);
    for (let at = 0; at < bytes.length;) {
      const count = await file.read(bytes.subarray(at));
      if (count === null) throw new Error(`${file} became shorter`);
      at += count;
    }
    return new Response(bytes, {
      status: 206,
      headers: {
        "accept-ranges": "bytes",
        "content-range": `bytes ${start}-${start + bytes.length - 1}/${size}`,
      },
    });
  });
  server.unref();
  return `http://127.0.0.1:${server.addr.port}`;
}
