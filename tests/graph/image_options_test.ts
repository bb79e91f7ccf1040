import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { type OpenMode, READ_ONLY } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { type Environment, QUIET } from "../../lib/graph/environment.ts";
import { openImage } from "../../lib/graph/open.ts";
import { createImage } from "../../lib/ops/create.ts";
import { type TempDir, tempDir } from "../_temp.ts";

const WRITABLE: OpenMode = { ...READ_ONLY, writable: true };
const SIZE = 1 << 20;

function open(
  list: string,
  mode = READ_ONLY,
  environment: Environment = QUIET,
): Promise<BlockNode> {
  return openImage({ filename: list, imageOptions: true }, mode, environment);
}

/** The reason, without the list in front. */
async function refusal(list: string, mode = READ_ONLY, environment = QUIET): Promise<string> {
  const { message } = await assertRejects(() => open(list, mode, environment), ImageError);
  return message.replace(`Could not open '${list}': `, "");
}

/** A raw file whose every byte is `byte`. */
async function disk(dir: TempDir, name: string, byte = 1): Promise<string> {
  await Deno.writeFile(dir.file(name), new Uint8Array(SIZE).fill(byte));
  return dir.file(name);
}

async function qcow2(dir: TempDir, name: string, backing?: string): Promise<string> {
  const filename = dir.file(name);
  await createImage({
    filename,
    format: "qcow2",
    size: SIZE,
    ...(backing === undefined ? {} : { backing, backingFormat: "raw" }),
  });
  return filename;
}

async function firstByte(node: BlockNode): Promise<number> {
  const bytes = new Uint8Array(1);
  await node.read(0, bytes);
  return bytes[0]!;
}

Deno.test("a name is plain as long as it alone gives the same disk", async () => {
  await using dir = await tempDir();
  const path = await qcow2(dir, "q");
  for (
    const [list, name] of [
      [`driver=qcow2,file.filename=${path}`, path],
      [`driver=qcow2,file.filename=${path},lazy-refcounts=on,file.locking=off`, path],
      [
        `driver=raw,file.filename=${path},offset=1k`,
        `json:{"offset": "1k", "driver": "raw", "file": {"driver": "file", "filename": "${path}"}}`,
      ],
      [
        `driver=qcow2,file.driver=raw,file.file.filename=${path}`,
        'json:{"driver": "qcow2", "file": {"driver": "raw", ' +
        `"file": {"driver": "file", "filename": "${path}"}}}`,
      ],
    ] as const
  ) {
    await using node = await open(list);
    assertEquals(node.filename, name, list);
  }
});

Deno.test("a name tells of another backing file, and of none", async () => {
  await using dir = await tempDir();
  const base = await disk(dir, "base");
  const other = await disk(dir, "other", 2);
  const path = await qcow2(dir, "q", base);
  const file = `{"driver": "file", "filename": "${path}"}`;
  const list = `driver=qcow2,file.filename=${path}`;
  const raw = (name: string) => `backing.driver=raw,backing.file.filename=${name}`;
  for (
    const [options, name, byte] of [
      ["", path, 1],
      [`,${raw(base)}`, path, 1],
      [
        `,${raw(other)}`,
        'json:{"backing": {"driver": "raw", "file": {"driver": "file", "filename": ' +
        `"${other}"}}, "driver": "qcow2", "file": ${file}}`,
        2,
      ],
      [",backing=", `json:{"backing": null, "driver": "qcow2", "file": ${file}}`, 0],
    ] as const
  ) {
    await using node = await open(list + options);
    assertEquals([node.filename, await firstByte(node)], [name, byte], options);
    // The name gives the same again.
    await using again = await openImage({ filename: node.filename }, READ_ONLY, QUIET);
    assertEquals([again.filename, await firstByte(again)], [name, byte], name);
  }
});

Deno.test("a name that is too long is cut off", async () => {
  await using dir = await tempDir();
  const path = await disk(dir, "a");
  // Two hundred raw nodes on each other.
  const nested = `json:${
    '{"driver":"raw","file":'.repeat(200)
  }{"driver":"file","filename":"${path}"}${"}".repeat(200)}`;
  await using node = await openImage({ filename: nested }, READ_ONLY, QUIET);
  assertEquals([node.filename.length, node.filename.slice(-3)], [4095, "..."]);
});

Deno.test("nodes do not nest without an end", async () => {
  await using dir = await tempDir();
  const path = await disk(dir, "a");
  const key = "file.".repeat(20_000);
  assertEquals(await refusal(`${key}filename=${path}`), "Must specify either driver or file");
  const drivers = Array.from({ length: 1100 }, (_, i) => `${"file.".repeat(i)}driver=raw`);
  assertEquals(
    await refusal(`${drivers.join(",")},${"file.".repeat(1100)}filename=${path}`),
    "Nodes are nested more than 1024 levels deep",
  );
});

Deno.test("a node can be used by its name, and closes after its last user", async () => {
  await using dir = await tempDir();
  const path = await disk(dir, "a", 7);
  const environment: Environment = { ...QUIET, scope: {} };
  const first = await open(`driver=raw,file.filename=${path},node-name=n`, READ_ONLY, environment);
  const second = await open("n", READ_ONLY, environment);
  await first[Symbol.asyncDispose]();
  assertEquals(await firstByte(second), 7);
  assertEquals(
    await refusal(`driver=raw,file.filename=${path},node-name=n`, READ_ONLY, environment),
    "Duplicate nodes with node-name='n'",
  );
  await second[Symbol.asyncDispose]();
  assertEquals(
    await refusal("n", READ_ONLY, environment),
    "Cannot find device='n' nor node-name='n'",
  );
  // The name is free again.
  await using _third = await open(
    `driver=raw,file.filename=${path},node-name=n`,
    READ_ONLY,
    environment,
  );
});

Deno.test("two users of a node must get along", async () => {
  await using dir = await tempDir();
  const path = await qcow2(dir, "q");
  const environment: Environment = { ...QUIET, scope: {} };
  await using _reader = await open(
    `driver=qcow2,file.filename=${path},file.node-name=n`,
    READ_ONLY,
    environment,
  );
  await using _other = await open("driver=qcow2,file=n", READ_ONLY, environment);
  const message = await refusal("driver=raw,file=n", WRITABLE, environment);
  assertEquals(message, "Block node is read-only");
});

Deno.test("a node that options make read-only is not written", async () => {
  await using dir = await tempDir();
  const path = await qcow2(dir, "q");
  for (const option of ["read-only=on", "file.read-only=on"]) {
    assertEquals(
      await refusal(`driver=qcow2,file.filename=${path},${option}`, WRITABLE),
      "Block node is read-only",
    );
  }
  await using node = await open(`driver=qcow2,file.filename=${path},read-only=off`);
  assertEquals(node.readOnly, false);
});

Deno.test("auto-read-only opens for writing only for those who write", async () => {
  await using dir = await tempDir();
  const path = await disk(dir, "a");
  const list = `driver=raw,file.filename=${path},read-only=off,auto-read-only=on`;
  {
    await using node = await open(list);
    assertEquals(node.readOnly, true);
  }
  await using node = await open(list, WRITABLE);
  assertEquals(node.readOnly, false);
});

Deno.test("locks can be left alone", async () => {
  await using dir = await tempDir();
  const path = await qcow2(dir, "q");
  await using _first = await open(`driver=qcow2,file.filename=${path}`, WRITABLE);
  assertEquals(
    await refusal(`driver=qcow2,file.filename=${path}`, WRITABLE),
    'Failed to get "write" lock',
  );
  await using _second = await open(`driver=qcow2,file.filename=${path},file.locking=off`);
});

Deno.test("zeros that are detected take no space", async () => {
  await using dir = await tempDir();
  const path = await disk(dir, "a");
  const list = `driver=raw,file.filename=${path}`;
  for (const [options, state] of [["", "data"], ["discard=unmap,detect-zeroes=unmap", "zero"]]) {
    await using node = await open(`${list},${options}`.replace(/,$/, ""), WRITABLE);
    await node.write(0, new Uint8Array(65536));
    await node.write(65536, new Uint8Array(65536).fill(3));
    assertEquals((await node.extent(0, 65536)).state, state, options);
    assertEquals((await node.extent(65536, 65536)).state, "data", options);
    assertEquals(node.allocator === undefined, options !== "");
  }
});

Deno.test("an option that nobody knows leaves nothing open", async () => {
  await using dir = await tempDir();
  const base = await disk(dir, "base");
  const path = await qcow2(dir, "q", base);
  assertEquals(
    await refusal(`driver=qcow2,file.filename=${path},zork=1`, WRITABLE),
    "Block format 'qcow2' does not support the option 'zork'",
  );
  // Nothing holds a lock any more.
  await using node = await open(`driver=qcow2,file.filename=${path}`, WRITABLE);
  assert(!node.readOnly);
});

Deno.test("a name in an untrusted image opens nothing, json: or not; options that the user gave do", async () => {
  await using dir = await tempDir();
  const base = await disk(dir, "base", 5);
  const path = await qcow2(dir, "q", `json:{"driver":"raw","file":{"filename":"${base}"}}`);
  const untrusted: Environment = { ...QUIET, untrusted: true };
  const list = `driver=qcow2,file.filename=${path}`;
  {
    await using node = await open(list);
    assertEquals(await firstByte(node), 5);
  }
  assert((await refusal(list, READ_ONLY, untrusted)).includes("is not opened for an untrusted"));
  await using node = await open(
    `${list},backing.driver=raw,backing.file.filename=${base}`,
    READ_ONLY,
    untrusted,
  );
  assertEquals(await firstByte(node), 5);
});
