import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { loadNative } from "../../lib/io/native.ts";
import { createImage } from "../../lib/ops/create.ts";
import { imageInfo } from "../../lib/ops/info.ts";
import { useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { testSame } from "./_same.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

async function makeImages(dir: string): Promise<void> {
  const make = (...args: string[]) => useReference(["create", "-q", ...args], { cwd: dir });
  await make("-f", "raw", "a.raw", "1M");
  await make("-f", "qcow2", "-b", "a.raw", "-F", "raw", "a.qcow2");
  await make("-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "top.qcow2");
  await make("-f", "qcow2", "-u", "-b", "none", "-F", "raw", "orphan.qcow2", "1M");
  await make("-f", "qcow2", "-u", "-b", "b.qcow2", "-F", "qcow2", "loop.qcow2", "1M");
  await make("-f", "qcow2", "-u", "-b", "loop.qcow2", "-F", "qcow2", "b.qcow2", "1M");
  await make("-f", "qcow2", "-u", "-b", "nosuch:x", "-F", "raw", "proto.qcow2", "1M");
  await Deno.mkdir(`${dir}/sub`);
  await make("-f", "qcow2", "-b", "../a.qcow2", "-F", "qcow2", "sub/s.qcow2");
  await make("-f", "qcow2", "-b", `${dir}/a.raw`, "-F", "raw", "sub/t.qcow2");
  await Deno.copyFile(`${dir}/a.qcow2`, `${dir}/sub/x:y.qcow2`);
  await Deno.writeFile(`${dir}/odd`, new Uint8Array(1000).fill(1));
}

const IMAGES = [
  "a.raw",
  "odd",
  "./odd",
  "file:odd",
  "-f raw a.qcow2",
  "-f file a.qcow2",
  "a.qcow2",
  "file:sub/x:y.qcow2",
  "sub/x:y.qcow2",
  "sub/s.qcow2",
  "sub/t.qcow2",
  "orphan.qcow2",
  "loop.qcow2",
  "proto.qcow2",
  "-b a.raw",
  "-b top.qcow2",
  "-b sub/s.qcow2",
  "-b sub/t.qcow2",
  "-b orphan.qcow2",
  "-b loop.qcow2",
  "-b proto.qcow2",
  "-b -f raw a.qcow2",
  "-U -b top.qcow2",
];

testSame(IMAGES.map((image) => `info ${image}`), { setup: makeImages });
testSame(IMAGES.map((image) => `info --output=json ${image}`), { setup: makeImages });

Deno.test("a chain that never repeats a name is found to be a loop all the same", async () => {
  await using dir = await tempDir();
  await Deno.mkdir(dir.file("sub"));
  // Each look at it makes the name longer: sub/../sub/../a …
  await createImage({
    filename: dir.file("a"),
    format: "qcow2",
    size: 512,
    backing: "sub/../a",
    backingFormat: "qcow2",
    unsafeBacking: true,
  });
  const error = await assertRejects(
    () => imageInfo({ filename: dir.file("a") }, { chain: true }),
    ImageError,
  );
  assertEquals(
    error.message,
    `Backing file '${dir.file("sub/../a")}' creates an infinite loop.`,
  );
});

Deno.test("the chain of an untrusted image ends with an error where it leaves the image", async () => {
  await using dir = await tempDir();
  await createImage({
    filename: dir.file("a"),
    format: "qcow2",
    size: 512,
    backing: "/etc/passwd",
    backingFormat: "raw",
    unsafeBacking: true,
  });
  const untrusted = { ...QUIET, untrusted: true };
  const [info] = await imageInfo({ filename: dir.file("a") }, {}, untrusted);
  assertEquals(info?.fullBackingFilename, "/etc/passwd");
  const error = await assertRejects(
    () => imageInfo({ filename: dir.file("a") }, { chain: true }, untrusted),
    ImageError,
  );
  assertEquals(
    error.message,
    `'${dir.file("a")}' refers to '/etc/passwd' as its backing file, ` +
      "which is not opened for an untrusted image",
  );
});
