import { assertEquals, assertRejects } from "@std/assert";
import { measureImage } from "../../../drivers/qcow2/measure.ts";
import type { BitmapStore } from "../../../lib/block/capabilities.ts";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../../lib/block/node.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, runReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { createOptions } from "./_image.ts";

type Options = Readonly<Record<string, string>>;

Deno.test("measure says what section 18 of the format's reference lists", async () => {
  const cases: [Options, number, number][] = [
    [{ size: "1M" }, 327680, 1376256],
    [{ size: "1G" }, 393216, 1074135040],
    [{ size: "1G", extended_l2: "on" }, 524288, 1074266112],
    [{ size: "1G", cluster_size: "512" }, 21385216, 1095127040],
    [{ size: "1G", refcount_bits: "64" }, 524288, 1074266112],
    [{ size: "0" }, 196608, 196608],
  ];
  for (const [options, required, fullyAllocated] of cases) {
    assertEquals(await measureImage(createOptions(options), undefined), {
      required,
      fullyAllocated,
    });
  }
});

Deno.test("measure of a disk that needs an L1 table above 32 MiB is an error", async () => {
  const options = createOptions({ size: "1T", cluster_size: "512" });
  const error = await assertRejects(() => measureImage(options, undefined), ImageError);
  assertEquals(error.message, "The image size is too large (try using a larger cluster size)");
});

/** Bytes of data that a measurement counted. */
async function counted(options: Options, node: BlockNode): Promise<number> {
  const { required, fullyAllocated } = await measureImage(createOptions(options), node);
  return required - (fullyAllocated - Math.ceil(node.length / 65536) * 65536);
}

/** A node that consists of runs and whose data nobody reads. */
class Source extends MemoryNode {
  readonly #runs: readonly Partial<Extent>[];
  readonly #backing: BlockNode | null;
  readonly bitmaps?: BitmapStore;

  constructor(
    runs: readonly Partial<Extent>[],
    backing: BlockNode | null = null,
    bitmaps?: BitmapStore,
  ) {
    super();
    this.#runs = runs;
    this.#backing = backing;
    if (bitmaps !== undefined) this.bitmaps = bitmaps;
  }

  override get length(): number {
    return this.#runs.reduce((sum, run) => sum + run.length!, 0);
  }

  get backing() {
    return {
      name: "",
      format: undefined,
      node: this.#backing,
      attach: () => {},
    };
  }

  override extent(offset: number, most: number): Promise<Extent> {
    let at = 0;
    for (const run of this.#runs) {
      const end = at + run.length!;
      if (offset < end) {
        return Promise.resolve({
          state: "data",
          compressed: false,
          ...run,
          length: Math.min(end - offset, most),
        });
      }
      at = end;
    }
    throw new Error(`extent at ${offset}`);
  }
}

Deno.test("measure counts the clusters that hold data", async () => {
  const node = new Source([
    { length: 512 },
    { length: 65536 * 4 - 512, state: "zero" },
    { length: 65536 },
    { length: 65536, hole: true },
    { length: 65536, state: "unallocated" },
  ]);
  assertEquals(await counted({}, node), 2 * 65536);
});

Deno.test("measure looks through to the backing file as far as it reaches", async () => {
  const backing = new Source([{ length: 65536 * 2 }]);
  const node = new Source([{ length: 65536 * 8, state: "unallocated" }], backing);
  assertEquals(await counted({}, node), 2 * 65536);
});

Deno.test("measure with a backing file of the target's own counts everything", async () => {
  const node = new Source([{ length: 65536 * 3, state: "zero" }]);
  assertEquals(await counted({ backing_file: "b", backing_fmt: "raw" }, node), 3 * 65536);
});

Deno.test("measure with preallocated data counts everything", async () => {
  const node = new Source([{ length: 65536 * 3, state: "zero" }]);
  assertEquals(await counted({ preallocation: "falloc" }, node), 3 * 65536);
  assertEquals(await counted({ preallocation: "metadata" }, node), 0);
});

Deno.test("measure has bitmaps where source and target can have them", async () => {
  const list = [
    { name: "b0", granularity: 65536, flags: ["auto"], enabled: true, consistent: true },
    { name: "in use", granularity: 65536, flags: ["in-use"], enabled: false, consistent: false },
  ];
  const node = new Source([{ length: 65536, state: "zero" }], null, { list: () => list });
  const with3 = await measureImage(createOptions({}), node);
  // Those that cannot be copied count, too, as in the reference.
  assertEquals(with3.bitmaps, 5 * 65536);
  const with2 = await measureImage(createOptions({ compat: "0.10" }), node);
  assertEquals("bitmaps" in with2, false);
});

Deno.test({
  name: "measure of sizes says what the reference says",
  ignore: reference.ignore,
  fn: async (t) => {
    await using dir = await tempDir();
    const cases: Options[] = [];
    for (const size of ["0", "1", "513", "1000000", "1G", "1073741825", "64G", "3T"]) {
      for (const cluster_size of ["4k", "64k", "2M"]) {
        cases.push({ size, cluster_size });
        cases.push({ size, cluster_size, refcount_bits: "1" });
        cases.push({ size, cluster_size, refcount_bits: "64", preallocation: "full" });
        if (cluster_size !== "4k") cases.push({ size, cluster_size, extended_l2: "on" });
      }
    }
    cases.push({ size: "2P" }, { size: "7P", cluster_size: "2M" }, { size: "3P" });
    cases.push({ size: "1G", cluster_size: "3k" }, { size: "1G", refcount_bits: "7" });
    cases.push({ size: "1G", preallocation: "some" }, { size: "1G", compat: "2.0" });
    cases.push({ size: "1G", compat: "0.10", refcount_bits: "1" });
    cases.push({ size: "1G", compat: "0.10", extended_l2: "on" });
    cases.push({ size: "1G", compat: "0.10", lazy_refcounts: "on" });
    cases.push({ size: "1G", compression_type: "lz4" });
    cases.push({ size: "1G", data_file_raw: "on" });
    cases.push({ size: "1G", backing_fmt: "raw" }, { size: "1G", compat: "v3" });
    cases.push({ size: "1G", cluster_size: "4k", extended_l2: "on" });
    cases.push({ size: "1G", "encrypt.format": "luks" }, { size: "1G", "encrypt.format": "aes" });
    cases.push({ size: "1G", "encrypt.format": "luks", "encrypt.cipher-alg": "rot13" });
    for (const options of cases) {
      const { size, ...rest } = options;
      const list = Object.entries(rest).flatMap((pair) => ["-o", pair.join("=")]);
      await t.step(Object.entries(options).map((pair) => pair.join("=")).join(","), async () => {
        const { code, stdout, stderr } = await runReference(
          ["measure", "-O", "qcow2", "--output=json", ...list, "--size", size!],
          { cwd: dir.path },
        );
        if (code !== 0) {
          const error = await assertRejects(
            () => measureImage(createOptions(options), undefined),
            ImageError,
          );
          assertEquals(`qemu-img: ${error.message}\n`, stderr);
          return;
        }
        const expected = JSON.parse(stdout);
        assertEquals(await measureImage(createOptions(options), undefined), {
          required: expected.required,
          fullyAllocated: expected["fully-allocated"],
        });
      });
    }
    // Nothing was made by measuring it.
    assertEquals([...Deno.readDirSync(dir.path)], []);
  },
});
