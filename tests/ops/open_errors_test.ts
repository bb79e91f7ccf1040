import { useReference } from "../_reference.ts";
import { testSame } from "./_same.ts";

/** What cannot be opened, in the words of cli.md, section 4. */
async function makeObstacles(dir: string): Promise<void> {
  await useReference(["create", "-q", "-f", "raw", "a.raw", "64k"], { cwd: dir });
  await Deno.mkdir(`${dir}/folder`);
  await Deno.writeFile(`${dir}/empty`, new Uint8Array());
  await Deno.copyFile(`${dir}/a.raw`, `${dir}/a:b`);
}

testSame([
  "info none",
  "info -f raw none",
  "info folder",
  "info -f qcow2 folder",
  "info folder/none",
  "info a.raw/x",
  "info ''",
  "info file:",
  "info host_device:",
  "info nosuch:a.raw",
  "info :a.raw",
  "info a:b",
  "info ./a:b",
  "info file:a:b",
  "info file:file:a.raw",
  "info -f zork none",
  "info -f zork nosuch:a.raw",
  "info -f qcow2 a.raw",
  "info -f qcow2 empty",
  "info -f file a.raw",
  "info -f file file:a.raw",
  "info -f host_device a.raw",
  "info host_device:a.raw",
  "info empty",
  "map none",
  "map folder",
  "map -f zork a.raw",
  "check none",
  "check -f file a.raw",
  "check -r all folder",
  "check -r all -U a.raw",
  "check -r all -U none",
  "check -r all -U -f zork none",
  "measure none",
  "measure -O qcow2 none",
  "measure -O zork none",
  "measure -O zork a.raw",
  "resize none 1M",
  "resize folder 1M",
  "resize -f raw folder 1M",
  "resize -f zork a.raw 1M",
  "dd if=none of=new",
  "dd if=folder of=new",
  "dd if=none of=new -O zork",
], { setup: makeObstacles });
