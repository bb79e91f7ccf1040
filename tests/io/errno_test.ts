import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  type Errno,
  errnoFromNumber,
  errnoNumber,
  errnoOf,
  errnoText,
  HostError,
} from "../../lib/io/errno.ts";
import { run } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

function caught(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

Deno.test("errors of Deno's file functions are known by name", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("file"), "");
  const cases: [Errno, () => unknown][] = [
    ["ENOENT", () => Deno.openSync(dir.file("missing"))],
    ["EEXIST", () => Deno.openSync(dir.file("file"), { write: true, createNew: true })],
  ];
  if (Deno.build.os !== "windows") {
    Deno.symlinkSync("loop", dir.file("loop"));
    cases.push(
      ["EISDIR", () => Deno.openSync(dir.path, { write: true })],
      ["ENOTDIR", () => Deno.openSync(dir.file("file/below"))],
      ["ELOOP", () => Deno.openSync(dir.file("loop"))],
      ["ENAMETOOLONG", () => Deno.openSync(dir.file("n".repeat(300)))],
    );
  }
  for (const [errno, body] of cases) assertEquals(errnoOf(caught(body)), errno);
});

Deno.test("error codes of node:fs are known, also by their other names", () => {
  const coded = (code: string) => Object.assign(new Error("any"), { code });
  assertEquals(errnoOf(coded("ENOSPC")), "ENOSPC");
  assertEquals(errnoOf(coded("EOPNOTSUPP")), "ENOTSUP");
  assertEquals(errnoOf(coded("EWOULDBLOCK")), "EAGAIN");
  assertEquals(errnoOf(coded("ERR_INVALID_ARG_TYPE")), undefined);
});

Deno.test("classes of Deno without a code are known", () => {
  assertEquals(errnoOf(new Deno.errors.NotCapable("any")), "EACCES");
  assertEquals(errnoOf(new Deno.errors.PermissionDenied("any")), "EACCES");
  assertEquals(errnoOf(new Deno.errors.Interrupted("any")), "EINTR");
  assertEquals(errnoOf(new Deno.errors.BadResource("any")), "EBADF");
});

Deno.test({
  name: "the number in Deno's message goes before the class",
  ignore: Deno.build.os !== "linux",
  fn() {
    const error = new Deno.errors.PermissionDenied("Operation not permitted (os error 1)");
    assertEquals(errnoOf(error), "EPERM");
  },
});

Deno.test("mistakes of the program are no errors of the host", () => {
  for (const value of [new TypeError("x"), new Error("x"), "x", undefined, null, 5, {}]) {
    assertEquals(errnoOf(value), undefined);
    assertEquals(HostError.from(value, "read", "file"), value);
  }
});

Deno.test("a host error has the C library's words, and what was done to which file", () => {
  const cause = caught(() => Deno.openSync("/missing/file"));
  const error = HostError.from(cause, "open", "/missing/file");
  assert(error instanceof HostError);
  assertEquals(error.message, "No such file or directory");
  assertEquals([error.errno, error.operation, error.path], ["ENOENT", "open", "/missing/file"]);
  assertEquals(error.cause, cause);
  assertEquals(error.denied, undefined);
  assertEquals(HostError.from(error, "read", "other"), error);
  assertEquals(errnoOf(error), "ENOENT");
});

Deno.test("a missing permission says what was denied and which flag grants it", () => {
  const text = 'Requires read access to "a", run again with the --allow-read flag';
  const error = HostError.from(new Deno.errors.NotCapable(text), "open", "a");
  assert(error instanceof HostError);
  assertEquals([error.errno, error.message, error.denied], ["EACCES", text, text]);
});

Deno.test("numbers and names belong together", () => {
  assertEquals(errnoFromNumber(28), "ENOSPC");
  assertEquals(errnoNumber("ENOSPC"), 28);
  assertEquals(errnoFromNumber(95), "ENOTSUP");
  assertEquals(errnoFromNumber(9999), "EIO");
  assertEquals(errnoText("ENOSPC"), "No space left on device");
});

const perl = await hasPerl();

async function hasPerl(): Promise<boolean> {
  try {
    return Deno.build.os === "linux" && (await run("perl", ["-e", "1"], { cwd: "." })).code === 0;
  } catch {
    return false;
  }
}

Deno.test({
  name: "the words are those of this machine's C library",
  ignore: !perl,
  async fn() {
    const numbers = Array.from({ length: 133 }, (_, i) => i + 1)
      .filter((number) => number === 5 || errnoFromNumber(number) !== "EIO");
    assert(numbers.length > 50);
    const script = 'for (@ARGV) { $! = $_; print "$!\\n" }';
    const { stdout } = await run("perl", ["-e", script, ...numbers.map(String)], { cwd: "." });
    assertStringIncludes(stdout, "Input/output error");
    assertEquals(
      stdout.trimEnd().split("\n"),
      numbers.map((number) => errnoText(errnoFromNumber(number))),
    );
  },
});
