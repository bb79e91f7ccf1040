import { assertEquals, assertStringIncludes } from "@std/assert";
import { runQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

Deno.test("convert: a wrong cache mode leaves the target as it is", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(512));
  await Deno.writeTextFile(dir.file("there"), "precious");
  for (const target of ["there", "new"]) {
    const outcome = await runQimg(["convert", "-t", "zork", "a", target], { cwd: dir.path });
    assertEquals(outcome, { code: 1, stdout: "", stderr: "qimg: Invalid cache option: zork\n" });
  }
  assertEquals(await Deno.readTextFile(dir.file("there")), "precious");
  assertEquals(Array.from(Deno.readDirSync(dir.path), ({ name }) => name).toSorted(), [
    "a",
    "there",
  ]);
});

Deno.test("convert: --progress=json reports bytes on standard error", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(1 << 20).fill(7));
  const { code, stdout, stderr } = await runQimg(["convert", "--progress=json", "a", "b"], {
    cwd: dir.path,
  });
  assertEquals([code, stdout], [0, ""]);
  const reports = stderr.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals(reports.at(0).percent, 0);
  assertEquals(reports.at(-1).percent, 100);
});

Deno.test("convert: --progress alone is -p", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(512).fill(7));
  const { stdout } = await runQimg(["convert", "--progress", "a", "b"], { cwd: dir.path });
  assertStringIncludes(stdout, "    (0.00/100%)\r");
});

Deno.test("convert: the options of our own have to be typed in full", async () => {
  await using dir = await tempDir();
  for (const option of ["--progres", "--compression", "--untrust"]) {
    const { code, stderr } = await runQimg(["convert", option, "1", "a", "b"], { cwd: dir.path });
    assertEquals([code, stderr.split("\n")[0]], [
      1,
      `qimg convert: unrecognized option '${option}'`,
    ]);
  }
});
