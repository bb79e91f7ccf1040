/** Web servers that lie, in every header and at every byte. */
import { assert, assertEquals } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { openRemote, readRange } from "../drivers/http/_remote.ts";
import { serveTalk } from "../_http_server.ts";
import { Random } from "../_random.ts";

/** Answers of each run; more with `QIMG_HTTP_ROUNDS`. */
const ROUNDS = Number(Deno.env.get("QIMG_HTTP_ROUNDS") ?? 100);
const SIZE = 5000;
const CONTENT = new Random(2).bytes(SIZE);

const NUMBERS = ["0", "1", "-1", "4999", "5000", "5001", "18446744073709551616", "1e9", "x", ""];
const STATUSES = [100, 199, 200, 204, 206, 206, 206, 301, 302, 304, 307, 400, 416, 418, 500, 999];
const HEADERS = [
  "transfer-encoding: chunked",
  "transfer-encoding: identity, chunked",
  "content-encoding: gzip",
  "content-encoding: br",
  "content-type: multipart/byteranges; boundary=x",
  "accept-ranges: bytes",
  "accept-ranges: none",
  'etag: "1"',
  'etag: "2"',
  "last-modified: Thu, 01 Jan 1970 00:00:00 GMT",
  "location: /",
  "location: ",
  "location: http://[",
  "location: file:///etc/passwd",
  "connection: upgrade",
  "set-cookie: a=b",
  "x: \u0000",
  ": none",
  "no colon",
];

function evilAnswer(random: Random, start: number, end: number): string | Uint8Array {
  const number = () => random.oneIn(2) ? random.pick(NUMBERS) : String(random.below(2 * SIZE));
  const lines = [`HTTP/1.${random.below(2)} ${random.pick(STATUSES)} x`];
  const isRight = random.oneIn(2);
  if (!random.oneIn(6)) {
    lines.push(
      isRight
        ? `content-range: bytes ${start}-${end - 1}/${SIZE}`
        : `content-range: ${random.pick(["bytes", "Bytes", "bits"])} ` +
          `${number()}-${number()}/${random.oneIn(3) ? "*" : number()}`,
    );
  }
  if (!random.oneIn(4)) lines.push(`content-length: ${isRight ? end - start : number()}`);
  while (random.oneIn(2)) lines.push(random.pick(HEADERS));
  const body = random.oneIn(2)
    ? CONTENT.subarray(start, end)
    : random.bytes(random.below(2 * SIZE));
  const head = new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`);
  const answer = new Uint8Array([...head, ...body]);
  if (random.oneIn(4)) answer[random.below(head.length)] = random.below(256);
  return random.oneIn(6) ? answer.subarray(0, random.below(answer.length)) : answer;
}

const GOOD_HEAD =
  `HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncontent-length: ${SIZE}\r\nconnection: close\r\n\r\n`;

/** Opens a file so that what fails is not tried again; the time for that is short on a busy machine. */
async function openSurely(url: string) {
  for (;;) {
    try {
      return await openRemote(url, { timeout: 90 });
    } catch (error) {
      if (!String(error).includes("timed out")) throw error;
    }
  }
}

Deno.test("whatever a server answers, the bytes are those of a range it vouched for, or there is an error", async () => {
  const seed = 20;
  const random = new Random(seed);
  // What the last answer claimed, and sent.
  let said = new Uint8Array(0);
  let isOpen = false;
  await using server = serveTalk(async ({ request, send }) => {
    if (!isOpen) return await send(GOOD_HEAD);
    const [, first, last] = /range: bytes=(\d+)-(\d+)/i.exec(request)!;
    const answer = evilAnswer(random, Number(first), Number(last) + 1);
    said = new Uint8Array(answer as Uint8Array);
    await send(said);
  });
  let errors = 0;
  for (let round = 0; round < ROUNDS; round++) {
    isOpen = false;
    await using file = await openSurely(server.url);
    isOpen = true;
    const start = random.below(SIZE - 1);
    const end = random.between(start + 1, SIZE);
    try {
      const bytes = await readRange(file, start, end);
      assertEquals(bytes.length, end - start, `seed ${seed}, round ${round}`);
      const text = new TextDecoder("latin1").decode(said);
      const whole = new TextDecoder("latin1").decode(bytes);
      assert(
        equalBytes(bytes, CONTENT.subarray(start, end)) || text.includes(whole) ||
          /transfer-encoding/i.test(text),
        `seed ${seed}, round ${round}: bytes of no answer`,
      );
      assert(/content-range: bytes/i.test(text) || / 200 /.test(text), text.slice(0, 200));
    } catch (error) {
      assert(error instanceof ImageError, `seed ${seed}, round ${round}: ${error}`);
      errors++;
    }
  }
  assert(errors > ROUNDS / 4, `only ${errors} of ${ROUNDS} answers were refused`);
});

Deno.test("whatever a server says of a file, it is opened or there is an error", async () => {
  const seed = 21;
  const random = new Random(seed);
  await using server = serveTalk(({ send }) => send(evilAnswer(random, 0, SIZE)));
  for (let round = 0; round < ROUNDS; round++) {
    try {
      await using file = await openRemote(server.url, { timeout: 90 });
      assert(Number.isSafeInteger(file.size) && file.size >= 0, `seed ${seed}, round ${round}`);
    } catch (error) {
      assert(error instanceof ImageError, `seed ${seed}, round ${round}: ${error}`);
    }
  }
});

Deno.test("a header without an end ends in an error", async () => {
  await using server = serveTalk(async ({ send, signal }) => {
    await send("HTTP/1.1 200 OK\r\n");
    const line = `x: ${"y".repeat(60_000)}\r\n`;
    while (!signal.aborted) await send(line);
  });
  let thrown: unknown;
  try {
    await using _file = await openRemote(server.url);
  } catch (error) {
    thrown = error;
  }
  assert(thrown instanceof ImageError, String(thrown));
});
