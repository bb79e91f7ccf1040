import { useReference, writeWithReference } from "../_reference.ts";
import { testSame } from "./_same.ts";

async function makeDisks(dir: string): Promise<void> {
  await useReference(["create", "-q", "-f", "raw", "disk", "1M"], { cwd: dir });
  await writeWithReference("disk", ["write -P 7 256k 512k"], { cwd: dir, format: "raw" });
  await Deno.writeFile(`${dir}/odd`, new Uint8Array(1000).fill(1));
  await Deno.writeFile(`${dir}/empty`, new Uint8Array());
}

testSame([
  "resize -f raw disk 2M",
  "resize -f raw disk 1M",
  "resize -f raw disk +512",
  "resize -f raw disk 1500000",
  "resize -f raw --shrink disk 300k",
  "resize -f raw --shrink disk -300k",
  "resize -f raw --preallocation=falloc disk 2M",
  "resize -f raw --preallocation=full disk 2M",
  "resize -f raw --preallocation=off disk 2M",
  "resize disk 2M",
  "resize --shrink disk 64k",
], { setup: makeDisks, images: [{ name: "disk", format: "raw" }], files: ["disk"] });

testSame([
  "resize -f raw odd 2000",
  "resize -f raw odd +100",
  "resize -f raw odd +1M",
], { setup: makeDisks, images: [{ name: "odd", format: "raw" }], files: ["odd"] });

testSame([
  "resize -f raw empty 100",
  "resize -f raw empty 2000",
  "resize -f raw empty 1M",
  "resize -f raw --preallocation=falloc empty 1M",
  "resize -f raw --preallocation=full empty 1M",
], { setup: makeDisks, images: [{ name: "empty", format: "raw" }], files: ["empty"] });

testSame([
  "resize -f raw disk 512k",
  "resize disk -512k",
  "resize -f raw disk 0",
  "resize -f raw disk -1M",
  "resize -f raw disk -2M",
  "resize -f raw --shrink disk 0",
  "resize -f raw --preallocation=full disk 1M",
  "resize -f raw --preallocation=full --shrink disk 512k",
  "resize -f raw --preallocation=metadata disk 2M",
  "resize -f raw disk 7E",
  "resize -f raw disk 8191P",
  "resize -f raw disk +7E",
  "resize -f raw --preallocation=falloc disk 7E",
  "resize -f raw --preallocation=full disk 7E",
  "resize -f file disk 2M",
], { setup: makeDisks, files: ["disk"] });
