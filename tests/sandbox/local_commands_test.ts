import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { runQimgProcess, sha256 } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

// Every local job with permission for one folder and nothing else: no ffi, no net, no env, no sys, no run.

/** Runs qimg in a folder with permissions for that folder alone. */
function runConfined(dir: TempDir, args: readonly string[], { write = true } = {}) {
  const permissions = [`--allow-read=${dir.path}`];
  if (write) permissions.push(`--allow-write=${dir.path}`);
  return runQimgProcess(args, { cwd: dir.path, permissions });
}

/** The same for what must succeed without a word on standard error; answers with standard output. */
async function use(dir: TempDir, line: string, options?: { write?: boolean }): Promise<string> {
  const { code, stdout, stderr } = await runConfined(dir, line.split(" "), options);
  assertEquals([code, stderr], [0, ""], line);
  return stdout;
}

/** A disk of 3 MiB with data here and there. */
async function makeDisk(path: string): Promise<void> {
  const bytes = new Uint8Array(3 << 20);
  for (let i = 0; i < 100_000; i++) bytes[i] = (i * 7) % 251;
  bytes.fill(0x55, 2 << 20, (2 << 20) + 70_000);
  await Deno.writeFile(path, bytes);
}

Deno.test("create, info, resize, check, map and measure need one folder", async () => {
  await using dir = await tempDir();
  assertStringIncludes(await use(dir, "create -f qcow2 a.qcow2 4M"), "Formatting 'a.qcow2'");
  await use(dir, "create -q a.raw 1M");
  await use(dir, "create -q -o preallocation=full full.raw 1M");
  await use(dir, "create -q -o preallocation=falloc falloc.raw 1M");
  await use(dir, "create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2");
  assertEquals(await use(dir, "resize a.qcow2 +1M"), "Image resized.\n");
  assertEquals(await use(dir, "resize -f raw a.raw 2M"), "Image resized.\n");
  assertStringIncludes(await use(dir, "info -b over.qcow2"), "image: a.qcow2");
  assertStringIncludes(await use(dir, "check a.qcow2"), "No errors were found");
  assertStringIncludes(await use(dir, "check -r all a.qcow2"), "No errors were found");
  assertEquals(JSON.parse(await use(dir, "map --output=json over.qcow2")).length, 1);
  assertStringIncludes(await use(dir, "measure -O qcow2 a.raw"), "required size");
});

Deno.test("snapshot needs one folder, and to list them only permission to read", async () => {
  await using dir = await tempDir();
  await makeDisk(dir.file("disk"));
  await use(dir, "convert -f raw -O qcow2 disk a.qcow2");
  await use(dir, "snapshot -c one a.qcow2");
  await use(dir, "snapshot --create two a.qcow2");
  await use(dir, "snapshot --apply=one a.qcow2");
  await use(dir, "snapshot --delete two a.qcow2");
  assertStringIncludes(await use(dir, "snapshot a.qcow2", { write: false }), "one ");
  await use(dir, "convert -s one -O raw a.qcow2 back");
  assertEquals(await sha256(dir.file("back")), await sha256(dir.file("disk")));
  await use(dir, "snapshot -d one a.qcow2");
  assertEquals(await use(dir, "snapshot -l a.qcow2", { write: false }), "");
  assertStringIncludes(await use(dir, "check a.qcow2"), "No errors were found");
});

Deno.test("rebase and commit need one folder", async () => {
  await using dir = await tempDir();
  await makeDisk(dir.file("disk"));
  await use(dir, "convert -f raw -O qcow2 disk base");
  await use(dir, "create -q -f qcow2 empty 3M");
  await use(dir, "create -q -f qcow2 -b base -F qcow2 top");
  await use(dir, "rebase -b empty -F qcow2 top");
  await use(dir, "rebase -u -b empty -F qcow2 top");
  assertEquals(await use(dir, "compare -f raw disk top"), "Images are identical.\n");
  assertEquals(await use(dir, "commit top"), "Image committed.\n");
  assertEquals(await use(dir, "compare -f raw disk empty"), "Images are identical.\n");
  assertStringIncludes(await use(dir, "check top"), "No errors were found");
  await use(dir, "create -q -f raw base.raw 1M");
  await use(dir, "create -q -f qcow2 -b base.raw -F raw over 3M");
  await use(dir, "convert -n -f raw -O qcow2 disk over");
  assertEquals(await use(dir, "commit -d over"), "Image committed.\n");
  assertEquals(await sha256(dir.file("base.raw")), await sha256(dir.file("disk")));
});

Deno.test("convert, compare and dd need one folder", async () => {
  await using dir = await tempDir();
  await makeDisk(dir.file("disk"));
  await use(dir, "convert -f raw -O qcow2 disk a.qcow2");
  await use(dir, "convert -f raw -c -O qcow2 disk packed.qcow2");
  await use(dir, "convert -O raw packed.qcow2 back");
  assertEquals(await sha256(dir.file("back")), await sha256(dir.file("disk")));
  assertEquals(await use(dir, "compare a.qcow2 packed.qcow2"), "Images are identical.\n");
  await use(dir, "dd -f raw if=disk of=part bs=1M count=1");
  assertEquals((await Deno.stat(dir.file("part"))).size, 1 << 20);
});

Deno.test("options, json: names and secrets need one folder", async () => {
  await using dir = await tempDir();
  await makeDisk(dir.file("disk"));
  await Deno.writeTextFile(dir.file("key"), "secret");
  const object = "--object secret,id=s,file=key";
  await use(dir, "create -q -f qcow2 a.qcow2 4M");
  await use(
    dir,
    `convert -n ${object} --image-opts --target-image-opts driver=raw,file.filename=disk,size=1M ` +
      "driver=qcow2,file.filename=a.qcow2,lazy-refcounts=on,discard=unmap,detect-zeroes=unmap",
  );
  assertStringIncludes(await use(dir, "check a.qcow2"), "No errors were found");
  assertEquals(
    await use(
      dir,
      "compare --image-opts driver=qcow2,file.filename=a.qcow2 " +
        "driver=raw,file.filename=disk,size=1M",
      { write: false },
    ),
    "Warning: Image size mismatch!\nImages are identical.\n",
  );
  const name = 'json:{"driver":"raw","offset":512,"file":{"filename":"disk"}}';
  assertStringIncludes(
    await use(dir, `info ${object} ${name}`, { write: false }),
    "file format: raw",
  );
});

Deno.test("a secret in a file that may not be read is missed", async () => {
  await using dir = await tempDir();
  await using other = await tempDir();
  await Deno.writeTextFile(other.file("key"), "secret");
  await makeDisk(dir.file("disk"));
  const { code, stderr } = await runConfined(dir, [
    "info",
    "--object",
    `secret,id=s,file=${other.file("key")}`,
    "disk",
  ]);
  assertEquals(code, 1);
  assertStringIncludes(stderr, `Unable to read ${other.file("key")}: Failed to open file`);
  assertStringIncludes(stderr, "--allow-read");
});

Deno.test("what only reads needs no permission to write", async () => {
  await using dir = await tempDir();
  await makeDisk(dir.file("disk"));
  await use(dir, "create -q -f qcow2 -b disk -F raw a.qcow2");
  const readOnly = { write: false };
  for (
    const line of ["info a.qcow2", "map a.qcow2", "check a.qcow2", "measure a.qcow2"]
  ) {
    assert((await use(dir, line, readOnly)).length > 0);
  }
  assertEquals(await use(dir, "compare a.qcow2 disk -F raw", readOnly), "Images are identical.\n");
});

Deno.test("a file outside the folder is an ordinary error that names the flag", async () => {
  await using dir = await tempDir();
  await using other = await tempDir();
  await makeDisk(other.file("disk"));
  const lines: [line: string, flag: string][] = [
    [`info ${other.file("disk")}`, "--allow-read"],
    // To be written it is read, too.
    [`create ${other.file("new")} 1M`, "--allow-read"],
    [`create -f qcow2 -b ${other.file("disk")} -F raw new`, "--allow-read"],
  ];
  for (const [line, flag] of lines) {
    const { code, stderr } = await runConfined(dir, line.split(" "));
    assertEquals(code, 1, line);
    assertStringIncludes(stderr, flag, line);
    assert(!stderr.includes("    at "), line);
  }
  assertEquals(Array.from(Deno.readDirSync(other.path), ({ name }) => name), ["disk"]);
});

Deno.test("an image cannot lead out of the folder", async () => {
  await using dir = await tempDir();
  await using other = await tempDir();
  await makeDisk(other.file("disk"));
  await use(dir, `create -q -f qcow2 -u -b ${other.file("disk")} -F raw a.qcow2 1M`);
  const { code, stderr } = await runConfined(dir, ["map", "a.qcow2"]);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "Could not open backing file: ");
  assertStringIncludes(stderr, "--allow-read");
});
