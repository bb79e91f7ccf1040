import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { openImage, serveImage, type ServeOptions } from "../../lib/mod.ts";
import { Random } from "../_random.ts";
import { reference, run, runReference, useReference } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";
import { ignoreWithoutLibnbd } from "./_nbd_peers.ts";

// Real clients read and write images of all kinds through the server.

const MIB = 1 << 20;
const SIZE = 8 * MIB;

/** Formats, with the options that they are made with. */
const FORMATS: readonly (readonly [format: string, ...options: string[]])[] = [
  ["raw"],
  ["qcow2"],
  ["qcow2", "-o", "cluster_size=512,extended_l2=off"],
  ["vmdk"],
  ["vhdx"],
  ["vdi"],
  ["qed"],
  ["vpc", "-o", "force_size=on"],
];

/** Runs a program that must succeed; answers with what it prints. */
async function use(dir: TempDir, program: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, { cwd: dir.path });
  assert(code === 0, `${program} ${args.join(" ")}: ${code}\n${stdout}${stderr}`);
  return stdout;
}

/** Serves an image while `body` runs. */
async function serving(
  dir: TempDir,
  image: string,
  format: string,
  options: ServeOptions,
  body: (uri: string) => Promise<void>,
): Promise<void> {
  const address = { socket: dir.file("s") };
  const server = await serveImage({ filename: dir.file(image), format }, { address, ...options });
  try {
    await body(server.uri);
  } finally {
    await server.stop();
  }
}

/** A disk with data here and there. */
async function makeDisk(path: string, random: Random): Promise<void> {
  const bytes = new Uint8Array(SIZE);
  for (let i = 0; i < 12; i++) {
    bytes.set(random.bytes(random.between(1, 200_000)), random.below(SIZE - 200_000));
  }
  await Deno.writeFile(path, bytes);
}

Deno.test({
  name: "nbdinfo sees what there is",
  ignore: reference.ignore || ignoreWithoutLibnbd,
  async fn() {
    await using dir = await tempDir();
    const cwd = { cwd: dir.path };
    await useReference(["create", "-q", "-f", "qcow2", "disk", "1M"], cwd);
    await useReference(["bitmap", "--add", "-g", "64k", "disk", "b0"], cwd);
    await useReference(["-c", "write -q -P 1 128k 64k", "disk"], { ...cwd, tool: "qemu-io" });
    await serving(dir, "disk", "qcow2", { exportName: "e x", description: "d" }, async (uri) => {
      const { exports: [found] } = JSON.parse(await use(dir, "nbdinfo", "--json", uri));
      assertEquals(found["export-name"], "e x");
      assertEquals(found["export-size"], MIB);
      assertEquals(found["contexts"], ["base:allocation", "qemu:dirty-bitmap:b0"]);
      assertEquals(found["is_read_only"], true);
      assertEquals(found["can_multi_conn"], true);
      assertEquals(found["block_size_maximum"], 32 * MIB);
      assertStringIncludes(await use(dir, "nbdinfo", "--list", uri), "description: d");
      const map = JSON.parse(await use(dir, "nbdinfo", "--json", "--map", uri));
      assertEquals(map.map(({ length, type }: Record<string, number>) => [length, type]), [
        [131072, 3],
        [65536, 0],
        [MIB - 196608, 3],
      ]);
      const dirty = ["--map=qemu:dirty-bitmap:b0", "--json", uri];
      const bitmap = JSON.parse(await use(dir, "nbdinfo", ...dirty));
      assertEquals(bitmap.map(({ length, type }: Record<string, number>) => [length, type]), [
        [131072, 0],
        [65536, 1],
        [MIB - 196608, 0],
      ]);
    });
  },
});

for (const [format, ...options] of FORMATS) {
  const what = [format, ...options.slice(1)].join(" ");
  Deno.test({
    name: `clients copy to ${what} and back, and find it equal`,
    ignore: reference.ignore || ignoreWithoutLibnbd,
    async fn() {
      await using dir = await tempDir();
      const cwd = { cwd: dir.path };
      await makeDisk(dir.file("disk"), new Random(1));
      await useReference(["create", "-q", "-f", format, ...options, "image", `${SIZE}`], cwd);
      await serving(dir, "image", format, { writable: true, shared: 8 }, async (uri) => {
        await use(dir, "nbdcopy", "--flush", "disk", uri);
        const compare = ["compare", "-f", "raw", "-F", "raw", "disk", uri];
        assertEquals(await useReference(compare, cwd), "Images are identical.\n");
      });
      await serving(dir, "image", format, {}, async (uri) => {
        await use(dir, "nbdcopy", uri, "copied");
        await useReference(["convert", "-f", "raw", "-O", "raw", uri, "converted"], cwd);
      });
      for (const copy of ["copied", "converted"]) {
        const args = ["compare", "-f", "raw", "-F", "raw", "disk", copy];
        assertEquals(await useReference(args, cwd), "Images are identical.\n", copy);
      }
      const { code, stdout } = await runReference(["check", "-f", format, "image"], cwd);
      // 63: there is nothing to check.
      assert(code === 0 || code === 63, stdout);
    },
  });

  Deno.test({
    name: `qemu-io does what it likes with ${what}, as with a plain file`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const cwd = { cwd: dir.path };
      const seed = 3;
      const random = new Random(seed);
      await useReference(["create", "-q", "-f", format, ...options, "image", `${SIZE}`], cwd);
      const model = new Uint8Array(SIZE);
      const commands: string[] = [];
      for (let i = 0; i < 120; i++) {
        const length = random.pick([1, 511, 512, 4096, 65536, random.between(1, 300_000)]);
        const at = random.below(SIZE - length);
        const byte = random.between(1, 255);
        switch (random.below(6)) {
          case 0:
          case 1:
            commands.push(`write ${random.oneIn(4) ? "-f " : ""}-q -P ${byte} ${at} ${length}`);
            model.fill(byte, at, at + length);
            break;
          case 2:
            commands.push(`write -q -z ${random.oneIn(2) ? "-u " : ""}${at} ${length}`);
            model.fill(0, at, at + length);
            break;
          case 3: {
            // What a discard leaves may be the old data, so zeros take its place.
            commands.push(`discard -q ${at} ${length}`, `write -q -z ${at} ${length}`);
            model.fill(0, at, at + length);
            break;
          }
          case 4:
            commands.push(`aio_write -q -P ${byte} ${at} ${length}`, "aio_flush");
            model.fill(byte, at, at + length);
            break;
          default:
            commands.push("flush");
        }
        const value = model[at]!;
        const end = model.subarray(at, at + length).findIndex((other) => other !== value);
        commands.push(`read -q -P ${value} ${at} ${end < 0 ? length : end}`);
      }
      await serving(dir, "image", format, { writable: true }, async (uri) => {
        const args = ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), uri];
        const { code, stdout } = await runReference(args, { ...cwd, tool: "qemu-io" });
        assertEquals([code, stdout], [0, ""], `seed ${seed}`);
      });
      await Deno.writeFile(dir.file("model"), model);
      const compare = ["compare", "-f", "raw", "-F", format, "model", "image"];
      assertEquals(await useReference(compare, cwd), "Images are identical.\n", `seed ${seed}`);
      const { code, stdout } = await runReference(["check", "-f", format, "image"], cwd);
      assert(code === 0 || code === 63, stdout);
    },
  });
}

for (const format of ["raw", "qcow2", "vmdk", "vhdx", "vdi"]) {
  Deno.test({
    name: `random requests of our own client, many at a time: ${format}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const cwd = { cwd: dir.path };
      const seed = 5;
      const random = new Random(seed);
      await useReference(["create", "-q", "-f", format, "image", `${SIZE}`], cwd);
      const model = new Uint8Array(SIZE);
      await serving(dir, "image", format, { writable: true }, async (uri) => {
        await using disk = await openImage({ filename: uri, format: "raw" }, { writable: true });
        for (let round = 0; round < 12; round++) {
          // Each in a part of its own: in which order they are done is nobody's business.
          await Promise.all(Array.from({ length: 8 }, async (_, part) => {
            const length = random.pick([1, 512, 4096, random.between(1, 120_000)]);
            const at = part * MIB + random.below(MIB - length);
            if (random.oneIn(3)) {
              model.fill(0, at, at + length);
              await disk.writeZeroes(at, length);
            } else {
              const bytes = random.bytes(length);
              model.set(bytes, at);
              await disk.write(at, bytes);
            }
          }));
          if (random.oneIn(4)) await disk.flush();
          const length = random.between(1, SIZE);
          const at = random.below(SIZE - length + 1);
          const found = new Uint8Array(length);
          await disk.read(at, found);
          const isRight = equalBytes(found, model.subarray(at, at + length));
          assert(isRight, `seed ${seed}, round ${round}`);
        }
      });
      await Deno.writeFile(dir.file("model"), model);
      const compare = ["compare", "-f", "raw", "-F", format, "model", "image"];
      assertEquals(await useReference(compare, cwd), "Images are identical.\n", `seed ${seed}`);
    },
  });
}
