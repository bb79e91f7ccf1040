/** The same requests through the reference and through this driver, on copies of one image. */
import { assertEquals } from "@std/assert";
import type { DriverContext } from "../../../lib/block/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { loadCodec } from "../../../lib/codec/mod.ts";
import { qcow2 } from "../../../drivers/qcow2/driver.ts";
import { file as fileDriver } from "../../../drivers/file/driver.ts";
import { raw } from "../../../drivers/raw.ts";
import { runReference, useReference } from "../../_reference.ts";
import type { TempDir } from "../../_temp.ts";
import { mode } from "./_image.ts";

/** One guest request, bytes. */
export type Request =
  | {
    readonly kind: "write" | "compressed";
    readonly offset: number;
    readonly length: number;
    readonly pattern: number;
  }
  | {
    readonly kind: "zero" | "unmap" | "discard";
    readonly offset: number;
    readonly length: number;
  };

/** A request as `qemu-io` takes it. */
function command(request: Request): string {
  const range = `${request.offset} ${request.length}`;
  switch (request.kind) {
    case "write":
      return `write -q -P ${request.pattern} ${range}`;
    case "compressed":
      return `write -q -c -P ${request.pattern} ${range}`;
    case "zero":
      return `write -q -z ${range}`;
    case "unmap":
      return `write -q -z -u ${range}`;
    case "discard":
      return `discard -q ${range}`;
  }
}

/** A context for files in a folder; problems are collected. */
export function fileContext(
  path: string,
  changes: Partial<OpenMode>,
  reports: string[] = [],
): DriverContext {
  const using = mode(changes);
  return {
    filename: path,
    mode: using,
    untrusted: false,
    secret: (id) => {
      throw new ImageError(`No secret with id '${id}'`);
    },
    report: (line) => void reports.push(line),
    warn: (text) => void reports.push(`warning: ${text}`),
    openFile: (_role, filename) =>
      fileDriver.open(
        filename.startsWith("/") ? filename : `${path.slice(0, path.lastIndexOf("/"))}/${filename}`,
        fileContext(filename, changes),
      ),
    createFile: () => Promise.reject(ImageError.fromErrno("ENOTSUP")),
  };
}

/** Opens an image by this driver, with its backing files (by their stored formats, in the same folder). */
export async function openFile(
  path: string,
  changes: Partial<OpenMode> = {},
  reports: string[] = [],
): Promise<BlockNode> {
  const context = fileContext(path, changes, reports);
  // The file below always unmaps: what reaches it is the format's decision.
  const file = await fileDriver.open(path, fileContext(path, { ...changes, unmap: true }));
  try {
    const node = await qcow2.open(file, new OptionSet([]), context);
    const backing = node.backing!;
    if (backing.name !== "") {
      const below = `${path.slice(0, path.lastIndexOf("/"))}/${backing.name}`;
      backing.attach(
        backing.format === "raw"
          ? await raw.open(
            await fileDriver.open(below, fileContext(below, {})),
            new OptionSet([]),
            fileContext(below, {}),
          )
          : await openFile(below),
      );
    }
    return node;
  } catch (error) {
    await file[Symbol.asyncDispose]();
    throw error;
  }
}

/** Sends requests to a node; a failed one ends in its error's name. */
export async function send(node: BlockNode, request: Request): Promise<void> {
  const { offset, length } = request;
  switch (request.kind) {
    case "write":
      return await node.write(offset, new Uint8Array(length).fill(request.pattern));
    case "zero":
      return await node.writeZeroes(offset, length, { unmap: false });
    case "unmap":
      return await node.writeZeroes(offset, length, { unmap: true });
    case "discard":
      return await node.discard(offset, length);
    case "compressed": {
      const { clusterSize, codec: name } = node.packer!;
      const codec = await loadCodec(name);
      for (let done = 0; done < length; done += clusterSize) {
        const bytes = new Uint8Array(clusterSize);
        bytes.fill(request.pattern, 0, Math.min(length - done, clusterSize));
        const out = new Uint8Array(clusterSize - 1);
        const packed = codec.pack(bytes, out);
        if (packed === null) throw new Error("patterns shrink");
        await node.packer!.writePacked(offset + done, out.subarray(0, packed));
      }
    }
  }
}

/** Sessions of requests: the image is opened anew for each. */
export interface EqualOptions {
  /** How sessions are opened. */
  readonly mode?: Partial<OpenMode>;
  /** Other files that must be equal, too. */
  readonly others?: readonly string[];
}

/**
 * Runs sessions on `name` in two copies of a folder and asserts that the files
 * end up equal byte for byte.
 */
export async function assertEqualBytes(
  dir: TempDir,
  name: string,
  sessions: readonly (readonly Request[])[],
  options: EqualOptions = {},
): Promise<void> {
  const [theirs, ours] = [dir.file("theirs"), dir.file("ours")];
  await Deno.mkdir(theirs);
  await Deno.mkdir(ours);
  for await (const entry of Deno.readDir(dir.path)) {
    if (!entry.isFile) continue;
    await Deno.copyFile(dir.file(entry.name), `${theirs}/${entry.name}`);
    await Deno.copyFile(dir.file(entry.name), `${ours}/${entry.name}`);
  }
  const unmap = options.mode?.unmap ?? false;
  for (const session of sessions) {
    await useReference(
      [
        ...(unmap ? ["-d", "unmap"] : ["-d", "ignore"]),
        "-f",
        "qcow2",
        ...session.flatMap((request) => ["-c", command(request)]),
        name,
      ],
      { cwd: theirs, tool: "qemu-io" },
    );
    const node = await openFile(`${ours}/${name}`, { writable: true, ...options.mode });
    try {
      for (const request of session) await send(node, request);
    } finally {
      await node[Symbol.asyncDispose]();
    }
  }
  for (const file of [name, ...options.others ?? []]) {
    await assertSameFile(`${theirs}/${file}`, `${ours}/${file}`);
  }
}

/** Asserts that two files are equal byte for byte, and says where they are not. */
export async function assertSameFile(theirs: string, ours: string): Promise<void> {
  const [expected, actual] = await Promise.all([Deno.readFile(theirs), Deno.readFile(ours)]);
  const length = Math.min(expected.length, actual.length);
  let first = 0;
  while (first < length && expected[first] === actual[first]) first++;
  const excerpt = (bytes: Uint8Array) => bytes.subarray(first & ~7, (first & ~7) + 16).toHex();
  const describe = (bytes: Uint8Array) => `${bytes.length} bytes; at ${first}: ${excerpt(bytes)}`;
  if (first < length || expected.length !== actual.length) {
    assertEquals(describe(actual), describe(expected), ours);
  }
}

/** Asserts that the reference finds nothing wrong with an image. */
export async function assertClean(path: string): Promise<void> {
  const cwd = path.slice(0, path.lastIndexOf("/"));
  const { code, stdout, stderr } = await runReference(["check", "-f", "qcow2", path], { cwd });
  assertEquals(code, 0, `${path}: ${stdout}${stderr}`);
}
