import { assertEquals } from "@std/assert";
import { VERSION } from "../../lib/cli/version.ts";
import { runQimg } from "../_reference.ts";

const CWD = Deno.cwd();

Deno.test("version: the program's is that of the project file", async () => {
  const { version } = JSON.parse(
    await Deno.readTextFile(new URL("../../deno.json", import.meta.url)),
  );
  assertEquals(VERSION, version);
});

Deno.test("version: names the release of qemu-img that it is compatible with", async () => {
  for (const args of [["--version"], ["-V", "--zork"], ["--vers"]]) {
    assertEquals(await runQimg(args, { cwd: CWD }), {
      code: 0,
      stdout: `qimg version ${VERSION} (compatible with qemu-img 10.0.2)\n`,
      stderr: "",
    });
  }
});

Deno.test("version: a program called qemu-img says that it is one", async () => {
  assertEquals(await runQimg(["--version"], { cwd: CWD, program: "qemu-img" }), {
    code: 0,
    stdout: `qemu-img version 10.0.2 (qimg ${VERSION})\n`,
    stderr: "",
  });
});
