import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { tempDir } from "../../_folders.ts";
import { testFileNode } from "./_behaviour.ts";
import { openFile, WRITABLE } from "./_node.ts";

const permissions: Deno.PermissionOptions = {
  read: "inherit",
  write: "inherit",
  ffi: false,
};

testFileNode("without native calls", permissions);

Deno.test({
  name: "without native calls a hole is data",
  permissions,
  fn: async () => {
    await using dir = await tempDir();
    Deno.writeFileSync(dir.file("a"), new Uint8Array());
    Deno.truncateSync(dir.file("a"), 1 << 20);
    await using node = await openFile(dir.file("a"), READ_ONLY);
    const { length, state } = await node.extent(0, 1 << 20);
    assertEquals([length, state], [1 << 20, "data"]);
  },
});

Deno.test({
  name: "without native calls zeros are written only if that is wanted",
  permissions,
  fn: async () => {
    await using dir = await tempDir();
    Deno.writeFileSync(dir.file("a"), new Uint8Array(1000).fill(1));
    await using node = await openFile(dir.file("a"), WRITABLE);
    const flags = { unmap: true, noFallback: true };
    const error = await assertRejects(() => node.writeZeroes(0, 10, flags), ImageError);
    assertEquals(error.errno, "ENOTSUP");
    // Behind the end nothing has to be written.
    await node.writeZeroes(1000, 10, flags);
    assertEquals(node.exactLength, 1010);
  },
});

for (
  const [flag, mode, denied] of [
    ["--allow-read", READ_ONLY, { read: false, write: "inherit" }],
    ["--allow-write", WRITABLE, { read: "inherit", write: false }],
  ] as const
) {
  Deno.test({
    name: `a missing permission is named together with the flag that grants it: ${flag}`,
    permissions: { ...denied, ffi: false },
    fn: async () => {
      const path = import.meta.filename!;
      const error = await assertRejects(() => openFile(path, mode), ImageError);
      assertStringIncludes(error.message, `Could not open '${path}': Requires`);
      assertStringIncludes(error.message, flag);
    },
  });
}
