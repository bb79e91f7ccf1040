import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { READ_ONLY } from "../../lib/block/mode.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { openImage } from "../../lib/graph/open.ts";
import { reference, run, runQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { startReference } from "./_nbd_peers.ts";

const RAW = ["-f", "raw", "-x", "exp", "disk"];

function exportOf(dir: string, options: string) {
  const filename = `driver=raw,file.driver=nbd,file.path=${dir}/reference.sock,file.export=exp`;
  return { filename: `${filename}${options}`, imageOptions: true };
}

for (const [delay, comesBack] of [["", false], [",file.reconnect-delay=10", true]] as const) {
  Deno.test({
    name: `nbd: a server that is gone and there again is ${
      comesBack ? "waited for" : "an error"
    } with "${delay}"`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      await Deno.writeFile(dir.file("disk"), new Uint8Array(65536).fill(7));
      const first = await startReference(dir.path, RAW);
      await using node = await openImage(exportOf(dir.path, delay), READ_ONLY, QUIET);
      const into = new Uint8Array(512);
      await node.read(0, into);
      await first[Symbol.asyncDispose]();
      const reading = node.read(512, into.fill(0));
      if (!comesBack) {
        assertEquals((await assertRejects(() => reading, ImageError)).errno, "EIO");
        return;
      }
      await using _second = await startReference(dir.path, RAW);
      await reading;
      assertEquals(into, new Uint8Array(512).fill(7));
    },
  });
}

Deno.test("nbd: a server that says nothing is given up with open-timeout", async () => {
  await using dir = await tempDir();
  using listener = Deno.listen({ transport: "unix", path: dir.file("reference.sock") });
  const connections: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const connection of listener) connections.push(connection);
  })();
  const { code, stderr } = await runQimg(
    ["info", "--image-opts", exportOf(dir.path, ",file.open-timeout=1").filename],
    { cwd: dir.path },
  );
  assertEquals(code, 1);
  assertStringIncludes(stderr, "Connection timed out");
  listener.close();
  await accepting;
  for (const connection of connections) connection.close();
});

/** A certificate authority, and certificates of `localhost` for both ends. */
const CERTIFICATES = `
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem \\
  -out ca-cert.pem -days 2 -subj /CN=ca -addext keyUsage=critical,keyCertSign
for end in server client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $end-key.pem \\
    -out $end.csr -subj /CN=localhost
  printf 'subjectAltName=DNS:localhost\\nkeyUsage=digitalSignature,keyEncipherment\\n' > ext
  printf "extendedKeyUsage=\${end}Auth\\nbasicConstraints=critical,CA:FALSE\\n" >> ext
  openssl x509 -req -in $end.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 \\
    -extfile ext -out $end-cert.pem
done
`;

Deno.test({
  name: "nbd: both ends of an encrypted connection show their certificates",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("disk"), new Uint8Array(65536).fill(7));
    const made = await run("sh", ["-c", CERTIFICATES], { cwd: dir.path });
    assertEquals(made.code, 0, made.stderr);
    const credentials = (
      end: string,
    ) => ["--object", `tls-creds-x509,id=t,dir=${dir.path},endpoint=${end}`];
    await using _server = await startReference(dir.path, [
      ...credentials("server"),
      ...["--tls-creds", "t", ...RAW],
    ]);
    const attempt = (options: string, end = "client") => {
      const { filename } = exportOf(dir.path, `,file.tls-creds=t${options}`);
      const args = ["map", ...credentials(end), "--image-opts", filename];
      return runQimg(args, { cwd: dir.path });
    };
    const { code, stderr, stdout } = await attempt(",file.tls-hostname=localhost");
    assertEquals([code, stderr], [0, ""]);
    assertStringIncludes(stdout, "0x10000");
    for (
      const [options, end, message] of [
        ["", "client", "No hostname for certificate validation"],
        [",file.tls-hostname=foo", "client", "Certificate does not match the hostname foo"],
        [",file.tls-hostname=localhost", "server", "Expected TLS credentials for a client"],
      ] as const
    ) {
      assertStringIncludes((await attempt(options, end)).stderr, message);
    }
    const bare = await runQimg(["info", "--image-opts", exportOf(dir.path, "").filename], {
      cwd: dir.path,
    });
    assertStringIncludes(bare.stderr, "Did you forget a valid tls-creds?");
    await Deno.remove(dir.file("client-key.pem"));
    assertEquals((await attempt(",file.tls-hostname=localhost")).code, 1);
  },
});
