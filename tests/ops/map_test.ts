import { useReference, writeWithReference } from "../_reference.ts";
import { testSame } from "./_same.ts";

async function makeImages(dir: string): Promise<void> {
  const make = (...args: string[]) => useReference(["create", "-q", ...args], { cwd: dir });
  await make("-f", "raw", "a.raw", "1M");
  await writeWithReference("a.raw", ["write -P 1 64k 64k", "write -P 2 512k 1000"], {
    cwd: dir,
    format: "raw",
  });
  await Deno.writeFile(`${dir}/odd`, new Uint8Array(1000).fill(1));
  await Deno.writeFile(`${dir}/empty`, new Uint8Array());
  await make("-f", "qcow2", "a.qcow2", "10M");
  await writeWithReference("a.qcow2", [
    "write -P 1 64k 64k",
    "write -P 1 2M 1M",
    "write -P 1 5M 64k",
    "write -z 1M 1M",
    "write -z 2M 64k",
    "write -c -P 3 3M 64k",
    "write -c -P 3 3136k 64k",
  ], { cwd: dir, format: "qcow2" });
  await make("-f", "qcow2", "-b", "odd", "-F", "raw", "o1.qcow2", "1M");
  await make("-f", "qcow2", "-b", "o1.qcow2", "-F", "qcow2", "o2.qcow2", "2M");
  await make("-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "short.qcow2", "3000k");
  await writeWithReference("short.qcow2", ["write -P 1 2500k 4k", "discard 1M 64k"], {
    cwd: dir,
    format: "qcow2",
  });
  await make("-f", "qcow2", "-o", "preallocation=metadata", "meta.qcow2", "10M");
  await writeWithReference("meta.qcow2", ["write -P 1 1M 1M"], { cwd: dir, format: "qcow2" });
  await Deno.mkdir(`${dir}/sub`);
  await make("-f", "qcow2", "-b", "../a.raw", "-F", "raw", "sub/s.qcow2");
}

const PARTS = [
  "a.raw",
  "odd",
  "empty",
  "o1.qcow2",
  "o2.qcow2",
  "meta.qcow2",
  "sub/s.qcow2",
  "-f file a.qcow2",
  "-f raw a.qcow2",
  "-s 1000 -l 1 a.raw",
  "-s 900 -l 50 odd",
  "-s 900 -l 5000 odd",
  "-s 1M a.raw",
  "-s 9M a.raw",
  "-l 0 a.raw",
  "-s 65537 -l 100000 short.qcow2",
  "short.qcow2",
  "-s 65537 -l 100000 a.qcow2",
  "-s 9M -l 8191P a.qcow2",
  "-l 3M a.qcow2",
  "a.qcow2",
];

testSame(PARTS.map((part) => `map ${part}`), { setup: makeImages });
testSame(PARTS.map((part) => `map --output=json ${part}`), { setup: makeImages });
