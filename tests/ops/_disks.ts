/** Disks with something of everything, for tests that copy and compare. */
import { Random } from "../_random.ts";
import { useReference, writeWithReference } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** Bytes of the disk. */
export const DISK_SIZE = 12 * MiB + 512;

/**
 * Makes a raw disk: bytes that compress and bytes that do not, zeros that were written, short and long,
 * aligned and not, and holes.
 */
export function makeRawDisk(path: string, seed = 1): void {
  const random = new Random(seed);
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  file.truncateSync(DISK_SIZE);
  const write = (offset: number, bytes: Uint8Array) => {
    file.seekSync(offset, Deno.SeekMode.Start);
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  };
  write(0, random.bytes(300 * KiB));
  write(600 * KiB, random.bytes(700 * KiB, 4));
  const gaps = random.bytes(3 * MiB);
  for (let at = 0; at < gaps.length;) {
    const data = 512 * random.pick([1, 3, 8, 64, 200]);
    const zero = 512 * random.pick([1, 7, 8, 9, 16, 100, 300]);
    gaps.fill(0, at + data, at + data + zero);
    at += data + zero;
  }
  write(2 * MiB + 3 * 512, gaps);
  write(6 * MiB, new Uint8Array(MiB));
  write(8 * MiB - 512, random.bytes(1024));
  write(DISK_SIZE - 1000, random.bytes(1000));
}

type Maker = (dir: string) => unknown;

/** `qemu-img convert` of the raw disk. */
function converted(name: string, ...options: string[]): Maker {
  return async (dir) => {
    await make(dir, "src");
    await useReference(
      ["convert", "-f", "raw", "-O", "qcow2", ...options, "src", name],
      { cwd: dir },
    );
  };
}

function changed(name: string, first: Maker, commands: readonly string[]): Maker {
  return async (dir) => {
    await first(dir);
    await writeWithReference(name, commands, { cwd: dir });
  };
}

const MAKERS: Readonly<Record<string, Maker>> = {
  "src": (dir) => makeRawDisk(`${dir}/src`),
  // Another content of the same size.
  "other": (dir) => makeRawDisk(`${dir}/other`, 2),
  "odd": (dir) => Deno.writeFile(`${dir}/odd`, new Random(3).bytes(100_001)),
  "tiny": (dir) => Deno.writeFile(`${dir}/tiny`, new Random(4).bytes(1)),
  "empty": (dir) => Deno.writeFile(`${dir}/empty`, new Uint8Array(0)),
  "zeros": (dir) => Deno.writeFile(`${dir}/zeros`, new Uint8Array(5 * MiB)),
  "plain.qcow2": converted("plain.qcow2"),
  "packed.qcow2": converted("packed.qcow2", "-c"),
  "zstd.qcow2": converted("zstd.qcow2", "-c", "-o", "compression_type=zstd"),
  "small.qcow2": converted("small.qcow2", "-o", "cluster_size=512"),
  "large.qcow2": converted("large.qcow2", "-c", "-o", "cluster_size=2M"),
  "extended.qcow2": converted("extended.qcow2", "-o", "extended_l2=on,cluster_size=128k"),
  "old.qcow2": converted("old.qcow2", "-o", "compat=0.10"),
  "full.qcow2": converted("full.qcow2", "-o", "preallocation=full"),
  "data.qcow2": converted("data.qcow2", "-o", "data_file=data.raw"),
  // A packed image that was written to: compressed and plain clusters side by side.
  "mixed.qcow2": changed("mixed.qcow2", converted("mixed.qcow2", "-c"), [
    "write -P 1 64k 64k",
    "write -P 2 700k 200k",
    "write -z 3M 64k",
    "discard 10M 1M",
    "write -P 3 11M 1k",
  ]),
  "overlay.qcow2": changed("overlay.qcow2", async (dir) => {
    await make(dir, "packed.qcow2");
    await useReference(
      ["create", "-q", "-f", "qcow2", "-b", "packed.qcow2", "-F", "qcow2", "overlay.qcow2", "14M"],
      { cwd: dir },
    );
  }, [
    "write -P 7 100k 10k",
    "write -P 8 1M 1M",
    "write -z 3M 512k",
    "write -P 9 13M 100k",
    "write -z 4500k 4k",
    // Where the backing file has ended.
    "write -z 12800k 64k",
  ]),
  "none.qcow2": (dir) =>
    useReference(["create", "-q", "-f", "qcow2", "none.qcow2", "13M"], { cwd: dir }),
};

/** Folders with disks that were made already, by their names. */
const made = new Map<string, Promise<TempDir>>();
const folders: string[] = [];
addEventListener("unload", () => {
  for (const folder of folders) Deno.removeSync(folder, { recursive: true });
});

async function makeOnce(name: string): Promise<TempDir> {
  const dir = await tempDir();
  folders.push(dir.path);
  await MAKERS[name]!(dir.path);
  return dir;
}

/** Puts the disk of this name into a folder, with what it needs. */
export async function make(dir: string, name: string): Promise<void> {
  if (!made.has(name)) made.set(name, makeOnce(name));
  const { path } = await made.get(name)!;
  // Holes stay holes.
  const { success, stderr } = await new Deno.Command("cp", { args: ["-a", `${path}/.`, dir] })
    .output();
  if (!success) throw new Error(`${name}: ${new TextDecoder().decode(stderr)}`);
}

/** A `setup` that makes the disks that are words of a command line. */
export function disksIn(line: string): (dir: string) => Promise<void> {
  const words = new Set(line.split(/[ =,]/));
  return async (dir) => {
    for (const name of Object.keys(MAKERS)) {
      if (words.has(name)) await make(dir, name);
    }
  };
}
