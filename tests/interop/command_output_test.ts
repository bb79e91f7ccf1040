import { assertSame, reference, useReference, writeWithReference } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

let images: TempDir;

// Made once: two snapshots of one image would differ in their time.
Deno.test.beforeAll(async () => {
  images = await tempDir();
  if (!reference.ignore) await makeImages(images.path);
});

Deno.test.afterAll(async () => {
  await images[Symbol.asyncDispose]();
});

async function copyImages(dir: string): Promise<void> {
  await Deno.mkdir(`${dir}/sub`);
  for (const from of ["", "sub/"]) {
    for await (const { name, isFile } of Deno.readDir(images.file(from))) {
      if (isFile) await Deno.copyFile(images.file(from + name), `${dir}/${from}${name}`);
    }
  }
}

/** Images of every kind that the commands below look at, made by the reference. */
async function makeImages(dir: string): Promise<void> {
  const make = (...args: string[]) => useReference(["create", "-q", ...args], { cwd: dir });
  await make("-f", "raw", "a.raw", "3M");
  await writeWithReference("a.raw", ["write -P 7 1M 64k", "write -P 9 2M 4k"], {
    cwd: dir,
    format: "raw",
  });
  await make("-f", "qcow2", "a.qcow2", "3M");
  await writeWithReference("a.qcow2", ["write -P 7 1M 64k", "write -z 2M 64k"], { cwd: dir });
  await make("-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "top.qcow2");
  await writeWithReference("top.qcow2", ["write -P 8 1M 4k"], { cwd: dir });
  await make("-f", "qcow2", "-u", "-b", "nowhere", "-F", "raw", "orphan.qcow2", "1M");
  await make("-f", "qcow2", "-o", "lazy_refcounts=on,extended_l2=on", "x.qcow2", "1M");
  await useReference(["snapshot", "-c", "s1", "x.qcow2"], { cwd: dir });
  await useReference(["bitmap", "--add", "x.qcow2", "b0"], { cwd: dir });
  await useReference(["convert", "-c", "-O", "qcow2", "a.raw", "packed.qcow2"], { cwd: dir });
  await Deno.mkdir(`${dir}/sub`);
  await make("-f", "qcow2", "-b", "../a.qcow2", "-F", "qcow2", "sub/over.qcow2");
  await make("-f", "qcow2", "-o", "data_file=ext.data,data_file_raw=on", "ext.qcow2", "1M");
  const secret = ["--object", "secret,id=s,data=x"];
  const key = "encrypt.key-secret=s";
  await make("-f", "qcow2", ...secret, "-o", `encrypt.format=aes,${key}`, "aes.qcow2", "1M");
  const luks = `encrypt.format=luks,encrypt.iter-time=10,${key}`;
  await make("-f", "qcow2", ...secret, "-o", luks, "luks.qcow2", "1M");
  await make("-f", "raw", "small.raw", "1M");
  await make("-f", "raw", "empty.raw", "0");
}

const COMMAND_LINES: readonly string[] = [
  "info a.raw",
  "info -f raw a.qcow2",
  "info -f file a.raw",
  "info a.qcow2",
  "info ./a.qcow2",
  "info top.qcow2",
  "info orphan.qcow2",
  "info x.qcow2",
  "info empty.raw",
  "info -U --backing-chain top.qcow2",
  "info --backing-chain a.qcow2",
  "info --backing-chain orphan.qcow2",
  "info --output=json a.raw",
  "info --output=json a.qcow2",
  "info --output=json top.qcow2",
  "info --output=json orphan.qcow2",
  "info --output=json x.qcow2",
  "info --output json -b top.qcow2",
  "info --output json -b a.raw",
  "info sub/over.qcow2",
  "info --output=json sub/over.qcow2",
  "info -b sub/over.qcow2",
  "info ext.qcow2",
  "info --output=json ext.qcow2",
  "info aes.qcow2",
  "info --output=json aes.qcow2",
  "info luks.qcow2",
  "info --output=json luks.qcow2",
  "info nowhere",
  "info file:a.qcow2",
  "info zork:a.qcow2",
  "info -f zork a.qcow2",
  "info .",
  "map luks.qcow2",
  "map sub/over.qcow2",
  "map ext.qcow2",
  "map --output=json ext.qcow2",
  "map a.raw",
  "map a.qcow2",
  "map top.qcow2",
  "map empty.raw",
  "map packed.qcow2",
  "map --output=json a.raw",
  "map --output=json top.qcow2",
  "map --output=json packed.qcow2",
  "map --output=json empty.raw",
  "map -s 1M -l 65k --output=json top.qcow2",
  "map -s 8M a.raw",
  "map -l 0 --output=json a.raw",
  "map nowhere --output=json",
  "measure --size 10M",
  "measure --size 10M -O qcow2",
  "measure --size 10M -O qcow2 --output=json",
  "measure -O qcow2 a.raw",
  "measure -O qcow2 -o cluster_size=4k --output json top.qcow2",
  "measure -O qcow2 x.qcow2",
  "measure -O qcow2 x.qcow2 --output=json",
  "measure -O qcow2 -o help --size 1M",
  "measure -O zork --size 1M",
  "check a.qcow2",
  "check a.qcow2 --output=json",
  "check packed.qcow2",
  "check -q a.qcow2",
  "check a.raw",
  "check --output=json a.raw",
  "check nowhere",
  "compare a.raw a.raw",
  "compare a.raw a.qcow2",
  "compare -s a.raw a.qcow2",
  "compare -s small.raw a.raw",
  "compare small.raw empty.raw",
  "compare -q small.raw empty.raw",
  "compare -s x.qcow2 small.raw",
  "compare a.raw packed.qcow2",
  "compare -p small.raw small.raw",
  "compare -p small.raw a.raw",
  "compare -p small.raw empty.raw",
  "compare -p empty.raw empty.raw",
  "compare -p small.raw nowhere",
  "compare nowhere a.raw",
  "compare -f qcow2 small.raw a.raw",
  "create new 1M",
  "create -q new 1M",
  "create -f qcow2 new 1M",
  "create -f qcow2 -b a.qcow2 -F qcow2 new",
  "create -f qcow2 -o compat=0.10,size=2M -o cluster_size=4k new",
  "create -f zork new 1M",
  "create new",
  "convert a.raw new",
  "convert -p small.raw new",
  "convert -p nowhere new",
  "convert -p -n -t zork small.raw a.raw",
  "convert -t zork nowhere new",
  "convert -O zork small.raw new",
  "convert -p -q small.raw new",
  "convert -p empty.raw new",
  "dd if=a.raw of=new",
  "dd if=a.raw of=new bs=1M count=2 skip=1",
  "dd if=a.raw of=new bs=1M skip=3",
  "dd -O zork if=a.raw of=new",
  "resize -f raw small.raw +1M",
  "resize -q -f raw small.raw 2M",
  "resize -f raw --shrink small.raw -512k",
  "resize -f raw small.raw 512k",
  "resize -f raw small.raw -512k",
  "resize small.raw 2M",
  "resize -f raw small.raw 0",
  "resize -f raw small.raw -2M",
  "resize a.qcow2 4M",
  "resize a.qcow2 1000",
  "resize nowhere 1M",
  "resize -f zork small.raw 1M",
];

for (const line of COMMAND_LINES) {
  Deno.test({
    name: `output as the reference: ${line}`,
    ignore: reference.ignore,
    fn: async () => {
      await assertSame(line.split(" "), { setup: copyImages });
    },
  });
}

const HELP_LINES: readonly string[] = [
  "create -o help",
  "create -o ?",
  "create -f raw -o help new",
  "create -f qcow2 -o help",
  "create -f qcow2 -o size=1,help new foo 1 2",
  "create -f qcow2 -o help,, new",
  "create -f zork -o help",
  "create -f qcow2 -o help zork:new",
  "convert -o help",
  "convert -O qcow2 -o help",
  "convert -O qcow2 -o help a",
  "convert -O qcow2 -o help a b",
  "convert -O zork -o help",
  "convert -p -o help a b c",
];

for (const line of HELP_LINES) {
  Deno.test({
    name: `option help as the reference: ${line}`,
    ignore: reference.ignore,
    fn: async () => {
      await assertSame(line.split(" "), {
        // What an option is for is said in words of our own.
        normalize: (text) => text.replaceAll(/(=<.*> *) - .*$/gm, "$1 - …"),
      });
    },
  });
}
