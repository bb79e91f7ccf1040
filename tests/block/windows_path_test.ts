import { assertEquals } from "@std/assert";
import { hostNameOf } from "../../lib/block/windows_path.ts";
import { MemoryNode } from "../_memory_node.ts";
import { tempDir } from "../_temp.ts";

const isWindows = Deno.build.os === "windows";

function nodeAt(path: string): MemoryNode {
  return Object.assign(new MemoryNode(), { local: { path, direct: false, sync: false } });
}

Deno.test({
  name: "paths of Windows are names in the image's folder, and never have a protocol",
  ignore: isWindows,
  fn() {
    const image = new MemoryNode();
    for (
      const [path, name] of [
        [".\\a.vhd", "./a.vhd"],
        ["..\\disks\\a.vhd", "../disks/a.vhd"],
        ["a.vhd", "./a.vhd"],
        ["nbd:host:10809", "./nbd:host:10809"],
        ["C:\\disks\\a.vhd", "./a.vhd"],
        ["C:a.vhd", "./C:a.vhd"],
        ["\\\\?\\C:\\disks\\a.vhd", "./a.vhd"],
        ["\\\\server\\share\\a.vhd", "./a.vhd"],
        ["/srv/a.vhd", "/srv/a.vhd"],
        ["json:{}", "./json:{}"],
      ] as const
    ) assertEquals(hostNameOf([path], image, true), name);
  },
});

Deno.test({
  name: "of several paths the first counts that is there",
  ignore: isWindows,
  async fn() {
    await using dir = await tempDir();
    await Deno.writeTextFile(dir.file("b.vhd"), "");
    const image = nodeAt(dir.file("image"));
    const paths = [".\\a.vhd", "D:\\disks\\b.vhd"];
    assertEquals(hostNameOf(paths, image, true), "./b.vhd");
    assertEquals(hostNameOf(paths, image, false), "./a.vhd");
    assertEquals(hostNameOf(["x\\a.vhd", "c.vhd"], image, true), "./x/a.vhd");
    assertEquals(
      hostNameOf([dir.file("c.vhd"), dir.file("b.vhd")], image, true),
      dir.file("b.vhd"),
    );
  },
});
