import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { amendImage, describeAmendOptions } from "../../lib/ops/amend.ts";
import { createImage } from "../../lib/ops/create.ts";
import { imageInfo } from "../../lib/ops/info.ts";
import { tempDir } from "../_temp.ts";

Deno.test("amendImage() changes several options at once and says how far it is", async () => {
  await using dir = await tempDir();
  const filename = dir.file("a");
  await createImage({ filename, format: "qcow2", size: 1 << 20 });
  const seen: number[] = [];
  await amendImage({ filename }, {
    options: [["size", "2M"], ["refcount_bits", "64"], ["lazy_refcounts", "on"]],
    onProgress: (fraction) => void seen.push(fraction),
  });
  const [info] = await imageInfo({ filename });
  assertEquals(info?.virtualSize, 2 << 20);
  const { data } = info!.details!.specific!;
  assertEquals([data["refcount-bits"], data["lazy-refcounts"]], [64, true]);
  assertEquals([seen[0], seen.at(-1)], [0, 1]);
});

Deno.test("amendImage() tells what only a new image can be given", async () => {
  await using dir = await tempDir();
  const filename = dir.file("a");
  await createImage({ filename, format: "qcow2", size: 1 << 20 });
  const of = (key: string) =>
    assertRejects(() => amendImage({ filename }, { options: [[key, "64k"]] }), ImageError);
  const creating = await of("cluster_size");
  assertEquals(creating.message, "Invalid parameter 'cluster_size'");
  assertEquals(creating.hint, "This option is only supported for image creation");
  assertEquals((await of("foo")).hint, undefined);
});

Deno.test("amendImage() and describeAmendOptions() refuse formats without such options", async () => {
  await using dir = await tempDir();
  const image = { filename: dir.file("a"), format: "raw" };
  await createImage({ filename: image.filename, size: 1 << 20 });
  const refusal = "Format driver 'raw' does not support option amendment";
  await assertRejects(() => amendImage(image, { options: [["size", "1M"]] }), ImageError, refusal);
  await assertRejects(() => describeAmendOptions({ format: "raw" }), ImageError, refusal);
  await assertRejects(() => describeAmendOptions({ image }), ImageError, refusal);
  await assertRejects(
    () => describeAmendOptions({ format: "zork" }),
    ImageError,
    "Unknown file format 'zork'",
  );
});

Deno.test("describeAmendOptions() lists options sorted, of a format and of an image", async () => {
  await using dir = await tempDir();
  const filename = dir.file("a");
  await createImage({ filename, format: "qcow2", size: 1 << 20 });
  const described = await describeAmendOptions({ format: "qcow2" });
  assertEquals(await describeAmendOptions({ image: { filename } }), described);
  const names = described.options.map(({ name }) => name);
  assertEquals(names, names.toSorted());
  assertEquals(names.includes("cluster_size"), false);
});
