/** Servers that do what they should not: the right error within the time, or the right bytes. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { RequestFailure } from "../../../drivers/http/failures.ts";
import {
  type Fault,
  type HttpRequest,
  serveContent,
  serveTalk,
  sleep,
} from "../../_http_server.ts";
import { Random } from "../../_random.ts";
import { openRemote, readRange } from "./_remote.ts";

const K = 1024;
const CONTENT = new Random(5).bytes(300 * K + 77);

function refused(url: string, words: string) {
  return assertRejects(() => openRemote(url), RequestFailure, words);
}

/** For servers that let the file be opened and then go wrong. */
function onReading(fault: (request: HttpRequest) => Fault | Promise<Fault>) {
  return serveContent(CONTENT, {
    fault: (request) => request.method === "HEAD" ? undefined : fault(request),
  });
}

async function assertUnreadable(
  fault: (request: HttpRequest) => Fault | Promise<Fault>,
  words: string,
  [start, end]: [number, number] = [1000, 200_000],
): Promise<number> {
  await using server = onReading(fault);
  await using file = await openRemote(server.url);
  await assertRejects(() => readRange(file, start, end), RequestFailure, words);
  return server.requests.length - 1;
}

async function assertReadable(fault: (request: HttpRequest) => Fault | Promise<Fault>) {
  await using server = onReading(fault);
  await using file = await openRemote(server.url);
  assertEquals(await readRange(file, 1000, 200_000), CONTENT.subarray(1000, 200_000));
}

Deno.test("the size is the server's, and ranges of bytes are the file's", async () => {
  await using server = serveContent(CONTENT);
  await using file = await openRemote(`${server.url}/disk.img`);
  assertEquals(file.size, CONTENT.length);
  for (
    const [start, end] of [[0, 1], [0, CONTENT.length], [70_000, 70_001], [5, 250_000]] as const
  ) {
    assertEquals(await readRange(file, start, end), CONTENT.subarray(start, end));
  }
  const [first, second] = server.requests;
  assertEquals([first!.method, first!.path], ["HEAD", "/disk.img"]);
  assertEquals([second!.method, second!.headers.get("range")], ["GET", "bytes=0-0"]);
  assertEquals(second!.headers.get("accept-encoding"), "identity");
});

Deno.test("an empty file has a size, too", async () => {
  await using server = serveContent(new Uint8Array(0));
  await using file = await openRemote(server.url);
  assertEquals(file.size, 0);
});

for (const value of [null, "none", "bytesx", "bytes, none"]) {
  Deno.test(`a server whose accept-ranges is ${value} is refused`, async () => {
    await using server = serveContent(CONTENT, {
      fault: () => ({ headers: { "accept-ranges": value } }),
    });
    await refused(server.url, "Server does not support 'range' (byte ranges).");
  });
}

for (const value of ["bytes", "BYTES", " bytes "]) {
  Deno.test(`a server whose accept-ranges is '${value}' is taken`, async () => {
    await using server = serveContent(CONTENT, {
      fault: () => ({ headers: { "accept-ranges": value } }),
    });
    await using file = await openRemote(server.url);
    assertEquals(file.size, CONTENT.length);
  });
}

Deno.test("a server that does not tell the size is refused", async () => {
  await using server = serveTalk(({ send }) =>
    send("HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\nconnection: close\r\n\r\n")
  );
  await refused(server.url, "Server didn't report file size.");
});

for (const size of ["-5", "9007199254740992", "1e3", "12x", "99999999999999999999"]) {
  Deno.test(`a size of ${size} is refused`, async () => {
    await using server = serveTalk(({ send }) =>
      send(`HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncontent-length: ${size}\r\n\r\n`)
    );
    await assertRejects(() => openRemote(server.url), RequestFailure);
  });
}

for (const status of [400, 401, 403, 404, 405, 410, 501]) {
  Deno.test(`${status} for the size is final`, async () => {
    await using server = serveContent(CONTENT, { fault: () => new Response(null, { status }) });
    await refused(server.url, `The requested URL returned error: ${status}`);
    assertEquals(server.requests.length, 1);
  });
}

Deno.test("a size that a busy server tells in the end is taken", async () => {
  await using server = serveContent(CONTENT, {
    fault: ({ number }) => number < 2 ? new Response(null, { status: 503 }) : undefined,
  });
  await using file = await openRemote(server.url);
  assertEquals(file.size, CONTENT.length);
});

Deno.test("a file that is sent compressed is refused", async () => {
  await using server = serveContent(CONTENT, {
    fault: () => ({ headers: { "content-encoding": "br" } }),
  });
  await refused(server.url, "The server sends the file with the encoding 'br'");
});

Deno.test("a server that is not there is told by its name and port", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  await refused(
    `http://127.0.0.1:${port}/x`,
    `Failed to connect to 127.0.0.1 port ${port}: Connection refused`,
  );
});

Deno.test("a name that nobody has is told", async () => {
  await refused("http://disk.invalid/x", "Could not resolve host: disk.invalid");
});

Deno.test("what is no answer is an error", async () => {
  await using server = serveTalk(({ send }) => send("once upon a time\r\n\r\n"));
  await assertRejects(() => openRemote(server.url), RequestFailure);
});

Deno.test("a server that says nothing is given up when the time is over", async () => {
  await using server = serveTalk(({ signal }) =>
    new Promise((resolve) => signal.addEventListener("abort", () => resolve()))
  );
  await assertRejects(
    () => openRemote(server.url, { timeout: 200 }),
    RequestFailure,
    "Operation timed out after 200 milliseconds",
  );
});

// Reading.

for (const status of [500, 502, 503, 504, 429]) {
  Deno.test(`${status} in between does no harm`, async () => {
    await assertReadable(({ number }) => number <= 2 ? new Response("no", { status }) : undefined);
  });
}

Deno.test("a server that is broken for good is asked three times", async () => {
  const asked = await assertUnreadable(
    () => new Response("no", { status: 500 }),
    "The requested URL returned error: 500",
  );
  assertEquals(asked, 3);
});

Deno.test("a file that is gone is not asked for again", async () => {
  const asked = await assertUnreadable(
    () => new Response("no", { status: 404 }),
    "The requested URL returned error: 404",
  );
  assertEquals(asked, 1);
});

Deno.test("a server that sends the whole file instead of a range is found out", async () => {
  await assertUnreadable(
    () => ({ ignoresRange: true }),
    "Server does not support 'range' (byte ranges).",
  );
});

Deno.test("the whole file is all right where it was asked for", async () => {
  await using server = onReading(() => ({ ignoresRange: true }));
  await using file = await openRemote(server.url);
  assertEquals(await readRange(file, 0, CONTENT.length), CONTENT);
});

Deno.test("a range that is not told is not taken", async () => {
  await assertUnreadable(
    () => ({ headers: { "content-range": null } }),
    "The server does not say which part of the file it sends",
  );
});

for (
  const range of [
    `bytes 999-199998/${CONTENT.length}`,
    `bytes 1001-199999/${CONTENT.length}`,
    `bytes 1000-200000/${CONTENT.length}`,
    `bytes 1000-999/${CONTENT.length}`,
  ]
) {
  Deno.test(`a range that was not asked for is not taken: ${range}`, async () => {
    await assertUnreadable(() => ({ headers: { "content-range": range } }), "instead of");
  });
}

Deno.test("parts in an envelope are not taken for bytes", async () => {
  await assertUnreadable(
    () => ({
      headers: { "content-range": null, "content-type": "multipart/byteranges; boundary=x" },
    }),
    "The server does not say which part of the file it sends",
  );
});

Deno.test("a file that gets shorter or longer is noticed, whether or not the range is still there", async () => {
  const words = "The file on the server changed from 307277 to";
  await assertUnreadable(() => ({ content: CONTENT.subarray(0, 250 * K) }), words);
  await assertUnreadable(() => ({ content: new Uint8Array(400 * K) }), words);
  await assertUnreadable(() => ({ content: CONTENT.subarray(0, 500) }), words);
});

Deno.test("a new version of the file of the same length is noticed", async () => {
  await assertUnreadable(
    ({ number }) => ({ headers: { etag: `"${number}"` } }),
    "The file on the server changed while it was in use",
  );
});

Deno.test("a later date is noticed where versions are not told", async () => {
  await using server = serveContent(CONTENT, {
    fault: ({ number }) => ({
      headers: { etag: null, "last-modified": new Date(number * 1000).toUTCString() },
    }),
  });
  await using file = await openRemote(server.url);
  await assertRejects(
    () => readRange(file, 0, 1000),
    RequestFailure,
    "The file on the server changed while it was in use",
  );
});

Deno.test("a version that is only told with the bytes counts from then on", async () => {
  await using server = serveContent(CONTENT, {
    fault: ({ number }) => ({ headers: { etag: [null, '"a"', 'W/"a"', '"b"'][number]! } }),
  });
  await using file = await openRemote(server.url);
  for (let i = 0; i < 2; i++) {
    assertEquals(await readRange(file, 7, 1000), CONTENT.subarray(7, 1000));
  }
  await assertRejects(
    () => readRange(file, 7, 1000),
    RequestFailure,
    "changed while it was in use",
  );
});

Deno.test("less than was asked for is followed by the rest", async () => {
  await assertReadable(({ start, end }) => {
    const last = Math.min(start + 90_000, end);
    return new Response(CONTENT.subarray(start, last), {
      status: 206,
      headers: { "content-range": `bytes ${start}-${last - 1}/${CONTENT.length}` },
    });
  });
});

/** An answer of these bytes that claims to be the whole range. */
function partial(start: number, end: number, body: string = ""): string {
  return `HTTP/1.1 206 Partial Content\r\ncontent-length: ${end - start}\r\n` +
    `content-range: bytes ${start}-${
      end - 1
    }/${CONTENT.length}\r\nconnection: close\r\n\r\n${body}`;
}

const HEAD_ANSWER =
  `HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncontent-length: ${CONTENT.length}\r\n` +
  "connection: close\r\n\r\n";

function rangeOf(request: string): [start: number, end: number] {
  const [, first, last] = /range: bytes=(\d+)-(\d+)/i.exec(request)!;
  return [Number(first), Number(last) + 1];
}

Deno.test("a connection that breaks in the middle again and again is carried on where it broke", async () => {
  await using server = serveTalk(async ({ request, number, send }) => {
    if (number === 0) return await send(HEAD_ANSWER);
    const [start, end] = rangeOf(request);
    await send(partial(start, end));
    await send(CONTENT.subarray(start, Math.min(start + 70_000, end)));
  });
  await using file = await openRemote(server.url);
  assertEquals(await readRange(file, 1000, 290_000), CONTENT.subarray(1000, 290_000));
});

Deno.test("a connection that breaks at once each time is given up", async () => {
  let count = 0;
  await using server = serveTalk(async ({ request, number, send }) => {
    count = number;
    if (number === 0) return await send(HEAD_ANSWER);
    await send(partial(...rangeOf(request), "abc"));
  });
  await using file = await openRemote(server.url);
  await assertRejects(() => readRange(file, 1000, 290_000), RequestFailure);
  assertEquals(count, 3);
});

Deno.test("more than was asked for is not taken", async () => {
  await using server = serveTalk(async ({ request, number, send }) => {
    if (number === 0) return await send(HEAD_ANSWER);
    const [start, end] = rangeOf(request);
    await send(partial(start, end).replace(/content-length: \d+\r\n/, ""));
    await send(CONTENT.subarray(start, end + 1));
  });
  await using file = await openRemote(server.url);
  await assertRejects(
    () => readRange(file, 1000, 2000),
    RequestFailure,
    "The server sends more than was asked for",
  );
});

Deno.test("a body that comes in drops ends when the time for a request is over", async () => {
  await using server = serveTalk(async ({ request, number, send, signal }) => {
    if (number === 0) return await send(HEAD_ANSWER);
    await send(partial(...rangeOf(request)));
    while (!signal.aborted) {
      await send("x");
      await sleep(20);
    }
  });
  await using file = await openRemote(server.url, { timeout: 300 });
  const begin = performance.now();
  await assertRejects(
    () => readRange(file, 0, 300 * K),
    RequestFailure,
    "Operation timed out after 300 milliseconds",
  );
  assert(performance.now() - begin >= 290);
});

Deno.test("a slow body that gets on is read to its end, however long that takes", async () => {
  await using server = serveTalk(async ({ request, number, send }) => {
    if (number === 0) return await send(HEAD_ANSWER);
    const [start, end] = rangeOf(request);
    await send(partial(start, end));
    await send(CONTENT.subarray(start, start + 100_000));
    await sleep(800);
  });
  await using file = await openRemote(server.url, { timeout: 400 });
  assertEquals(await readRange(file, 0, 300 * K), CONTENT.subarray(0, 300 * K));
});

Deno.test("a file that is closed gives up what it was reading", async () => {
  const end = Promise.withResolvers<void>();
  await using server = onReading(() => end.promise);
  const file = await openRemote(server.url, { timeout: Infinity });
  const reading = assertRejects(() => readRange(file, 0, 1000), RequestFailure, "was closed");
  while (server.requests.length < 2) await sleep(1);
  await file[Symbol.asyncDispose]();
  await reading;
  end.resolve();
});

// Redirects.

function redirect(location: string, status = 302): Response {
  return new Response(null, { status, headers: { location } });
}

for (const status of [301, 302, 303, 307, 308]) {
  Deno.test(`${status} leads to the file`, async () => {
    await using server = serveContent(CONTENT, {
      fault: ({ path }) => path === "/a/old" ? redirect("../b/new", status) : undefined,
    });
    await using file = await openRemote(`${server.url}/a/old`);
    assertEquals(await readRange(file, 7, 1000), CONTENT.subarray(7, 1000));
    assertEquals(server.requests.map(({ path }) => path), ["/a/old", "/b/new", "/b/new"]);
  });
}

Deno.test("where a redirect led is forgotten when the file is no longer there", async () => {
  await using server = serveContent(CONTENT, {
    fault({ path, number }) {
      if (path === "/file") return redirect(`/${number < 3 ? "first" : "second"}`);
      if (path === "/first" && number > 1) return new Response(null, { status: 403 });
    },
  });
  await using file = await openRemote(`${server.url}/file`);
  assertEquals(await readRange(file, 7, 1000), CONTENT.subarray(7, 1000));
  assertEquals(
    server.requests.map(({ path }) => path),
    ["/file", "/first", "/first", "/file", "/second"],
  );
});

Deno.test("redirects in a circle are followed for a while", async () => {
  await using server = serveContent(CONTENT, {
    fault: ({ path }) => redirect(path === "/a" ? "/b" : "/a"),
  });
  await refused(`${server.url}/a`, "Maximum (30) redirects followed");
});

for (const to of ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"]) {
  Deno.test(`a redirect to ${to} is refused`, async () => {
    await using server = serveContent(CONTENT, { fault: () => redirect(to) });
    await refused(
      server.url,
      `Protocol "${to.split(":")[0]}" not supported or disabled in libcurl`,
    );
  });
}

Deno.test("cookies and passwords go to the server that they are for, not to where it redirects", async () => {
  await using other = serveContent(CONTENT);
  await using server = serveContent(CONTENT, { fault: () => redirect(`${other.url}/x`) });
  const headers = { cookie: "a=b", authorization: "Basic eDp5" };
  await using file = await openRemote(server.url, { headers });
  await readRange(file, 0, 10);
  const sent = (requests: readonly HttpRequest[]) =>
    requests.map(({ headers }) => [headers.get("cookie"), headers.get("authorization")]);
  assertEquals(sent(server.requests), [["a=b", "Basic eDp5"]]);
  assertEquals(sent(other.requests), [[null, null], [null, null]]);
});
