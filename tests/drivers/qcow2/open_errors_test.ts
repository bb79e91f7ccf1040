import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, runReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { type Damage, DAMAGES } from "./_damage.ts";
import { context, create, open } from "./_image.ts";

async function damaged(damage: Damage): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = (await create({ size: "1M" })).bytes();
  damage.apply(bytes);
  return bytes;
}

for (const damage of DAMAGES) {
  Deno.test(`opening refuses: ${damage.name}`, async () => {
    const file = new MemoryNode({ bytes: await damaged(damage) });
    const error = await assertRejects(() => open(file, context(damage.mode), null), ImageError);
    assertEquals(error.message, damage.text);
    assertEquals(error.file, "test.qcow2");
    assert(error.field !== undefined, "names the field");
    assertEquals(file.closed, false, "leaves the file to the caller");
  });
}

Deno.test({
  name: "opening refuses damaged headers with the reference's words",
  ignore: reference.ignore,
  fn: async (t) => {
    for (const damage of DAMAGES) {
      await t.step({
        name: damage.name,
        ignore: damage.own === true,
        fn: async () => {
          await using dir = await tempDir();
          await Deno.writeFile(dir.file("x.qcow2"), await damaged(damage));
          const { stderr } = damage.mode?.writable
            ? await runReference(["-f", "qcow2", "-c", "quit", "x.qcow2"], {
              cwd: dir.path,
              tool: "qemu-io",
            })
            : await runReference([
              damage.mode?.metadataOnly ? "info" : "map",
              "-f",
              "qcow2",
              "x.qcow2",
            ], {
              cwd: dir.path,
            });
          const text = stderr.trimEnd().replace(
            /^(qemu-img: Could not open 'x.qcow2'|qemu-io: can't open device x.qcow2): /,
            "",
          );
          assertEquals(text, damage.text);
        },
      });
    }
  },
});
