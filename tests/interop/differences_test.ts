/**
 * What README lists under "Differences from qemu-img": where the reference
 * crashes, hangs, loses data or ends with 0 after an error. Each test shows
 * both sides as far as the reference comes to an end.
 */

import { assertEquals, assertNotEquals } from "@std/assert";
import { reference, runQimg, runReference, sha256, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, type Given, img } from "./_cases.ts";

const M = 1024 * 1024;

/** One difference. */
interface Difference {
  readonly given: readonly Given[];
  readonly run: string;
  /** The reference's exit code; absent where it never ends. */
  readonly theirs?: number;
  /** Our exit code, 1 unless told. */
  readonly ours?: number;
  /** Our standard error after the program's name. */
  readonly says?: string;
  /** Files that must be as before, or not there as before, with qimg. */
  readonly keeps?: readonly string[];
  /** Looks at the folders, theirs first, for what an exit code does not tell. */
  readonly look?: (theirs: string, ours: string) => unknown;
}

function differs(name: string, difference: Difference): void {
  const { given, run, theirs, ours = 1, says, keeps = [], look } = difference;
  Deno.test({
    name: `difference: ${name}`,
    ignore: reference.ignore,
    async fn() {
      const args = run.split(" ");
      await using one = await tempDir();
      await using two = await tempDir();
      for (const step of given) await step.make(two.path);
      const before = await Promise.all(keeps.map((name) => digest(two.file(name))));
      if (theirs !== undefined) {
        for (const step of given) await step.make(one.path);
        const { code } = await runReference(args, { cwd: one.path });
        assertEquals(code, theirs, "the reference's exit code");
      }
      const { code, stderr } = await runQimg(args, { cwd: two.path });
      assertEquals(code, ours, stderr);
      if (says !== undefined) assertEquals(stderr, `qimg: ${says}\n`);
      assertEquals(await Promise.all(keeps.map((name) => digest(two.file(name)))), before);
      await look?.(one.path, two.path);
    },
  });
}

async function digest(path: string): Promise<string> {
  try {
    return await sha256(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "not there";
    throw error;
  }
}

const SOURCE = disk("src", M, [[0, M, "noise"]]);

// Chains that come back to themselves.

const ITSELF = [img("create -f qcow2 a 1M"), img("rebase -u -b a -F qcow2 a")];
const EACH_OTHER = [
  img("create -f qcow2 -u -b b -F qcow2 a 1M"),
  img("create -f qcow2 -u -b a -F qcow2 b 1M"),
];
for (const command of ["map", "check", "measure -O qcow2", "resize -f qcow2"]) {
  const size = command.startsWith("resize") ? " 2M" : "";
  differs(`${command} of an image that is its own backing file`, {
    given: ITSELF,
    run: `${command} a${size}`,
    says: "Could not open 'a': Could not open backing file: " +
      "Backing file 'a' creates an infinite loop.",
    keeps: ["a"],
  });
}
differs("convert of images that are each other's backing files", {
  given: EACH_OTHER,
  run: "convert a c",
  says: "Could not open 'a': Could not open backing file: Could not open backing file: " +
    "Backing file 'a' creates an infinite loop.",
  keeps: ["a", "b", "c"],
});
differs("create on images that are each other's backing files", {
  given: EACH_OTHER,
  run: "create -f qcow2 -b a -F qcow2 c",
  says: "c: Could not open backing file: Could not open backing file: " +
    "Backing file 'a' creates an infinite loop.\nCould not open backing image.",
  keeps: ["a", "b", "c"],
});
differs("info of a chain that comes back by another name", {
  given: [img("create -f qcow2 -u -b ./a -F qcow2 a 1M")],
  run: "info --backing-chain a",
  theirs: 1,
  says: "Backing file './a' creates an infinite loop.",
});

// Images made over their own sources and backing files.

differs("create over the backing file by another name", {
  given: [SOURCE],
  run: "create -f qcow2 -b ./src -F raw src",
  theirs: 0,
  says: "src: Error: Trying to create an image with the same filename as the backing file",
  keeps: ["src"],
});
differs("convert onto itself as a backing file", {
  given: [img("create -f qcow2 a 1M")],
  run: "convert -B b -F raw -O qcow2 a b",
  theirs: 0,
  says: "b: error while converting qcow2: " +
    "Trying to create an image with the same filename as the backing file",
  keeps: ["b"],
});
differs("dd onto its source", {
  given: [SOURCE],
  run: "dd if=src of=src",
  theirs: 0,
  says: "src: error while creating output image: 'src' is what is to be read",
  keeps: ["src"],
  look: async (theirs, ours) => {
    assertNotEquals(await sha256(`${theirs}/src`), await sha256(`${ours}/src`));
  },
});
differs("convert onto its source in spite of everything", {
  given: [SOURCE],
  run: "convert -U -f raw -O raw src src",
  theirs: 0,
  says: 'src: error while converting raw: Failed to get "write" lock\n' +
    "Is another process using the image [src]?",
  keeps: ["src"],
});

// Errors that end with 0.

differs("convert -n --target-is-zero -B", {
  given: [SOURCE, img("create -f qcow2 b 1M")],
  run: "convert -n --target-is-zero -B src -F raw -O qcow2 src b",
  theirs: 0,
  says: "Cannot use --target-is-zero when the destination image has a backing file",
  keeps: ["src", "b"],
});

// Half-made files.

for (const line of ["create -o preallocation=metadata b 1M", "convert -t zork src b"]) {
  differs(`what cannot be made is gone: ${line}`, {
    given: [SOURCE],
    run: line,
    theirs: 1,
    keeps: ["b"],
    look: async (theirs) => assertNotEquals(await digest(`${theirs}/b`), "not there"),
  });
}

// Sizes of files.

differs("convert past the page cache does not make a file longer than the disk", {
  given: [disk("src", M + 512, [[0, M + 512, "noise"]]), disk("b", M + 512, [])],
  run: "convert -n -t none -f raw -O raw src b",
  theirs: 0,
  ours: 0,
  look: async (_, ours) => assertEquals(await sha256(`${ours}/b`), await sha256(`${ours}/src`)),
});
differs("shrinking makes no tables for what never was there", {
  given: [img("create -f qcow2 a 1G")],
  run: "resize --shrink a 1M",
  theirs: 0,
  ours: 0,
  look: async (theirs, ours) => {
    const [larger, smaller] = [await Deno.stat(`${theirs}/a`), await Deno.stat(`${ours}/a`)];
    assertEquals(larger.size > smaller.size, true);
    await useReference(["check", "a"], { cwd: ours });
  },
});
