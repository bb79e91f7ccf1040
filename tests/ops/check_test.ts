import { assertEquals } from "@std/assert";
import { loadNative } from "../../lib/io/native.ts";
import { checkImage } from "../../lib/ops/check.ts";
import { reference, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { testSame } from "./_same.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const CLUSTER = 65536;

/** Sets 16-bit refcounts in the first refcount block of an image that the reference has just made. */
async function setRefcounts(path: string, refcounts: Record<number, number>): Promise<void> {
  using file = await Deno.open(path, { read: true, write: true });
  for (const [cluster, refcount] of Object.entries(refcounts)) {
    const entry = new Uint8Array(2);
    new DataView(entry.buffer).setUint16(0, refcount);
    await file.seek(2 * CLUSTER + 2 * Number(cluster), Deno.SeekMode.Start);
    await file.write(entry);
  }
}

/** What is done to an image's refcounts, and how long its file is then, in clusters. */
const DAMAGES: Readonly<Record<string, { refcounts: Record<number, number>; clusters?: number }>> =
  {
    clean: { refcounts: {} },
    leaky: { refcounts: { 10: 1, 12: 3 }, clusters: 20 },
    corrupt: { refcounts: { 5: 0, 6: 2 } },
    both: { refcounts: { 6: 0, 11: 1 }, clusters: 20 },
  };

async function makeImage(dir: string, name: string): Promise<void> {
  await useReference(["create", "-q", "-f", "qcow2", name, "1M"], { cwd: dir });
  await writeWithReference(name, ["write -P 1 0 128k"], { cwd: dir, format: "qcow2" });
  const { refcounts, clusters } = DAMAGES[name]!;
  if (clusters !== undefined) await Deno.truncate(`${dir}/${name}`, clusters * CLUSTER);
  await setRefcounts(`${dir}/${name}`, refcounts);
}

for (const name of Object.keys(DAMAGES)) {
  const setup = (dir: string) => makeImage(dir, name);
  testSame([
    `check ${name}`,
    `check --output=json ${name}`,
    `check -q ${name}`,
    `check -U ${name}`,
    `check -T none ${name}`,
  ], { setup, files: [name] });
  testSame([
    `check -r leaks ${name}`,
    `check -r all ${name}`,
    `check -r all --output=json ${name}`,
    `check -q -r all ${name}`,
  ], { setup, images: [{ name, format: "qcow2" }] });
}

testSame(
  ["check -r some clean", "check -T some clean", "check -f raw clean", "check -f raw none"],
  {
    setup: (dir) => makeImage(dir, "clean"),
  },
);

Deno.test({
  name: "an image in which something was repaired is checked twice, and both results are told",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    await makeImage(dir.path, "leaky");
    const lines: string[] = [];
    const repaired: unknown[] = [];
    const outcome = await checkImage(
      { filename: dir.file("leaky") },
      { repair: "leaks" },
      { warn() {}, report: (line) => void lines.push(line), untrusted: false },
      (counts) => void repaired.push({ ...counts, linesSoFar: lines.length }),
    );
    // The second pass finds nothing more.
    assertEquals(repaired, [{ leaks: 2, corruptions: 0, linesSoFar: lines.length }]);
    assertEquals(outcome?.repaired, { leaks: 2, corruptions: 0 });
    assertEquals(outcome?.result.leaks, 0);
    assertEquals(outcome?.result.leaksFixed, 2);
    assertEquals(lines.filter((line) => line.startsWith("Repairing")), [
      "Repairing cluster 10 refcount=1 reference=0",
      "Repairing cluster 12 refcount=3 reference=0",
    ]);
  },
});

Deno.test("a format without a check has no outcome", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(512));
  assertEquals(await checkImage({ filename: dir.file("a"), format: "raw" }), undefined);
});
