/** Images for the tests of checks: mixed content, made by the reference, each made once. */
import { useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";

/** Files by name; the image is `a.qcow2`. */
export type ImageFiles = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;

interface Recipe {
  /** `qemu-img create -o`. */
  readonly options: string;
  /** Virtual size. */
  readonly size: string;
  /** What is then done: `qemu-io` commands, or arguments of `qemu-img`. */
  readonly steps: readonly (string | readonly string[])[];
  /** It is encrypted, with {@linkcode SECRET}. */
  readonly encrypted?: true;
  /** What is done to the bytes at last. */
  readonly change?: (image: Uint8Array) => void;
}

/** The secret of encrypted images. */
const SECRET = ["--object", "secret,id=s,data=x"];
const SNAPSHOT = ["snapshot", "-c", "one", "a.qcow2"];
const MIXED = [
  "write -P 1 0 16k",
  "write -c -P 3 32k 4k",
  "write -z 64k 4k",
];

const RECIPES = {
  plain: {
    options: "cluster_size=4k",
    size: "1M",
    steps: [...MIXED, "write -c -P 4 36k 4k", "write -P 5 200k 20k", "write -z 204k 4k"],
  },
  /**
   * Refcount table 0x1000, block 0x2000, active L1 0x3000 and L2 0xc000; L2
   * 0x4000 and L1 0xa000 of the snapshot, snapshot table 0xb000; data clusters
   * 5 to 8 (6 and 7 belong to the snapshot alone) and 13, 14; 9 is compressed.
   */
  snapshot: {
    options: "cluster_size=4k",
    size: "1M",
    steps: [...MIXED, SNAPSHOT, "write -P 2 4k 8k"],
  },
  "two snapshots": {
    options: "cluster_size=4k",
    size: "2M",
    steps: [
      ...MIXED,
      SNAPSHOT,
      "write -P 2 4k 8k",
      ["snapshot", "-c", "two", "a.qcow2"],
      "write -P 2 8k 40k",
    ],
  },
  "512 byte clusters": {
    options: "cluster_size=512",
    size: "300k",
    steps: [
      "write -P 1 0 60k",
      "write -c -P 3 80k 512",
      "write -z 90k 4k",
      "write -P 5 200k 10k",
      SNAPSHOT,
      "write -P 2 4k 8k",
    ],
  },
  /** Refcount table 0x1000, block 0x2000, L1 0x3000, L2 0x4000, data clusters 5 to 8. */
  "1-bit refcounts": {
    options: "cluster_size=4k,refcount_bits=1",
    size: "1M",
    steps: ["write -P 1 0 16k"],
  },
  "2-bit refcounts": {
    options: "cluster_size=1k,refcount_bits=2",
    size: "300k",
    steps: ["write -P 1 0 20k", "write -P 5 200k 10k", SNAPSHOT],
  },
  "4-bit refcounts": {
    options: "cluster_size=1k,refcount_bits=4",
    size: "300k",
    steps: ["write -P 1 0 20k", "write -P 5 200k 10k", SNAPSHOT],
  },
  "8-bit refcounts": {
    options: "cluster_size=512,refcount_bits=8",
    size: "300k",
    steps: ["write -P 1 0 20k", "write -P 5 200k 10k", SNAPSHOT],
  },
  "32-bit refcounts": {
    options: "cluster_size=512,refcount_bits=32",
    size: "600k",
    steps: ["write -P 1 0 20k", "write -P 5 200k 100k", SNAPSHOT],
  },
  /** Refcount table 0x200, its blocks 0x400, 0x8a00, 0x10e00, 0x19200; L1 at 0x600. */
  "64-bit refcounts": {
    options: "cluster_size=512,refcount_bits=64",
    size: "1M",
    steps: ["write -P 1 0 100k"],
  },
  "version 2": {
    options: "cluster_size=1k,compat=0.10",
    size: "300k",
    steps: ["write -P 1 0 20k", "write -c -P 4 40k 1k", "write -P 5 200k 10k", SNAPSHOT],
  },
  /**
   * L2 at 0x10000. Entry 0 and 1: data at 0x14000 and 0x18000, entry 4: two
   * zero subclusters of no cluster, entry 8: compressed at 0x1c000.
   */
  subclusters: {
    options: "cluster_size=16k,extended_l2=on",
    size: "2M",
    steps: ["write -P 1 0 32k", "write -z 64k 1k", "write -c 128k 16k", "write -P 3 300k 20k"],
  },
  /** Directory and tables move each time the image is opened; see `bitmapDirectory`. */
  bitmaps: {
    options: "cluster_size=4k",
    size: "16M",
    steps: [
      ["bitmap", "--add", "-g", "4096", "a.qcow2", "b0"],
      ["bitmap", "--add", "-g", "512", "a.qcow2", "b1"],
      "write -P 1 0 16k",
      "write -P 1 5M 16k",
    ],
  },
  "lazy refcounts": {
    options: "cluster_size=4k,lazy_refcounts=on",
    size: "1M",
    steps: MIXED,
  },
  /** L2 at 0x4000, clusters 0 to 3 in the data file. */
  "data file": {
    options: "cluster_size=4k,data_file=data",
    size: "1M",
    steps: ["write -P 1 0 16k", "write -z 64k 4k"],
  },
  "raw data file": {
    options: "cluster_size=4k,data_file=data,data_file_raw=on",
    size: "1M",
    steps: ["write -P 1 0 16k", "write -z 64k 4k", "discard 128k 4k"],
  },
  "compressed with zlib": {
    options: "cluster_size=4k",
    size: "1M",
    steps: [
      "write -c -P 1 0 40k",
      "write -P 9 8k 4k",
      "write -c -P 2 400k 4k",
      SNAPSHOT,
      "write -P 3 400k 4k",
      "discard 4k 8k",
    ],
  },
  "compressed with zstd, clusters of 64 KiB": {
    options: "compression_type=zstd,refcount_bits=8",
    size: "8M",
    steps: ["write -c -P 1 0 640k", "write -P 9 64k 64k", SNAPSHOT, "write -P 3 0 64k"],
  },
  "subclusters, snapshots and bitmaps": {
    options: "cluster_size=16k,extended_l2=on,refcount_bits=32",
    size: "2M",
    steps: [
      ["bitmap", "--add", "-g", "512", "a.qcow2", "b0"],
      "write -P 1 0 32k",
      "write -z 64k 1k",
      "write -c 128k 16k",
      "write -P 3 300k 20k",
      SNAPSHOT,
      "write -P 4 1k 512",
      "write -z 301k 2k",
      ["bitmap", "--add", "--disable", "a.qcow2", "b1"],
    ],
  },
  "snapshots and bitmaps": {
    options: "cluster_size=512",
    size: "400k",
    steps: [
      ["bitmap", "--add", "-g", "512", "a.qcow2", "b0"],
      "write -P 1 0 20k",
      SNAPSHOT,
      "write -P 2 4k 8k",
      ["snapshot", "-c", "two", "a.qcow2"],
      ["bitmap", "--add", "a.qcow2", "b1"],
      "write -P 2 100k 20k",
      ["snapshot", "-d", "one", "a.qcow2"],
    ],
  },
  /** The bitmaps are of no use, so that nobody touches them. */
  "snapshots and inconsistent bitmaps": {
    options: "cluster_size=1k,refcount_bits=4",
    size: "400k",
    steps: [
      ["bitmap", "--add", "-g", "512", "a.qcow2", "b0"],
      "write -P 1 0 20k",
      SNAPSHOT,
      ["bitmap", "--add", "a.qcow2", "b1"],
      "write -P 2 100k 20k",
    ],
    change(image) {
      const entry = bitmapDirectory(image);
      // Two entries, 32 bytes each: both are in use, as after a crash.
      for (const flags of [entry + 12, entry + 32 + 12]) image[flags + 3]! |= 1;
    },
  },
  /** Header at 0x5000, of 505 clusters. */
  "encrypted with LUKS": {
    options:
      "cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,refcount_bits=8",
    size: "1M",
    encrypted: true,
    steps: ["write -P 1 0 40k", "write -z 64k 4k", "write -P 3 400k 4k"],
  },
  "encrypted with AES": {
    options: "cluster_size=512,encrypt.format=aes,encrypt.key-secret=s",
    size: "300k",
    encrypted: true,
    steps: ["write -P 1 0 40k", "write -z 64k 4k", SNAPSHOT, "write -P 3 4k 4k"],
  },
  "2 MiB clusters": {
    options: "cluster_size=2M",
    size: "20M",
    steps: ["write -P 1 1M 64k", "write -c -P 2 4M 2M", SNAPSHOT, "write -z 0 2M"],
  },
  "an L1 table of many clusters": {
    options: "cluster_size=512,refcount_bits=16",
    size: "20M",
    steps: ["write -P 1 0 10k", "write -P 2 10M 30k", SNAPSHOT, "write -P 3 10M 1k"],
  },
  "metadata in advance": {
    options: "cluster_size=4k,preallocation=metadata,refcount_bits=1",
    size: "1M",
    steps: ["write -P 1 0 16k", "write -z 64k 16k"],
  },
  "64 KiB clusters": {
    options: "cluster_size=64k",
    size: "64M",
    steps: ["write -P 1 0 300k", "write -P 2 40M 1M", SNAPSHOT, "write -P 1 100k 64k"],
  },
} satisfies Record<string, Recipe>;

/** An image of the collection. */
export type ImageName = keyof typeof RECIPES;

/** All of them. */
export const IMAGE_NAMES = Object.keys(RECIPES) as readonly ImageName[];

const made = new Map<ImageName, Promise<ImageFiles>>();

/** The files of an image, to be copied before they are changed. */
export function checkedImage(name: ImageName): Promise<ImageFiles> {
  let files = made.get(name);
  if (files === undefined) made.set(name, files = make(name));
  return files;
}

/** How a command line names the image of that name, in the folder where it lies. */
export function imageArguments(name: ImageName): readonly string[] {
  const recipe: Recipe = RECIPES[name];
  return recipe.encrypted === true
    ? [...SECRET, "--image-opts", "driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2"]
    : ["-f", "qcow2", "a.qcow2"];
}

async function make(name: ImageName): Promise<ImageFiles> {
  const { options, size, steps, change, encrypted }: Recipe = RECIPES[name];
  await using dir = await tempDir();
  const cwd = dir.path;
  const secret = encrypted === true ? SECRET : [];
  const image = imageArguments(name);
  await useReference(
    ["create", ...secret, "-q", "-f", "qcow2", "-o", options, "a.qcow2", size],
    { cwd },
  );
  for (const step of steps) {
    if (typeof step === "string") {
      await useReference(["-c", step, ...image], { cwd, tool: "qemu-io" });
    } else {
      await useReference(step.flatMap((arg) => arg === "a.qcow2" ? image : [arg]), { cwd });
    }
  }
  if (change !== undefined) {
    const bytes = await Deno.readFile(dir.file("a.qcow2"));
    change(bytes);
    await Deno.writeFile(dir.file("a.qcow2"), bytes);
  }
  await useReference(["check", "-q", ...image], { cwd });
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  for await (const { name } of Deno.readDir(cwd)) {
    files.set(name, await Deno.readFile(dir.file(name)));
  }
  return files;
}

/** Where the bitmap directory of an image lies. */
export function bitmapDirectory(image: Uint8Array): number {
  return Number(new DataView(image.buffer, image.byteOffset).getBigUint64(0x70 + 24));
}

/** Writes files into a folder, with the bytes of the image replaced. */
export async function place(
  dir: string,
  files: ImageFiles,
  image: Uint8Array = files.get("a.qcow2")!,
): Promise<void> {
  for (const [name, bytes] of files) {
    await Deno.writeFile(`${dir}/${name}`, name === "a.qcow2" ? image : bytes);
  }
}
