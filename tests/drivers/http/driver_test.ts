import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { equalBytes } from "../../../lib/bytes/equal.ts";
import { makeCertificate } from "../../_certificate.ts";
import { serveContent, sleep } from "../../_http_server.ts";
import { Random } from "../../_random.ts";
import { runQimg, runQimgProcess, useQimg } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";

const K = 1024;
const M = 1024 * K;

/** 20 MiB that are no zeros. */
const DISK = new Uint8Array(
  Uint32Array.from({ length: 5 * M }, (_, i) => Math.imul(i + 1, 0x9e3779b1)).buffer,
);

async function assertFile(path: string, content: Uint8Array): Promise<void> {
  assert(equalBytes(await Deno.readFile(path), content), `${path} has other bytes`);
}

Deno.test("a copy has several requests in flight, and asks for no byte twice", async () => {
  await using dir = await tempDir();
  await using server = serveContent(DISK, { fault: () => ({ delay: 10 }) });
  await useQimg(["convert", "-f", "raw", "-O", "raw", server.url, "out"], { cwd: dir.path });
  await assertFile(dir.file("out"), DISK);
  assert(server.mostAtOnce >= 8, `${server.mostAtOnce} at a time`);
  assert(server.mostAtOnce <= 16, `${server.mostAtOnce} at a time`);
  const ranges = server.requests.slice(1).map(({ start, end }) => [start, end] as const)
    .sort(([a], [b]) => a - b);
  let at = 0;
  for (const [start, end] of ranges) {
    assertEquals(start, at);
    at = end;
  }
  assertEquals(at, DISK.length);
});

Deno.test("a copy of a compressed image has several requests in flight", async () => {
  await using dir = await tempDir();
  const disk = new Random(3).bytes(8 * M, 8);
  await Deno.writeFile(dir.file("disk"), disk);
  await useQimg("convert -c -f raw -O qcow2 disk packed".split(" "), { cwd: dir.path });
  await using server = serveContent(await Deno.readFile(dir.file("packed")), {
    fault: () => ({ delay: 10 }),
  });
  await useQimg(["convert", "-O", "raw", server.url, "out"], { cwd: dir.path });
  await assertFile(dir.file("out"), disk);
  assert(server.mostAtOnce >= 3, `${server.mostAtOnce} at a time`);
  assert(server.requests.length <= 50, `${server.requests.length} requests`);
});

Deno.test("a copy from a server with faults is right in the end", async () => {
  const random = new Random(11);
  await using dir = await tempDir();
  await using server = serveContent(DISK, {
    fault({ number, method, start, end }) {
      if (method === "HEAD" || number % 4 !== 0) return;
      if (random.oneIn(2)) return new Response("busy", { status: 503 });
      const last = start + random.between(1, end - start);
      return new Response(DISK.subarray(start, last), {
        status: 206,
        headers: { "content-range": `bytes ${start}-${last - 1}/${DISK.length}` },
      });
    },
  });
  const options = `driver=raw,file.driver=http,file.timeout=100,file.url=${server.url}`;
  await useQimg(["convert", "--image-opts", "-O", "raw", options, "out"], { cwd: dir.path });
  await assertFile(dir.file("out"), DISK);
});

Deno.test("a file that changes in the middle of a copy ends it", async () => {
  await using dir = await tempDir();
  await using server = serveContent(DISK, {
    fault: ({ number }) => number > 9 ? { headers: { etag: '"two"' } } : undefined,
  });
  const args = ["convert", "-f", "raw", "-O", "raw", server.url, "out"];
  const { code, stderr } = await runQimg(args, { cwd: dir.path });
  assertEquals(code, 1);
  assertStringIncludes(stderr, "qimg: curl: The file on the server changed while it was in use\n");
  assertStringIncludes(stderr, "qimg: error while reading at byte ");
});

Deno.test("a reason is told once, however often it comes", async () => {
  await using dir = await tempDir();
  await using server = serveContent(DISK, {
    fault: ({ method }) => method === "GET" ? new Response(null, { status: 410 }) : undefined,
  });
  const args = ["convert", "--salvage", "-f", "raw", "-O", "raw", server.url, "out"];
  const options = `driver=raw,size=64k,file.driver=http,file.url=${server.url}`;
  const { stderr } = await runQimg(
    [...args.slice(0, 2), "--image-opts", "-O", "raw", options, "out"],
    { cwd: dir.path },
  );
  assertEquals(stderr.split("The requested URL returned error: 410").length, 2);
  assertStringIncludes(stderr, "warning: error while reading offset 512: Input/output error");
});

Deno.test("timeout is in seconds, and ends what hangs", async () => {
  await using dir = await tempDir();
  const end = Promise.withResolvers<void>();
  await using server = serveContent(DISK, { fault: () => end.promise });
  const options = `driver=http,timeout=1,url=${server.url}`;
  const begin = performance.now();
  const { code, stderr } = await runQimg(["info", "--image-opts", options], { cwd: dir.path });
  end.resolve();
  assertEquals(code, 1);
  assertStringIncludes(
    stderr,
    "CURL: Error opening file: Operation timed out after 1000 milliseconds",
  );
  assert(performance.now() - begin >= 990);
  // Whoever was waiting on the server's side goes home before the test does.
  await sleep(1);
});

for (const field of ["proxy-username", "proxy-password-secret"]) {
  Deno.test(`${field} is refused, with what to do instead`, async () => {
    await using dir = await tempDir();
    const { code, stderr } = await runQimg([
      ...["info", "--object", "secret,id=x,data=y"],
      ...["--image-opts", `driver=http,url=http://127.0.0.1/x,${field}=x`],
    ], { cwd: dir.path });
    assertEquals(code, 1);
    assertStringIncludes(stderr, `The option '${field}' is not supported`);
    assertStringIncludes(stderr, "http_proxy=http://USER:PASSWORD@HOST:PORT");
  });
}

Deno.test("sslverify=off is refused where there are certificates, with what to do instead", async () => {
  await using dir = await tempDir();
  const { code, stderr } = await runQimg(
    ["info", "--image-opts", "driver=https,url=https://127.0.0.1/x,sslverify=off"],
    { cwd: dir.path },
  );
  assertEquals(code, 1);
  assertStringIncludes(stderr, "sslverify=off is not supported");
  assertStringIncludes(stderr, "DENO_CERT=FILE");
});

Deno.test("a line break in a cookie is refused and sends nothing", async () => {
  await using dir = await tempDir();
  await using server = serveContent(DISK);
  const name = JSON.stringify({ driver: "http", url: server.url, cookie: "a=b\r\nx-evil: 1" });
  const { code, stderr } = await runQimg(["info", `json:${name}`], { cwd: dir.path });
  assertEquals(code, 1);
  assertStringIncludes(stderr, "The option 'cookie' has a line break in it");
  assertEquals(server.requests.length, 0);
});

Deno.test("the password of a secret is sent, and is not shown", async () => {
  await using dir = await tempDir();
  await using server = serveContent(DISK);
  const { stdout } = await runQimg([
    ...["info", "--object", "secret,id=pw,data=gr\u00fcn", "--image-opts"],
    `driver=http,url=${server.url},username=me,password-secret=pw`,
  ], { cwd: dir.path });
  const expected = new TextEncoder().encode("me:gr\u00fcn").toBase64();
  assertEquals(server.requests[0]!.headers.get("authorization"), `Basic ${expected}`);
  assertStringIncludes(stdout, '"password-secret": "pw"');
  assert(!stdout.includes("gr"), stdout);
});

Deno.test("https reads from whom the system trusts, and from nobody else", async () => {
  await using dir = await tempDir();
  const tls = await makeCertificate();
  await Deno.writeTextFile(dir.file("ca.pem"), tls.cert);
  const disk = DISK.subarray(0, 3 * M + 5);
  await using server = serveContent(disk, { tls });
  const args = ["convert", "-f", "raw", "-O", "raw", `${server.url}/x`, "out"];
  const trusting = ["-A", `--cert=${dir.file("ca.pem")}`];
  const good = await runQimgProcess(args, { cwd: dir.path, permissions: trusting });
  assertEquals([good.code, good.stderr], [0, ""]);
  assertEquals((await Deno.stat(dir.file("out"))).size, Math.ceil(disk.length / 512) * 512);
  assert(equalBytes((await Deno.readFile(dir.file("out"))).subarray(0, disk.length), disk));
  const bad = await runQimgProcess(args, { cwd: dir.path });
  assertEquals(bad.code, 1);
  assertStringIncludes(bad.stderr, "CURL: Error opening file: ");
  assertStringIncludes(bad.stderr, "certificate");
});

Deno.test("a redirect from https to http is refused, one from http to https is followed", async () => {
  await using dir = await tempDir();
  const tls = await makeCertificate();
  await Deno.writeTextFile(dir.file("ca.pem"), tls.cert);
  const permissions = ["-A", `--cert=${dir.file("ca.pem")}`];
  await using plain = serveContent(DISK, {
    fault: ({ path }) =>
      path === "/up"
        ? new Response(null, { status: 302, headers: { location: `${secure.url}/x` } })
        : undefined,
  });
  await using secure = serveContent(DISK, {
    tls,
    fault: ({ path }) =>
      path === "/down"
        ? new Response(null, { status: 302, headers: { location: `${plain.url}/x` } })
        : undefined,
  });
  const info = (url: string) => runQimgProcess(["info", url], { cwd: dir.path, permissions });
  const up = await info(`${plain.url}/up`);
  assertEquals([up.code, up.stderr], [0, ""]);
  const down = await info(`${secure.url}/down`);
  assertEquals(down.code, 1);
  assertStringIncludes(
    down.stderr,
    `The server redirects from https to '${plain.url}/x', which is not followed`,
  );
  assertEquals(plain.requests.map(({ path }) => path), ["/up"]);
});

Deno.test("permission for the one server is enough, and needed", async () => {
  await using dir = await tempDir();
  await using server = serveContent(DISK.subarray(0, M));
  const args = ["convert", "-f", "raw", "-O", "raw", server.url, "out"];
  const files = [`--allow-read=${dir.path}`, `--allow-write=${dir.path}`];
  const allowed = await runQimgProcess(args, {
    cwd: dir.path,
    permissions: [...files, `--allow-net=${server.host}`],
  });
  assertEquals([allowed.code, allowed.stderr], [0, ""]);
  await assertFile(dir.file("out"), DISK.subarray(0, M));
  const denied = await runQimgProcess(args, { cwd: dir.path, permissions: files });
  assertEquals(denied.code, 1);
  assertStringIncludes(denied.stderr, "--allow-net");
});
