/** Both tools on one SSH server, each in a folder of its own there. */
import { assertEquals } from "@std/assert";
import { Random } from "../_random.ts";
import { assertSame, reference, runQimg, runReference, type SameOptions } from "../_reference.ts";
import { sshd, startSshd } from "../_sshd.ts";

/** Debian has the reference's driver in a package of its own. */
async function referenceSpeaksSsh(): Promise<boolean> {
  if (reference.ignore) return false;
  // Where it is required it must be there, or the tests fail.
  if (Deno.env.has("QIMG_REQUIRE_REFERENCE")) return true;
  const { stderr } = await runReference(["info", "ssh:"], { cwd: "/" });
  return stderr.includes("missing hostname");
}

const ignore = sshd.ignore || !await referenceSpeaksSsh();

interface Case extends SameOptions {
  /** `NAME` stands for the folder's name on the server, `OPTIONS` for the options that lead to the host. */
  readonly run: readonly string[];
}

const CHECK = "?host_key_check=no";

/** The library that the reference uses has numbers of its own, which say nothing more. */
function withoutLibrary(text: string): string {
  return text.replaceAll("libssh error code: 1, ", "");
}

async function setup(dir: string): Promise<void> {
  const random = new Random(7);
  await Deno.writeFile(`${dir}/raw`, random.bytes(100_000));
  await runReference(["create", "-q", "-f", "qcow2", "disk", "3M"], { cwd: dir });
  await runReference(["convert", "-O", "qcow2", "-f", "raw", "raw", "full"], { cwd: dir });
}

const cases: readonly Case[] = [
  { run: ["info", `NAME/disk${CHECK}`] },
  { run: ["info", "--output=json", `NAME/raw${CHECK}`] },
  { run: ["info", `NAME/none${CHECK}`] },
  { run: ["info", `NAME/raw${CHECK}&x=1`] },
  { run: ["info", "ssh:"] },
  { run: ["info", "ssh://"] },
  { run: ["info", "ssh:///x"] },
  { run: ["info", "ssh://127.0.0.1"] },
  { run: ["info", "NAME/raw?host_key_check=maybe"] },
  { run: ["info", "--image-opts", "driver=ssh"] },
  { run: ["info", "--image-opts", "driver=ssh,host=127.0.0.1"] },
  { run: ["info", "--image-opts", "driver=ssh,server.host=127.0.0.1,path=/x"] },
  { run: ["info", "--image-opts", "driver=ssh,server.port=22,path=/x"] },
  { run: ["info", "--image-opts", "driver=ssh,host=127.0.0.1,port=x,path=/x"] },
  { run: ["info", "--image-opts", "OPTIONS,path=DIR/raw,server.foo=1"] },
  { run: ["info", "--image-opts", "OPTIONS,path=DIR/raw,port=1"] },
  { run: ["info", "--image-opts", "OPTIONS,path=DIR/raw,host-key-check.mode=x"] },
  { run: ["info", "--image-opts", "OPTIONS,path=DIR/raw,host-key-check.mode=none"] },
  { run: ["info", "--image-opts", "OPTIONS,path=DIR/raw,host_key_check=no"] },
  { run: ["info", "--image-opts", "OPTIONS,path=DIR/raw,host_key_check=no,server.ipv4=on"] },
  {
    run: [
      "info",
      "--image-opts",
      "driver=ssh,server.port=PORT,server.host=127.0.0.1,path=DIR/raw,host_key_check=no,server.to=1",
    ],
  },
  {
    run: [
      "info",
      "--image-opts",
      "driver=raw,size=512,file.OPTIONS,file.path=DIR/raw,file.host-key-check.mode=none",
    ],
  },
  {
    run: [
      "info",
      'json:{"driver":"raw","offset":512,"size":512,"file":{"driver":"ssh","host":"127.0.0.1",' +
      '"port":PORT,"path":"DIR/raw","host_key_check":"no"}}',
    ],
  },
  { run: ["map", "--output=json", `NAME/full${CHECK}`] },
  { run: ["map", "--output=json", `NAME/raw${CHECK}`] },
  { run: ["check", `NAME/full${CHECK}`] },
  { run: ["measure", "-O", "qcow2", `NAME/full${CHECK}`] },
  { run: ["compare", "-f", "raw", `NAME/raw${CHECK}`, "full"] },
  { run: ["convert", "-O", "raw", `NAME/full${CHECK}`, "out"], files: ["out"] },
  { run: ["convert", "-O", "qcow2", "full", `NAME/out${CHECK}`], files: ["out"] },
  { run: ["convert", "-f", "raw", "-O", "raw", "raw", `NAME/out${CHECK}`], files: ["out"] },
  { run: ["convert", "-n", "-f", "raw", "-O", "raw", "raw", `NAME/raw${CHECK}`], files: ["raw"] },
  { run: ["create", "-f", "raw", `NAME/new${CHECK}`, "1000000"], files: ["new"] },
  { run: ["create", "-f", "ssh", `NAME/new${CHECK}`, "1M"], files: ["new"] },
  { run: ["create", "-f", "qcow2", `NAME/raw${CHECK}`, "1M"], files: ["raw"] },
  { run: ["create", "-f", "raw", `NAME/none/new${CHECK}`, "1M"] },
  { run: ["create", "-f", "raw", "-o", "preallocation=full", `NAME/new${CHECK}`, "1M"] },
  { run: ["resize", "-f", "raw", `NAME/raw${CHECK}`, "1M"], files: ["raw"] },
  { run: ["resize", "-f", "raw", "--preallocation=full", `NAME/raw${CHECK}`, "1M"] },
  { run: ["resize", `NAME/full${CHECK}`, "1M"], files: ["full"] },
  {
    run: ["dd", "-f", "raw", `if=NAME/raw${CHECK}`, "of=out", "bs=1000", "count=5"],
    files: ["out"],
  },
  { run: ["dd", "-f", "raw", "-O", "raw", "if=raw", `of=NAME/out${CHECK}`], files: ["out"] },
  { run: ["snapshot", "-l", `NAME/full${CHECK}`] },
  { run: ["amend", "-o", "lazy_refcounts=on", `NAME/full${CHECK}`], files: ["full"] },
  { run: ["create", "-f", "qcow2", "-F", "qcow2", "-b", `NAME/full${CHECK}`, "over"] },
];

Deno.test({
  name: "ssh: both tools",
  ignore,
  async fn(t) {
    await using server = await startSshd();
    for (const { run, ...options } of cases) {
      await t.step(run.join(" "), async () => {
        await assertSame(
          (dir) =>
            run.map((word) =>
              word.replaceAll("NAME", `ssh://127.0.0.1:${server.port}${dir}`)
                .replaceAll(
                  /(\S*?)OPTIONS/g,
                  (_, prefix) =>
                    prefix.endsWith("file.")
                      ? `${prefix}driver=ssh,file.server.host=127.0.0.1,file.server.port=${server.port}`
                      : `driver=ssh,server.host=127.0.0.1,server.port=${server.port}`,
                )
                .replaceAll("PORT", String(server.port))
                .replaceAll("DIR", dir)
            ),
          { normalize: withoutLibrary, setup, ...options },
        );
      });
    }
  },
});

Deno.test({
  name: "ssh: an image on a server that one tool wrote is read by the other",
  ignore,
  async fn() {
    await using server = await startSshd();
    const { dir } = server;
    await setup(dir);
    const url = (name: string) => `${server.url(name)}${CHECK}`;
    const tools = [runReference, runQimg] as const;
    for (const [i, write] of tools.entries()) {
      const read = tools[1 - i]!;
      const written = await write(["convert", "-O", "qcow2", "full", url(`a${i}`)], { cwd: dir });
      assertEquals([written.code, written.stderr], [0, ""]);
      const compared = await read(["compare", url(`a${i}`), "full"], { cwd: dir });
      assertEquals([compared.code, compared.stdout], [0, "Images are identical.\n"]);
    }
  },
});
