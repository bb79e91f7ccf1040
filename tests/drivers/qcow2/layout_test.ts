/** Where this driver puts things: byte for byte where the reference does. */
import { tempDir } from "../../_temp.ts";
import { reference, useReference, writeWithReference } from "../../_reference.ts";
import { assertEqualBytes, type EqualOptions, type Request } from "./_equal.ts";

const K = 1024;
const M = 1024 * K;

interface Case {
  readonly create: readonly string[];
  readonly size: string;
  /** Made before the image, in the same folder. */
  readonly backing?: {
    readonly format: "raw" | "qcow2";
    readonly size: string;
    readonly commands?: readonly string[];
  };
  /** `qemu-io` commands that come first. */
  readonly first?: readonly string[];
  /** `qemu-img` command lines that come after them. */
  readonly then?: readonly (readonly string[])[];
  readonly sessions: readonly (readonly Request[])[];
  readonly options?: EqualOptions;
}

const write = (offset: number, length: number, pattern = 0x5a): Request => ({
  kind: "write",
  offset,
  length,
  pattern,
});
const compressed = (offset: number, length: number, pattern = 0x5a): Request => ({
  kind: "compressed",
  offset,
  length,
  pattern,
});
const zero = (offset: number, length: number): Request => ({ kind: "zero", offset, length });
const unmap = (offset: number, length: number): Request => ({ kind: "unmap", offset, length });
const discard = (offset: number, length: number): Request => ({ kind: "discard", offset, length });
const o = (...options: string[]) => options.length === 0 ? [] : ["-o", options.join(",")];

function sameLayout(name: string, test: Case): void {
  Deno.test({
    name: `same bytes as the reference: ${name}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const cwd = dir.path;
      const below: string[] = [];
      if (test.backing !== undefined) {
        const { format, size, commands } = test.backing;
        await useReference(["create", "-q", "-f", format, "base", size], { cwd });
        if (commands !== undefined) await writeWithReference("base", commands, { cwd, format });
        below.push("-b", "base", "-F", format);
      }
      await useReference(
        ["create", "-q", "-f", "qcow2", ...test.create, ...below, "a.qcow2", test.size],
        { cwd },
      );
      if (test.first !== undefined) {
        await writeWithReference("a.qcow2", test.first, { cwd, format: "qcow2" });
      }
      for (const args of test.then ?? []) await useReference(args, { cwd });
      await assertEqualBytes(dir, "a.qcow2", test.sessions, test.options);
    },
  });
}

const SNAPSHOT = ["snapshot", "-q", "-c", "one", "a.qcow2"];

sameLayout("a first write (V4)", {
  create: o("cluster_size=4096"),
  size: "1M",
  sessions: [[write(8192, 4096)]],
});

sameLayout("a first subcluster (V5)", {
  create: o("cluster_size=16384", "extended_l2=on"),
  size: "1M",
  sessions: [[write(1024, 512)]],
});

sameLayout("packed deflate streams (V6)", {
  create: o("cluster_size=4096"),
  size: "1M",
  sessions: [[compressed(0, 4096), compressed(4096, 4096, 0x11)]],
});

sameLayout("a zstd frame (V7)", {
  create: o("cluster_size=4096", "compression_type=zstd"),
  size: "1M",
  sessions: [[compressed(0, 4096)]],
});

sameLayout("zero writes, kept and unmapped (V15)", {
  create: o("cluster_size=4096"),
  size: "1M",
  sessions: [[zero(0, 8192), write(16384, 4096, 1), zero(16384, 4096), unmap(16384, 4096)]],
  options: { mode: { unmap: true } },
});

for (const size of ["512", "4k", "64k", "2M"]) {
  sameLayout(`parts of clusters of ${size}, in order and out of order`, {
    create: o(`cluster_size=${size}`),
    size: "64M",
    sessions: [
      [write(300 * K + 512, 700 * K, 1), write(1000 * K, 200 * K + 512, 2), write(5, 7, 3)],
      [write(40 * M + 1, 3 * M, 4), write(10 * M, 1, 5), write(40 * M - 4096, 8192, 6)],
    ],
  });
}

for (const bits of [1, 2, 4, 8, 16, 32, 64]) {
  sameLayout(`refcount blocks and a larger table with refcounts of ${bits} bits`, {
    create: o("cluster_size=512", `refcount_bits=${bits}`),
    size: "64M",
    sessions: [
      [write(0, 1 * M, 1), write(3 * M + 100, 2 * M, 2)],
      [write(10 * M, 4 * M + 300, 3)],
      [write(20 * M, 8 * M, 4), write(1 * M, 64 * K, 5)],
    ],
  });
}

sameLayout("L2 tables between runs of data", {
  create: o("cluster_size=4k"),
  size: "64M",
  sessions: [[write(1 * M, 9 * M)]],
});

for (const format of ["raw", "qcow2"] as const) {
  sameLayout(`copy on write from a shorter ${format} backing file`, {
    create: [],
    size: "8M",
    backing: { format, size: "3M", commands: ["write -P 9 1M 1M", "write -P 8 2999k 5k"] },
    sessions: [
      [write(1 * M + 70 * K, 10 * K), write(2 * M + 1, 1), write(3 * M - 10, 20)],
      [write(5 * M + 70 * K, 10 * K), zero(64 * K, 256 * K), write(130 * K, 8 * K)],
      [discard(1 * M, 128 * K), zero(2 * M + 70 * K, 1 * K), zero(3 * M - 64 * K, 128 * K)],
    ],
    options: { mode: { unmap: true } },
  });
}

sameLayout("copy on write of clusters and tables that a snapshot shares", {
  create: o("cluster_size=4096"),
  size: "8M",
  first: ["write -P 1 0 8k", "write -P 2 3M 64k"],
  then: [SNAPSHOT],
  sessions: [
    [write(0, 4096, 5), write(3 * M + 100, 10 * K, 6)],
    [write(3 * M, 64 * K, 7), zero(4096, 4096), write(0, 100, 8)],
    [discard(0, 64 * K), unmap(3 * M, 128 * K)],
  ],
  options: { mode: { unmap: true } },
});

sameLayout("compressed clusters overwritten, zeroed, discarded", {
  create: o("cluster_size=4096"),
  size: "1M",
  first: [
    "write -c -P 1 0 4k",
    "write -c -P 2 4k 4k",
    "write -c -P 3 8k 4k",
    "write -c -P 4 12k 4k",
  ],
  sessions: [
    [write(100, 100, 5), write(4096, 4096, 6)],
    [zero(8192, 4096), discard(12288, 4096), compressed(64 * K, 4096, 7)],
  ],
  options: { mode: { unmap: true } },
});

sameLayout("compressed clusters in the holes of a used image", {
  create: o("cluster_size=4096", "refcount_bits=1"),
  size: "1M",
  first: ["write -P 1 0 32k"],
  sessions: [
    [compressed(64 * K, 4096), compressed(68 * K, 4096), compressed(72 * K, 4096)],
  ],
});

sameLayout("a short compressed cluster at the end", {
  create: [],
  size: "1000000",
  sessions: [[compressed(15 * 64 * K, 1000448 - 15 * 64 * K)]],
});

sameLayout("requests across preallocated zero clusters", {
  create: o("cluster_size=4096"),
  size: "1M",
  first: ["write -P 1 0 64k", "write -z 8k 16k", "write -z 40k 4k"],
  sessions: [[write(6 * K, 4 * K, 2), write(20 * K + 5, 1, 3), write(30 * K, 20 * K, 4)]],
});

sameLayout("requests into preallocated metadata", {
  create: o("preallocation=metadata"),
  size: "4M",
  sessions: [[write(1 * M + 5, 100, 2), zero(2 * M, 128 * K), write(3 * M, 200 * K, 3)]],
});

sameLayout("subclusters: new, in place, zeroed, shared, beside compressed ones", {
  create: o("extended_l2=on"),
  size: "8M",
  first: [
    "write -P 1 0 64k",
    "write -P 2 130k 10k",
    "write -c -P 3 256k 64k",
    "write -P 4 1M 256k",
  ],
  then: [SNAPSHOT],
  sessions: [
    [write(66 * K, 3 * K, 5), write(129 * K, 1 * K, 6), write(260 * K, 4 * K, 7)],
    [zero(10 * K, 8 * K), zero(1 * M + 2 * K, 200 * K), write(1 * M + 13 * K, 1, 8)],
    [write(66 * K + 1, 1, 9), write(76 * K, 100 * K, 10), zero(133 * K, 1 * K)],
    [unmap(66 * K, 2 * K), unmap(1 * M, 64 * K), discard(0, 64 * K), write(5, 5, 11)],
  ],
  options: { mode: { unmap: true } },
});

sameLayout("subclusters over a backing file", {
  create: o("extended_l2=on", "cluster_size=16k"),
  size: "4M",
  backing: { format: "qcow2", size: "3M", commands: ["write -P 9 1M 1M", "write -P 8 2999k 5k"] },
  sessions: [
    [write(1 * M + 70 * K + 100, 10 * K), write(3 * M - 10, 20), zero(1 * M + 300, 3000)],
    [write(1 * M + 64 * K, 100 * K), zero(1 * M, 5 * K), discard(1 * M + 512 * K, 64 * K)],
    [write(1 * M + 2 * K + 17, 3 * K, 7), write(1 * M + 520 * K, 600, 8)],
  ],
  options: { mode: { unmap: true } },
});

sameLayout("subclusters of preallocated metadata", {
  create: o("extended_l2=on", "preallocation=metadata"),
  size: "4M",
  backing: { format: "raw", size: "3M", commands: ["write -P 9 1M 1M"] },
  sessions: [[write(1 * M + 5, 100, 2), write(1 * M + 64 * K, 200 * K + 5, 3)]],
});

sameLayout("an external data file", {
  create: o("data_file=data.raw"),
  size: "4M",
  sessions: [
    [write(1 * M + 5, 100, 2), write(0, 10, 3), zero(2 * M, 128 * K)],
    [write(2 * M + 5, 1, 4), zero(0, 64 * K), unmap(1 * M, 64 * K), write(3 * M, 1 * M, 5)],
    [discard(3 * M, 256 * K)],
  ],
  options: { mode: { unmap: true }, others: ["data.raw"] },
});

sameLayout("a raw external data file", {
  create: o("data_file=data.raw", "data_file_raw=on"),
  size: "4M",
  sessions: [
    [write(1 * M + 5, 100, 2), write(0, 10, 3), zero(2 * M, 128 * K)],
    [write(2 * M + 5, 1, 4), zero(0, 64 * K), unmap(1 * M, 64 * K), write(3 * M, 1 * M, 5)],
  ],
  options: { mode: { unmap: true }, others: ["data.raw"] },
});

sameLayout("version 2 without a backing file", {
  create: o("compat=0.10"),
  size: "4M",
  sessions: [
    [write(0, 300 * K), zero(64 * K, 64 * K), discard(128 * K, 64 * K), zero(200 * K, 10 * K)],
    [write(100 * K, 10 * K, 7)],
  ],
  options: { mode: { unmap: true } },
});

sameLayout("version 2 with a backing file", {
  create: o("compat=0.10"),
  size: "4M",
  backing: { format: "raw", size: "4M", commands: ["write -P 9 0 1M"] },
  sessions: [[zero(64 * K, 128 * K), discard(256 * K, 64 * K), zero(500 * K, 10 * K)]],
  options: { mode: { unmap: true } },
});

sameLayout("lazy refcounts", {
  create: o("lazy_refcounts=on"),
  size: "4M",
  sessions: [[write(0, 300 * K)], [write(1 * M, 100), zero(64 * K, 64 * K)]],
});

sameLayout("zeros without unmapping", {
  create: o("cluster_size=4k"),
  size: "1M",
  first: ["write -P 1 0 64k"],
  sessions: [[unmap(0, 8 * K), discard(16 * K, 4 * K), zero(18 * K, 1 * K), zero(33 * K, 6 * K)]],
});
