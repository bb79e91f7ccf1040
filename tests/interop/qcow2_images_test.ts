/** qcow2 images of every kind, shown, mapped, measured and resized by both tools. */
import { assertSame, reference, type SameOptions, useReference } from "../_reference.ts";
import { writeWithReference } from "../_reference.ts";

const SECRET = ["--object", "secret,id=s,data=123456"];

function same(name: string, args: readonly string[], options: SameOptions = {}): void {
  Deno.test({
    name: `qcow2 as the reference: ${name}`,
    ignore: reference.ignore,
    fn: async () => void await assertSame(args, options),
  });
}

/** Images of the reference by name, as the commands that make them. */
const IMAGES: Record<string, (dir: string) => Promise<unknown>> = {
  plain: (dir) => make(dir, []),
  "version 2": (dir) => make(dir, ["-o", "compat=0.10"]),
  "with everything": (dir) =>
    make(dir, ["-o", "compression_type=zstd,extended_l2=on,lazy_refcounts=on,refcount_bits=64"]),
  "with snapshots": async (dir) => {
    await make(dir, []);
    for (const name of ["one", "two", "a name with spaces"]) {
      await useReference(["snapshot", "-c", name, "x"], { cwd: dir });
      await writeWithReference("x", ["write 64k 64k"], { cwd: dir });
    }
    // Dates of snapshots are of the moment: set alike.
    const file = await Deno.readFile(`${dir}/x`);
    const view = new DataView(file.buffer);
    let at = Number(view.getBigUint64(64));
    for (let i = 0; i < view.getUint32(60); i++) {
      view.setUint32(at + 16, 1700000000 + i);
      view.setUint32(at + 20, 123456000);
      view.setUint32(at + 32, 4096);
      view.setBigUint64(at + 24, 3723004000000n);
      const size = 40 + view.getUint32(at + 36) + view.getUint16(at + 12) + view.getUint16(at + 14);
      at += Math.ceil(size / 8) * 8;
    }
    await Deno.writeFile(`${dir}/x`, file);
  },
  "with bitmaps": async (dir) => {
    await make(dir, []);
    await useReference(["bitmap", "--add", "x", "one"], { cwd: dir });
    await useReference(["bitmap", "--add", "--disable", "-g", "512", "x", "two"], { cwd: dir });
  },
  "with a data file": (dir) => make(dir, ["-o", "data_file=d"]),
  "with a raw data file": (dir) => make(dir, ["-o", "data_file=d,data_file_raw=on"]),
  "with a data file that is lost": async (dir) => {
    await make(dir, ["-o", "data_file=d"]);
    await Deno.remove(`${dir}/d`);
  },
  "with AES": (dir) =>
    make(dir, [...SECRET, "-o", "encrypt.format=aes,encrypt.key-secret=s"], false),
  dirty: (dir) => damaged(dir, [[79, 1]]),
  corrupt: (dir) => damaged(dir, [[79, 2]]),
  "with unknown compatible and autoclear bits": (dir) => damaged(dir, [[87, 0xf0], [95, 0xf0]]),
  "with unknown incompatible bits": (dir) => damaged(dir, [[79, 0x60]]),
  "cut in the header": async (dir) => {
    await make(dir, []);
    await Deno.truncate(`${dir}/x`, 60);
  },
  "cut behind the header": async (dir) => {
    await make(dir, []);
    await Deno.truncate(`${dir}/x`, 65536);
  },
};

async function make(dir: string, args: readonly string[], write = true): Promise<void> {
  await useReference(["create", "-q", "-f", "qcow2", ...args, "x", "3M"], { cwd: dir });
  if (write) await writeWithReference("x", ["write -P 5 512 128k", "write 2M 100"], { cwd: dir });
}

async function damaged(dir: string, bytes: [number, number][]): Promise<void> {
  await make(dir, []);
  const file = await Deno.readFile(`${dir}/x`);
  for (const [at, value] of bytes) file[at] = value;
  await Deno.writeFile(`${dir}/x`, file);
}

for (const [name, setup] of Object.entries(IMAGES)) {
  for (
    const args of [
      ["info", "x"],
      ["info", "--output=json", "x"],
      ["map", "--output=json", "x"],
      ["measure", "-O", "qcow2", "x"],
      ["resize", "x", "5M"],
      ["resize", "--shrink", "x", "1M"],
    ]
  ) {
    // The reference makes tables for what it is about to cut off, here on top of the refcount table.
    if (name === "cut behind the header" && args.includes("--shrink")) continue;
    same(`${args.join(" ")} of an image ${name}`, args, {
      setup: async (dir) => void await setup(dir),
      // What the file system takes for a file that was just written is its own affair.
      normalize: (text) => text.replaceAll(/("actual-size": |disk size: )[^\n,]*/g, "$1…"),
      ...(args[0] === "resize" ? { files: ["x"] } : {}),
    });
  }
}

same("measure of an image with bitmaps for version 2", [
  "measure",
  "-O",
  "qcow2",
  "-o",
  "compat=0.10",
  "x",
], {
  setup: async (dir) => void await IMAGES["with bitmaps"]!(dir),
});
