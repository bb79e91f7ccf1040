import { useReference } from "../_reference.ts";
import { testSame } from "./_same.ts";

async function makeSource(dir: string): Promise<void> {
  await useReference(["create", "-q", "-f", "raw", "a.raw", "1M"], { cwd: dir });
  await Deno.writeFile(`${dir}/odd`, new Uint8Array(1000).fill(1));
}

testSame([
  "measure a.raw",
  "measure odd",
  "measure --output=json -O raw a.raw",
  "measure --size 1000",
  "measure --size 0",
  "measure -O raw -o preallocation=some --size 2M",
  "measure -O raw -o size=1M --size 2M",
  "measure -O raw -o zork=1 --size 2M",
  "measure -O raw -o zork=1 a.raw",
  "measure -O raw -o size=1Q --size 2M",
  "measure -O qcow2 -o zork=1 none",
  "measure -O zork --size 1M",
  "measure -O file --size 1M",
  "measure -O file a.raw",
  "measure -O qcow2 a.raw",
  "measure -O qcow2 odd",
  "measure -O qcow2 --size 1000",
  "measure -O qcow2 -o size=1M --size 2M",
  "measure -O qcow2 -o backing_file=none a.raw",
  "measure -O qcow2 --size 8191P",
], { setup: makeSource });
