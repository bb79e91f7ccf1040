import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { runDemo } from "../bench/demo.ts";
import { binary, makeBinary } from "./_binary.ts";
import { run } from "./_reference.ts";
import { tempDir } from "./_temp.ts";

Deno.test({
  name: "the compiled program",
  ignore: binary.ignore,
  async fn(t) {
    await using dir = await tempDir();
    const program = dir.file("qimg");
    await makeBinary(program);

    await t.step("goes by the name of its file", async () => {
      const { code, stdout } = await run(program, ["--version"], { cwd: dir.path });
      assertEquals(code, 0);
      assertStringIncludes(stdout, "qimg version ");
      const other = dir.file("qemu-img");
      await Deno.rename(program, other);
      assertStringIncludes(
        (await run(other, ["--version"], { cwd: dir.path })).stdout,
        "qemu-img version 10.0.2 (qimg ",
      );
      const { stderr } = await run(other, ["info", "missing"], { cwd: dir.path });
      assertStringIncludes(stderr, "qemu-img: Could not open 'missing': ");
      await Deno.rename(other, program);
    });

    await t.step("does the jobs of the demonstration", async () => {
      const images = dir.file("images");
      await Deno.mkdir(images);
      let story = "";
      await runDemo({
        program: [program],
        dir: images,
        size: 64 << 20,
        terminal: false,
        say: (text) => story += text,
      });
      assertStringIncludes(story, "Byte for byte the disk that went in");
    });

    await t.step("opens devices, and asks for nothing", async () => {
      const { code, stdout, stderr } = await run(program, ["info", "-f", "raw", "/dev/null"], {
        cwd: dir.path,
      });
      // What it says of a device is for other tests; here it must get that far.
      assert(!/permission|--allow/i.test(stdout + stderr), `${code}: ${stdout}${stderr}`);
    });

    await t.step("embeds one module", async () => {
      const text = new TextDecoder("latin1").decode(await Deno.readFile(program));
      const names = new Set([...text.matchAll(/"n":"([^"]+)"/g)].map(([, name]) => name!));
      assertEquals([...names].filter((name) => /\.[a-z]+$|^node_modules$/.test(name)), ["qimg.js"]);
    });
  },
});
