import { assertEquals, assertStringIncludes } from "@std/assert";
import { reference, runQimg, runReference, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Holder, holdWithLibrary, holdWithQemuIo, holdWithQemuNbd } from "./_holder.ts";

// Both tools work on one folder here: whether they let each other in is what counts.

async function makeImages(cwd: string): Promise<void> {
  await useReference(["create", "-q", "-f", "raw", "a.raw", "1M"], { cwd });
  await useReference(["create", "-q", "-f", "qcow2", "a.qcow2", "1M"], { cwd });
  await useReference(["create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "o.qcow2"], {
    cwd,
  });
}

/** Command lines that change nothing where they are refused, and nothing of importance where not. */
const READERS = [
  "info a.qcow2",
  "info -U a.qcow2",
  "map a.qcow2",
  "map -U a.qcow2",
  "map o.qcow2",
  "map -U o.qcow2",
  "check a.qcow2",
  "measure a.qcow2",
  "info a.raw",
  "map -f raw a.raw",
  "dd if=a.qcow2 of=new",
  "dd -f raw if=a.raw of=new",
];
const WRITERS = [
  "resize a.qcow2 1M",
  "check -r all a.qcow2",
  "resize -f raw a.raw 1M",
  "create a.raw 1M",
  "create a.qcow2 1M",
  "create -f qcow2 -b a.qcow2 -F qcow2 new",
  "dd -f raw if=a.raw of=a.qcow2",
  // Last, because the reference may remove the file that it refuses to overwrite.
  "create -f qcow2 a.raw 1M",
];

const HOLDERS: readonly [name: string, hold: (cwd: string) => Promise<Holder>][] = [
  ["qemu-io writes a.qcow2", (cwd) => holdWithQemuIo(["-f", "qcow2", "a.qcow2"], cwd)],
  ["qemu-io reads a.qcow2", (cwd) => holdWithQemuIo(["-r", "-f", "qcow2", "a.qcow2"], cwd)],
  ["qemu-io writes a.raw", (cwd) => holdWithQemuIo(["-f", "raw", "a.raw"], cwd)],
  ["qemu-io reads a.raw", (cwd) => holdWithQemuIo(["-r", "-f", "raw", "a.raw"], cwd)],
  ["qemu-nbd writes a.qcow2", (cwd) => holdWithQemuNbd(["-f", "qcow2", "a.qcow2"], cwd)],
  ["qemu-nbd reads o.qcow2", (cwd) => holdWithQemuNbd(["-r", "-f", "qcow2", "o.qcow2"], cwd)],
];

for (const [name, hold] of HOLDERS) {
  Deno.test({
    name: `qimg is let in as the reference is while ${name}`,
    ignore: reference.ignore,
    fn: async () => {
      const outcomes = [];
      for (const tool of [runReference, runQimg]) {
        await using dir = await tempDir();
        const cwd = dir.path;
        await makeImages(cwd);
        await using _holder = await hold(cwd);
        const answers: Record<string, unknown> = {};
        for (const line of [...READERS, ...WRITERS]) {
          const { code, stderr } = await tool(line.split(" "), { cwd, program: "qemu-img" });
          answers[line] = [code, stderr];
        }
        outcomes.push(answers);
      }
      assertEquals(outcomes[1], outcomes[0]);
    },
  });
}

const OURS = [
  { image: "a.qcow2", format: "qcow2", writable: true },
  { image: "a.qcow2", format: "qcow2", writable: false },
  { image: "a.raw", format: "raw", writable: true },
] as const;

for (const { image, format, writable } of OURS) {
  const verb = writable ? "writes" : "reads";
  Deno.test({
    name: `the reference is kept out as by itself while qimg ${verb} ${image}`,
    ignore: reference.ignore,
    fn: async () => {
      const outcomes = [];
      const readOnly = writable ? [] : ["-r"];
      const holders = [
        (cwd: string) => holdWithQemuIo([...readOnly, "-f", format, image], cwd),
        (cwd: string) => holdWithLibrary(image, { format, writable }, cwd),
      ];
      for (const hold of holders) {
        await using dir = await tempDir();
        const cwd = dir.path;
        await makeImages(cwd);
        await using _holder = await hold(cwd);
        const answers: Record<string, unknown> = {};
        for (const line of [...READERS, ...WRITERS]) {
          const { code, stderr } = await runReference(line.split(" "), { cwd });
          answers[line] = [code, stderr];
        }
        outcomes.push(answers);
      }
      assertEquals(outcomes[1], outcomes[0]);
    },
  });
}

Deno.test({
  name: "a conflict is explained",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    const cwd = dir.path;
    await makeImages(cwd);
    await using _holder = await holdWithQemuIo(["-f", "qcow2", "a.qcow2"], cwd);
    const { code, stderr } = await runQimg(["info", "a.qcow2"], { cwd });
    assertEquals(code, 1);
    assertStringIncludes(
      stderr,
      "Could not open 'a.qcow2': Failed to get shared \"write\" lock\n" +
        "Is another process using the image [a.qcow2]?\n",
    );
  },
});

Deno.test({
  name: "a file in use that is refused as a target stays what it is",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    const cwd = dir.path;
    await makeImages(cwd);
    const before = await Deno.readFile(dir.file("a.raw"));
    await using _holder = await holdWithQemuIo(["-f", "raw", "a.raw"], cwd);
    const { code, stderr } = await runQimg(["create", "-q", "-f", "qcow2", "a.raw", "1M"], { cwd });
    assertEquals(code, 1);
    assertStringIncludes(stderr, 'Failed to get shared "write" lock');
    assertEquals(await Deno.readFile(dir.file("a.raw")), before);
  },
});
