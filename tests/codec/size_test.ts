import { assert, assertEquals } from "@std/assert";
import { type CodecName, loadCodec } from "../../lib/codec/mod.ts";
import { reference, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

const CLUSTER = 65536;
const CLUSTERS = 64;

for (const name of ["deflate", "zstd"] as const satisfies CodecName[]) {
  Deno.test({
    name: `${name} of program files is at most 1% larger than the reference tool's`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const data = new Uint8Array(CLUSTERS * CLUSTER);
      // A program that is there for certain.
      using program = await Deno.open(Deno.execPath());
      program.seekSync(20 << 20, Deno.SeekMode.Start);
      for (let at = 0; at < data.length;) {
        const count = program.readSync(data.subarray(at));
        assert(count !== null, "the program is shorter than thought");
        at += count;
      }
      await Deno.writeFile(dir.file("data"), data);
      const type = name === "deflate" ? "zlib" : name;
      await useReference(
        ["convert", "-c", "-O", "qcow2", "-o", `compression_type=${type}`, "data", "packed"],
        { cwd: dir.path },
      );

      const codec = await loadCodec(name);
      const out = new Uint8Array(CLUSTER - 1);
      const back = new Uint8Array(CLUSTER);
      let total = 0;
      for (let at = 0; at < data.length; at += CLUSTER) {
        const cluster = data.subarray(at, at + CLUSTER);
        const length = codec.pack(cluster, out);
        total += length ?? CLUSTER;
        if (length === null) continue;
        codec.unpack(out.subarray(0, length), back);
        assertEquals(back, cluster);
      }
      // Five clusters of metadata stand in front of the data.
      const theirs = (await Deno.stat(dir.file("packed"))).size - 5 * CLUSTER;
      assert(total <= theirs * 1.01, `${total} bytes, the reference's are ${theirs}`);
    },
  });
}
