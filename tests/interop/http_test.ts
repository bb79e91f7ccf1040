/** HTTP through both tools, on one server. */
import { assert, assertEquals } from "@std/assert";
import { type Fault, type HttpRequest, serveContent } from "../_http_server.ts";
import { Random } from "../_random.ts";
import { assertSame, reference, runQimg, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

const { ignore } = reference;

const DISK = new Random(9).bytes(700_100);
const BASIC = `Basic ${btoa("user:pass:word")}`;

/** What a path on the server is like. */
const PATHS: Readonly<Record<string, (request: HttpRequest) => Fault>> = {
  "/disk": () => {},
  "/a b%41?x=y": () => {},
  "/no-ranges": () => ({ headers: { "accept-ranges": null } }),
  "/none": () => ({ headers: { "accept-ranges": "none" } }),
  "/capitals": () => ({ headers: { "accept-ranges": "BYTES" } }),
  "/missing": () => new Response(null, { status: 404 }),
  "/forbidden": () => new Response(null, { status: 403 }),
  "/broken": () => new Response(null, { status: 500 }),
  "/no-head": ({ method }) => method === "HEAD" ? new Response(null, { status: 405 }) : undefined,
  "/elsewhere": () => moved("/disk"),
  "/far": () => moved("/elsewhere"),
  "/local": () => moved("file:///etc/passwd"),
  "/private": ({ headers }) =>
    headers.get("authorization") === BASIC ? undefined : new Response(null, { status: 401 }),
  "/sweet": ({ headers }) =>
    headers.get("cookie") === "a=b; c=d" ? undefined : new Response(null, { status: 403 }),
  "/empty": () => ({ content: new Uint8Array(0) }),
};

function moved(location: string): Response {
  return new Response(null, { status: 302, headers: { location } });
}

function serve() {
  return serveContent(DISK, { fault: (request) => PATHS[request.path]?.(request) });
}

const SECRETS = [
  ...["--object", "secret,id=pw,data=pass:word", "--object", "secret,id=jar,data=a=b; c=d"],
  ...["--object", "secret,id=bytes,format=base64,data=gIGC"],
];

/** Command lines; URL is the server's. */
const LINES: readonly string[] = [
  ...Object.keys(PATHS).filter((path) => !path.includes(" ")).map((path) => `info URL${path}`),
  "info --output=json URL/disk",
  "info --output=json URL/elsewhere",
  "info URL/disk?query=1&other",
  "info URL",
  "info -f raw URL/disk",
  "info -f http URL/disk",
  "info -f https URL/disk",
  "info -f qcow2 URL/disk",
  "info -U URL/disk",
  "info http:",
  "info http:x",
  "info https:/x",
  "info HTTP://x/y",
  "map URL/disk",
  "map --output=json URL/disk",
  "check URL/disk",
  "measure -O qcow2 URL/disk",
  "measure -O raw -f raw URL/disk",
  "snapshot -l URL/disk",
  "compare -f raw -F raw URL/disk URL/elsewhere",
  "compare -f raw -F raw URL/disk disk.img",
  "convert -f raw -O raw URL/disk out.img",
  "convert -O qcow2 URL/disk out.img",
  "convert -f raw -O raw -S 0 URL/elsewhere out.img",
  "convert -f raw -O raw URL/empty out.img",
  "convert -O raw disk.img URL/disk",
  "convert -n -O raw disk.img URL/disk",
  "dd -f raw -O raw if=URL/disk of=out.img bs=1000 skip=3 count=77",
  "dd -f raw -O raw if=URL/disk of=out.img bs=64k",
  "create -f raw URL/disk 1M",
  "create -f http URL/disk 1M",
  "create -f qcow2 -b URL/disk -F raw out.img",
  "create -f qcow2 -b URL/missing -F raw out.img 1M",
  "create -f qcow2 -b URL/missing -F raw -u out.img 1M",
  "resize -f raw URL/disk 1M",
  "amend -f raw -o x=y URL/disk",
  ...[
    "",
    ",file.readahead=512",
    ",file.readahead=0",
    ",file.readahead=4k",
    ",file.readahead=1",
    ",file.readahead=1000",
    ",file.readahead=-512",
    ",file.readahead=x",
    ",file.readahead=64M",
    ",file.timeout=0",
    ",file.timeout=1",
    ",file.timeout=10000",
    ",file.timeout=10001",
    ",file.timeout=-1",
    ",file.timeout=soon",
    ",file.sslverify=off",
    ",file.sslverify=on",
    ",file.sslverify=maybe",
    ",file.cookie=a=b",
    ",file.cookie=a,file.cookie-secret=jar",
    ",file.cookie-secret=jar",
    ",file.cookie-secret=nobody",
    ",file.cookie-secret=bytes",
    ",file.username=user",
    ",file.username=user,file.password-secret=pw",
    ",file.password-secret=nobody",
    ",file.password-secret=bytes",
    ",file.proxy-password-secret=nobody",
    ",file.readahead=1,file.timeout=-1",
    ",file.timeout=-1,file.sslverify=maybe",
    ",file.cookie=a,file.cookie-secret=nobody",
    ",file.url=disk",
    ",file.url=https://127.0.0.1/disk",
    ",file.unknown=1",
    ",file.filename=URL/disk",
    ",file.read-only=on",
    ",file.read-only=off",
    ",file.node-name=x",
    ",file.discard=unmap",
    ",file.cache.direct=on",
    ",offset=512,size=1024",
  ].map((more) => `info SECRETS --image-opts driver=raw,file.driver=http,file.url=URL/disk${more}`),
  "info SECRETS --image-opts driver=http,url=URL/private,username=user,password-secret=pw",
  "info SECRETS --image-opts driver=http,url=URL/private,username=user",
  "info SECRETS --image-opts driver=http,url=URL/sweet,cookie-secret=jar",
  "info SECRETS --image-opts driver=http,url=URL/sweet",
  "info --image-opts driver=http,url=URL/disk",
  "info --image-opts driver=https,url=URL/disk",
  "info --image-opts driver=http",
  "info --image-opts driver=http,filename=URL/disk",
  "info --image-opts driver=http,file.url=URL/disk",
  "info --image-opts url=URL/disk",
  "info --image-opts file.filename=URL/disk",
  "info --image-opts file.url=URL/disk",
  "convert --image-opts -O raw driver=raw,file.driver=http,file.url=URL/disk out.img",
  "convert -n --target-image-opts -O raw disk.img driver=http,url=URL/disk",
];

for (const line of LINES) {
  Deno.test({
    name: `http: ${line}`,
    ignore,
    async fn() {
      await using server = serve();
      const args = line.replaceAll("URL", server.url).split(" ")
        .flatMap((word) => word === "SECRETS" ? SECRETS : [word]);
      await assertSame(args, {
        setup: (dir) => Deno.writeFile(`${dir}/disk.img`, DISK),
        files: line.includes(" out.img") && !/create.*missing -F raw out/.test(line)
          ? ["out.img"]
          : [],
      });
    },
  });
}

const NAMES: readonly (readonly [string, unknown])[] = [
  ["a protocol", { driver: "http", url: "URL/disk" }],
  ["options of all types", {
    driver: "http",
    url: "URL/disk",
    timeout: 7,
    readahead: 1024,
    sslverify: false,
    cookie: "a=b",
  }],
  ["a file below a format", {
    driver: "raw",
    file: { driver: "http", url: "URL/disk", username: "user", sslverify: true },
  }],
  ["a file name as the option", { file: { driver: "http", filename: "URL/disk" } }],
  ["a file name of the format", { driver: "raw", file: { filename: "URL/disk" } }],
  ["dotted keys", { "driver": "raw", "file.driver": "http", "file.url": "URL/disk" }],
  ["a number for the URL", { driver: "http", url: 7 }],
  ["a text for a number", { driver: "http", url: "URL/disk", timeout: "x" }],
];

for (const [name, options] of NAMES) {
  Deno.test({
    name: `http: json: with ${name}`,
    ignore,
    async fn() {
      await using server = serve();
      const text = `json:${JSON.stringify(options)}`.replaceAll("URL", server.url);
      await assertSame(["info", text]);
      await assertSame(["info", "--output=json", text]);
    },
  });
}

Deno.test({
  name: "http: a URL with a name and a password, a space and what is written with percent signs",
  ignore,
  async fn() {
    await using server = serve();
    const url = server.url.replace("//", "//user:pass%3Aword@");
    await assertSame(["info", `${url}/private`]);
    await assertSame(["info", `${server.url}/a%20b?x=y z`.replace(" z", "%20z")]);
  },
});

Deno.test({
  name: "http: backing files: by URL, and by names relative to a URL",
  ignore,
  async fn() {
    await using dir = await tempDir();
    await useReference(["create", "-q", "-f", "qcow2", "base.qcow2", "2M"], { cwd: dir.path });
    await writeWithReference("base.qcow2", ["write -P 7 64k 128k"], { cwd: dir.path });
    await useReference(
      [..."create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2".split(" ")],
      { cwd: dir.path },
    );
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    for (const name of ["base.qcow2", "top.qcow2"]) {
      files.set(`/images/${name}`, await Deno.readFile(dir.file(name)));
    }
    await using server = serveContent(DISK, {
      fault: ({ path }) => ({ content: files.get(path) ?? DISK }),
    });
    const top = `${server.url}/images/top.qcow2`;
    await assertSame(["info", "--backing-chain", top]);
    await assertSame(["map", "--output=json", top]);
    await assertSame(["convert", "-O", "raw", top, "out.img"], { files: ["out.img"] });
    const overlay = ["create", "-f", "qcow2", "-b", top, "-F", "qcow2", "over.qcow2"];
    await assertSame(overlay, { files: ["over.qcow2"] });
    await assertSame(["info", "--backing-chain", "over.qcow2"], {
      setup: async (path) => void await useReference(overlay, { cwd: path }),
    });
  },
});

Deno.test({
  name: "http: every format that the reference makes reads the same over the net",
  ignore,
  async fn() {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("disk.img"), DISK);
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    const formats = ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "parallels", "qcow"];
    for (const format of formats) {
      await useReference(["convert", "-f", "raw", "-O", format, "disk.img", format], {
        cwd: dir.path,
      });
      files.set(`/${format}`, await Deno.readFile(dir.file(format)));
    }
    await using server = serveContent(DISK, {
      fault: ({ path }) => ({ content: files.get(path) ?? DISK }),
    });
    for (const format of formats) {
      const name = `${server.url}/${format}`;
      const { code, stderr } = await runQimg(["convert", "-O", "raw", name, "out.img"], {
        cwd: dir.path,
      });
      assertEquals([code, stderr], [0, ""], format);
      const out = await Deno.readFile(dir.file("out.img"));
      assert(DISK.every((byte, index) => out[index] === byte), format);
      await assertSame(["info", name]);
    }
  },
});

Deno.test({
  name: "http: a server that breaks in the middle ends the copy in both tools",
  ignore,
  async fn() {
    await using server = serveContent(DISK, {
      fault: ({ method }) => method === "GET" ? new Response("no", { status: 500 }) : undefined,
    });
    await assertSame(["convert", "-f", "raw", "-O", "raw", server.url, "out.img"], {
      normalize: (text) => text.replace(/(?<=curl: .*\n)(?:.*curl: .*\n)+/, ""),
      code: 1,
      leftByReference: ["out.img"],
    });
  },
});
