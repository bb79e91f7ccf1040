import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { SftpSession } from "../../../drivers/ssh/session.ts";
import { startSsh } from "../../../drivers/ssh/ssh_process.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { Random } from "../../_random.ts";
import { type Outcome, runQimg, runQimgProcess, useQimg } from "../../_reference.ts";
import { localSftp, sftpServer, sshd, standInForSsh, startSshd } from "../../_sshd.ts";

const DESTINATION = {
  host: "somewhere",
  port: undefined,
  user: undefined,
  family: "any",
  hostKeyCheck: undefined,
} as const;

/** The one line of an error, after the name of the image. */
function reason({ code, stderr }: Outcome): string {
  assertEquals(code, 1, stderr);
  const [line, ...more] = stderr.trimEnd().split("\n");
  assertEquals(more, [], stderr);
  return line!.replace(/^.*?'ssh:[^']*': /, "");
}

/** `undefined` for a file that is not there. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    assertInstanceOf(error, Deno.errors.NotFound);
    return undefined;
  }
}

Deno.test({
  name: "ssh: what the program is told, and what not",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    await Deno.writeFile(`${ssh.dir}/disk`, new Uint8Array(1024));
    const name = `ssh://me@some.host:2222${ssh.dir}/disk?host_key_check=no`;
    await useQimg(["info", name], { cwd: ssh.dir });
    const args = (await Deno.readTextFile(`${ssh.dir}/arguments`)).trimEnd().split("\n");
    assertEquals(args.slice(args.indexOf("-p")), [
      "-p",
      "2222",
      "-l",
      "me",
      "-s",
      "--",
      "some.host",
      "sftp",
    ]);
    for (const setting of ["BatchMode=yes", "StrictHostKeyChecking=no", "PermitLocalCommand=no"]) {
      assert(args.includes(`-o${setting}`), setting);
    }
    assert(args.slice(0, args.indexOf("-p")).every((arg) => /^-o[A-Za-z0-9]+=\S+$/.test(arg)));
  },
});

Deno.test({
  name: "ssh: keys, user and port are up to the user's configuration unless the name says them",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    await Deno.writeFile(`${ssh.dir}/disk`, new Uint8Array(1024));
    const shown = await useQimg(["info", `ssh://alias${ssh.dir}/disk`], { cwd: ssh.dir });
    const args = await Deno.readTextFile(`${ssh.dir}/arguments`);
    for (const option of ["StrictHostKeyChecking", "KnownHosts", "-p\n", "-l\n"]) {
      assert(!args.includes(option), option);
    }
    assertStringIncludes(shown, `image: ssh://tester@alias:22${ssh.dir}/disk\n`);
  },
});

Deno.test({
  name: "ssh: the way to say that keys must be known, and which addresses to use",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    await Deno.writeFile(`${ssh.dir}/disk`, new Uint8Array(1024));
    const options = `driver=ssh,server.host=h,server.port=22,path=${ssh.dir}/disk,` +
      "host-key-check.mode=known_hosts,server.ipv6=on";
    await useQimg(["info", "--image-opts", options], { cwd: ssh.dir });
    const args = (await Deno.readTextFile(`${ssh.dir}/arguments`)).split("\n");
    assert(args.includes("-oStrictHostKeyChecking=yes"));
    assert(args.includes("-6"));
  },
});

const programs: readonly (readonly [what: string, script: string, message: RegExp])[] = [
  [
    "cannot connect",
    "echo 'ssh: connect to host h port 22: Connection refused\r' >&2; exit 255",
    /^Could not connect to the ssh server 'h': connect to host h port 22: Connection refused$/,
  ],
  [
    "is not let in",
    "echo 'me@h: Permission denied (publickey).' >&2; exit 255",
    /^Could not connect to the ssh server 'h': me@h: Permission denied \(publickey\)$/,
  ],
  ["ends without a word", "exit 3", /^Could not connect .*: ssh ended with exit code 3$/],
  ["is killed", "kill -9 $$", /^Could not connect .*: ssh was ended by SIGKILL$/],
  [
    "greets",
    "echo 'Welcome to h!'; sleep 0.2; exit 0",
    /^The ssh server 'h' does not speak SFTP: the server sent 'Welcome to h!' first;/,
  ],
  [
    "complains in escape sequences",
    "printf '\\033[2Jno\\007 way\\n' >&2; exit 1",
    /^Could not connect to the ssh server 'h': \[2Jno {1,2}way$/,
  ],
];
for (const [what, script, message] of programs) {
  Deno.test(`ssh: a program that ${what} gives one clear line`, async () => {
    await using ssh = await standInForSsh(script);
    assertMatch(reason(await runQimg(["info", "ssh://h/x"], { cwd: ssh.dir })), message);
  });
}

Deno.test("ssh: what was said before the reason is below the message, within bounds", async () => {
  await using ssh = await standInForSsh(
    "for i in $(seq 5000); do echo line $i; done >&2; echo the reason >&2; exit 255",
  );
  const { code, stderr } = await runQimg(["info", "ssh://h/x"], { cwd: ssh.dir });
  assertEquals(code, 1);
  assertEquals(stderr.split("\n").slice(1), [
    "line 4997",
    "line 4998",
    "line 4999",
    "line 5000",
    "",
  ]);
  assertStringIncludes(stderr, "Could not connect to the ssh server 'h': the reason\n");
});

Deno.test("ssh: without the program the error says so", async () => {
  const path = Deno.env.get("PATH")!;
  Deno.env.set("PATH", "/nowhere");
  try {
    const { code, stderr } = await runQimg(["info", "ssh://h/x"], { cwd: "/" });
    assertEquals(code, 1);
    assertStringIncludes(stderr, "The program 'ssh' is not installed\n");
  } finally {
    Deno.env.set("PATH", path);
  }
});

Deno.test("ssh: a program that hangs is given up and ended", async () => {
  await using ssh = await standInForSsh("echo $$ > DIR/pid; exec sleep 1000");
  const patience = { connect: 500, request: 500, flush: 500 };
  const error = await assertRejects(
    () => SftpSession.start(startSsh(DESTINATION), patience),
    ImageError,
    "No answer from the ssh server 'somewhere'",
  );
  assertEquals(error.errno, "ETIMEDOUT");
  const pid = (await Deno.readTextFile(`${ssh.dir}/pid`)).trim();
  await assertRejects(() => Deno.stat(`/proc/${pid}/cmdline`), Deno.errors.NotFound);
});

Deno.test("ssh: a program that does not listen to SIGTERM is ended all the same", async () => {
  await using _ssh = await standInForSsh("trap '' TERM; while :; do sleep 0.1; done");
  const patience = { connect: 200, request: 200, flush: 200 };
  await assertRejects(
    () => SftpSession.start(startSsh(DESTINATION), patience),
    ImageError,
    "No answer from the ssh server 'somewhere'",
  );
});

Deno.test({
  name: "ssh: a permission to run ssh and nothing else is enough",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    await Deno.writeFile(`${ssh.dir}/disk`, new Uint8Array(1024));
    const { code, stdout, stderr } = await runQimgProcess(
      ["info", `ssh://h${ssh.dir}/disk`],
      { cwd: ssh.dir, permissions: ["--allow-run=ssh"] },
    );
    assertEquals([code, stderr], [0, ""]);
    assertStringIncludes(stdout, "file format: raw");
  },
});

Deno.test("ssh: without the permission to run it the error names the flag", async () => {
  await using ssh = await standInForSsh("exit 1");
  const { code, stderr } = await runQimgProcess(
    ["info", "ssh://h/x"],
    { cwd: ssh.dir, permissions: ["--allow-read"] },
  );
  assertEquals(code, 1);
  assertStringIncludes(stderr, 'Requires run access to "ssh"');
});

Deno.test({
  name: "ssh: create and convert make files",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    const { dir } = ssh;
    const url = (name: string) => `ssh://h${dir}/${name}`;
    const content = new Random(3).bytes(300_000);
    await Deno.writeFile(`${dir}/source`, content);
    await useQimg(["create", "-q", "-f", "raw", url("new"), "1000000"], { cwd: dir });
    assertEquals((await Deno.stat(`${dir}/new`)).size, 1000448);
    await useQimg(["convert", "-f", "raw", "-O", "qcow2", "source", url("q")], { cwd: dir });
    await useQimg(["convert", "-O", "raw", url("q"), url("back")], { cwd: dir });
    assertEquals((await Deno.readFile(`${dir}/back`)).subarray(0, content.length), content);
  },
});

Deno.test({
  name: "ssh: all commands work on images on servers",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    const { dir } = ssh;
    const run = (...args: string[]) => useQimg(args, { cwd: dir });
    const url = `ssh://h${dir}/disk.qcow2`;
    const content = new Random(4).bytes(1 << 20);
    await Deno.writeFile(`${dir}/source`, content);
    await run("convert", "-f", "raw", "-O", "qcow2", "source", url);
    assertStringIncludes(await run("compare", "-f", "raw", "source", url), "identical");
    assertStringIncludes(await run("check", url), "No errors were found");
    await run("snapshot", "-c", "one", url);
    assertStringIncludes(await run("snapshot", "-l", url), "one");
    await run("resize", "-q", url, "2M");
    await run("bitmap", "--add", url, "b");
    await run("amend", "-o", "lazy_refcounts=on", url);
    await run("dd", `if=${url}`, "of=out", "bs=64k", "count=4");
    assertEquals(await Deno.readFile(`${dir}/out`), content.subarray(0, 4 << 16));
    assertStringIncludes(await run("map", url), `${dir}/disk.qcow2`);
    assertStringIncludes(await run("measure", "-O", "raw", url), "required size: 2097152");
    const json = JSON.parse(await run("info", "--output=json", url));
    assertEquals(json["virtual-size"], 2 << 20);
    assertEquals(json.filename, `ssh://tester@h:22${dir}/disk.qcow2`);
    await run("convert", "-O", "raw", url, "back");
    assertEquals((await Deno.readFile(`${dir}/back`)).subarray(0, 1 << 20), content);
  },
});

Deno.test({
  name:
    "ssh: images shrink, and an overlay that was committed is empty, where qemu-img refuses both",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    const { dir } = ssh;
    const run = (...args: string[]) => useQimg(args, { cwd: dir });
    const url = (name: string) => `ssh://h${dir}/${name}`;
    await Deno.writeFile(`${dir}/raw`, new Uint8Array(200_000).fill(5));
    await run("create", "-q", "-f", "qcow2", url("base"), "1M");
    await run("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base", url("top"));
    await run("convert", "-n", "-f", "raw", "-O", "qcow2", "raw", url("top"));
    await run("commit", "-q", url("top"));
    assertStringIncludes(await run("compare", "-f", "raw", "raw", url("base")), "identical");
    assertStringIncludes(await run("compare", url("top"), url("base")), "identical");
    assert((await Deno.stat(`${dir}/top`)).size <= 262_144);
    await run("resize", "-q", "-f", "raw", "--shrink", url("raw"), "65536");
    assertEquals(await Deno.readFile(`${dir}/raw`), new Uint8Array(65_536).fill(5));
  },
});

Deno.test({
  name: "ssh: a server whose key is not known is refused, unless keys do not matter",
  ignore: sshd.ignore,
  async fn() {
    await using server = await startSshd();
    await Deno.writeFile(`${server.dir}/disk`, new Uint8Array(512));
    await Deno.writeTextFile(`${server.dir}/known_hosts`, "");
    const refused = await runQimg(["info", server.url("disk")], { cwd: server.dir });
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.stderr, "Host key verification failed\n");
    const url = `${server.url("disk")}?host_key_check=no`;
    assertStringIncludes(await useQimg(["info", url], { cwd: server.dir }), "file format: raw");
    assertEquals(await Deno.readTextFile(`${server.dir}/known_hosts`), "");
  },
});

Deno.test({
  name: "ssh: a server with another key than the known one is refused",
  ignore: sshd.ignore,
  async fn() {
    await using server = await startSshd();
    const other = (await Deno.readTextFile(`${server.dir}/authorized_keys`)).split(" ");
    await Deno.writeTextFile(
      `${server.dir}/known_hosts`,
      `[127.0.0.1]:${server.port} ${other[0]} ${other[1]}\n`,
    );
    for (const query of ["", "?host_key_check=yes"]) {
      const { code, stderr } = await runQimg(
        ["info", `${server.url("disk")}${query}`],
        { cwd: server.dir },
      );
      assertEquals(code, 1);
      assertStringIncludes(stderr, "Host key verification failed");
    }
  },
});

const refusals: readonly (readonly [what: string, name: string, message: RegExp])[] = [
  ["a file that is not there", "DIR/none", /No such file \(sftp error code: 2\)$/],
  ["a folder", "DIR", /^Is a directory$/],
];
for (const [what, path, message] of refusals) {
  Deno.test({
    name: `ssh: ${what} is one clear error`,
    ignore: sftpServer.ignore,
    async fn() {
      await using ssh = await localSftp();
      const name = `ssh://h${path.replace("DIR", ssh.dir)}`;
      assertMatch(reason(await runQimg(["info", name], { cwd: ssh.dir })), message);
    },
  });
}

Deno.test({
  name: "ssh: a key that the server does not know is one clear error",
  ignore: sshd.ignore,
  async fn() {
    await using server = await startSshd();
    await Deno.writeTextFile(`${server.dir}/authorized_keys`, "");
    assertMatch(
      reason(await runQimg(["info", server.url("disk")], { cwd: server.dir })),
      /^Could not connect to the ssh server '127\.0\.0\.1:\d+': .*Permission denied \(publickey\)$/,
    );
  },
});

Deno.test({
  name:
    "ssh: a connection that is cut in the middle of a copy is an error, and the copy is removed",
  ignore: sftpServer.ignore,
  async fn() {
    // All but the first 3 MiB of what the server says are lost.
    await using ssh = await standInForSsh(
      `case " $* " in *" -G "*) exit 0;; esac
       /usr/lib/openssh/sftp-server | dd bs=65536 count=3000000 iflag=count_bytes status=none`,
    );
    const { dir } = ssh;
    await Deno.writeFile(`${dir}/source`, new Uint8Array(8 << 20).fill(1));
    const { code, stderr } = await runQimg(
      ["convert", "-f", "raw", "-O", "raw", `ssh://h${dir}/source`, "copy"],
      { cwd: dir },
    );
    assertEquals(code, 1);
    assertStringIncludes(stderr, "The connection to the ssh server 'h' was lost");
    await assertRejects(() => Deno.stat(`${dir}/copy`), Deno.errors.NotFound);
  },
});

Deno.test({
  name: "ssh: a disk that is full on the server is an error, and what was made there is removed",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp("trap '' XFSZ; ulimit -f 1024");
    const { dir } = ssh;
    await Deno.writeFile(`${dir}/source`, new Uint8Array(4 << 20).fill(1));
    for (const [format, old] of [["raw", false], ["qcow2", false], ["raw", true]] as const) {
      if (old) await Deno.writeTextFile(`${dir}/copy`, "old");
      const { code, stderr } = await runQimg(
        ["convert", "-f", "raw", "-O", format, "source", `ssh://h${dir}/copy`],
        { cwd: dir },
      );
      assertEquals(code, 1, stderr);
      assertStringIncludes(stderr, "qimg: ");
      assertEquals(await sizeOf(`${dir}/copy`), old ? 0 : undefined, stderr);
    }
  },
});

Deno.test({
  name: "ssh: images are behind others by names that are relative to the server's folder",
  ignore: sftpServer.ignore,
  async fn() {
    await using ssh = await localSftp();
    const { dir } = ssh;
    const url = (name: string) => `ssh://h${dir}/${name}`;
    const run = (...args: string[]) => useQimg(args, { cwd: "/" });
    await run("create", "-q", "-f", "qcow2", url("base.qcow2"), "1M");
    await run(
      ...["create", "-q", "-f", "qcow2", "-F", "qcow2"],
      ...["-b", "base.qcow2", url("top.qcow2")],
    );
    const chain = JSON.parse(
      await run("info", "--backing-chain", "--output=json", url("top.qcow2")),
    );
    assertEquals(chain.length, 2);
    assertEquals(chain[1].filename, `ssh://tester@h:22${dir}/base.qcow2`);
  },
});
