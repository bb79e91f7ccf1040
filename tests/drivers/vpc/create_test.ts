import { assertEquals, assertRejects } from "@std/assert";
import { vpc } from "../../../drivers/vpc/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { sha256 } from "../qcow2/_image.ts";
import { context, create, open } from "./_images.ts";
import { withoutIdentity } from "./_mask.ts";

const [M, G] = [1024 ** 2, 1024 ** 3];

async function hashOf(file: MemoryNode): Promise<string> {
  return await sha256(withoutIdentity(file.bytes()) as Uint8Array<ArrayBuffer>);
}

Deno.test("new images are those of the format's reference, to the byte", async () => {
  for (
    const [options, length, hash] of [
      [{ size: "5M" }, 2560, "92feb60f04b7f6e9fecdcf90a6b0b242ec76142f6d407eda1756d51e4f7723ff"],
      [
        { size: "5M", force_size: "on" },
        2560,
        "3976a4325d8b0b8e51bbc87e60bab413db40497d1a0409ce3863039c4d7f0245",
      ],
      [
        { size: "1M", subformat: "fixed" },
        1079808,
        "c5cb88df6987b38ef6e24dfc737a0172e3e9f7a2170fd2a905b3c0fe4d9f5aca",
      ],
    ] as const
  ) {
    const file = await create(options);
    assertEquals([file.length, await hashOf(file)], [length, hash], JSON.stringify(options));
  }
});

Deno.test("a block that is written lies as in the format's reference, to the byte", async () => {
  let written = await create({ size: "5M", force_size: "on" });
  {
    await using node = await open(written, { writable: true });
    await node.write(2 * M, new Uint8Array(4096).fill(0x5a));
  }
  assertEquals(written.length, 2100224);
  assertEquals(
    await hashOf(written),
    "e5fc1a848953714ed4c9a03f23ffa080fc89ba151f805af2d6cc301ab51b38b6",
  );
  written = written.copy();
  {
    await using node = await open(written, { writable: true });
    await node.write(0, new Uint8Array(512).fill(0x5b));
    await node.writeZeroes(4 * M, 512, { unmap: false });
  }
  assertEquals(written.length, 6295552);
  assertEquals(written.slice(1536, 12).toHex(), "000010050000000400002006");
});

Deno.test("images of Azure have exactly the size that was asked for, a footer behind it, and no more", async () => {
  for (const size of [M, 30 * M, G, 127 * G, 1023 * G]) {
    const file = await create({ size: String(size), subformat: "fixed", force_size: "on" });
    assertEquals(file.length, size + 512);
    const footer = new DataView(file.slice(size, 512).buffer);
    // Original and current size, and that it is fixed.
    assertEquals(
      [footer.getBigUint64(40), footer.getBigUint64(48), footer.getUint32(60)],
      [BigInt(size), BigInt(size), 2],
    );
    await using node = await open(file);
    assertEquals(node.length, size);
  }
});

Deno.test("what was asked for wrongly is refused before anything is made", async () => {
  for (
    const [options, message] of [
      [{ size: "1M", subformat: "sparse" }, "Parameter 'subformat' does not accept value 'sparse'"],
      [{ size: "2041G" }, "File too large"],
      [{ size: "2041G", force_size: "on", subformat: "fixed" }, "File too large"],
      [{ size: "8000P" }, "File too large"],
    ] as const
  ) await assertRejects(() => create(options), ImageError, message);
});

Deno.test("without its last write a dynamic image is nobody's image", async () => {
  const file = new MemoryNode();
  file.onRequest((request) => {
    if (request.kind === "write" && request.offset === 0) throw ImageError.fromErrno("EIO");
  });
  await assertRejects(() =>
    vpc.create!({
      filename: "test.vhd",
      options: new OptionSet(vpc.createOptions!, [["size", "1M"]]),
      createBase: () => Promise.resolve(file),
      context: context({ writable: true }),
    }), ImageError);
  await assertRejects(() => open(file.copy()), ImageError, "invalid VPC image");
});
