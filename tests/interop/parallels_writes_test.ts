/**
 * The same requests through `qemu-io` and through our node leave the same bytes: places are taken in the
 * same order, holes are used again in the same order.
 *
 * `QIMG_SEEDS=17-17` runs one seed, `QIMG_SEEDS=1-100` a hundred.
 */
import { assertEquals } from "@std/assert";
import { READ_ONLY } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { openImage } from "../../lib/graph/open.ts";
import { parallelsImage } from "../drivers/parallels/_images.ts";
import { Random } from "../_random.ts";
import { reference, runReference, useReference } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

const SECTOR = 512;
const K = 1024;

interface Shape {
  /** Options of a new image, or an image. */
  readonly image: string | Uint8Array<ArrayBuffer>;
  /** Bytes of a new image's disk. */
  readonly size?: number;
  /** Runtime options. */
  readonly options?: string;
}

const SHAPES: Readonly<Record<string, Shape>> = {
  "clusters of 64 KiB": { image: "cluster_size=64k", size: 1024 * K },
  "clusters of 1 MiB, and a disk that ends within one": {
    image: "cluster_size=1M",
    size: 3333 * 512,
  },
  "clusters of 512 bytes": { image: "cluster_size=512", size: 50 * K },
  "clusters of 1536 bytes": { image: "cluster_size=1536", size: 100 * K },
  "no space in advance": {
    image: "cluster_size=4k",
    size: 200 * K,
    options: "prealloc-size=0",
  },
  "little space in advance, by making the file longer": {
    image: "cluster_size=4k",
    size: 200 * K,
    options: "prealloc-size=20k,prealloc-mode=truncate",
  },
  "an image of the older kind": {
    image: parallelsImage({ version: 1, tracks: 8, table: [8, 0, 24, 16, ...Array(40).fill(0)] }),
  },
  "an image of the older kind that does not say where its data begin": {
    image: parallelsImage({
      version: 1,
      tracks: 8,
      table: [9, 0, 25, 17, ...Array(40).fill(0)],
      dataOffset: 0,
      fileLength: 33 * SECTOR,
    }),
  },
};

function seeds(): number[] {
  const [first, last] = (Deno.env.get("QIMG_SEEDS") ?? "1-3").split("-").map(Number);
  return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
}

interface Request {
  readonly kind: "write" | "zero" | "unmap" | "discard" | "flush";
  readonly offset: number;
  readonly length: number;
  readonly byte: number;
}

function randomRequest(random: Random, length: number, clusterSize: number): Request {
  const kind = random.pick(
    ["write", "write", "write", "zero", "unmap", "discard", "flush"] as const,
  );
  const unit = kind === "write" && random.oneIn(2) ? SECTOR : clusterSize;
  const offset = random.below(Math.ceil(length / unit)) * unit;
  const most = Math.min(Math.ceil((length - offset) / unit), random.pick([1, 3, 8]));
  const wanted = random.between(1, most) * unit;
  return {
    kind,
    offset,
    length: Math.min(wanted, length - offset),
    byte: random.between(1, 255),
  };
}

function commandOf({ kind, offset, length, byte }: Request): string {
  switch (kind) {
    case "write":
      return `write -P ${byte} ${offset} ${length}`;
    case "zero":
      return `write -z ${offset} ${length}`;
    case "unmap":
      return `write -z -u ${offset} ${length}`;
    case "discard":
      return `discard ${offset} ${length}`;
    case "flush":
      return "flush";
  }
}

async function send(node: BlockNode, { kind, offset, length, byte }: Request): Promise<void> {
  switch (kind) {
    case "write":
      return await node.write(offset, new Uint8Array(length).fill(byte));
    case "zero":
    case "unmap":
      return await node.writeZeroes(offset, length, { unmap: kind === "unmap" });
    case "discard":
      return await node.discard(offset, length);
    case "flush":
      return await node.flush();
  }
}

/**
 * Where the last clusters of the file were given up the reference leaves their places behind, for its check
 * to call them leaked; qimg does not.
 */
async function withoutLeaks(dir: TempDir, length: number): Promise<Uint8Array> {
  const bytes = await Deno.readFile(dir.file("theirs"));
  if (bytes.length === length) return bytes;
  await Deno.copyFile(dir.file("theirs"), dir.file("repaired"));
  const { code, stderr } = await runReference(["check", "-q", "-r", "leaks", "repaired"], {
    cwd: dir.path,
  });
  assertEquals([code, stderr], [
    0,
    `Repairing space leaked at the end of the image ${bytes.length - length}\n`,
  ]);
  return await Deno.readFile(dir.file("repaired"));
}

async function play(shape: Shape, random: Random): Promise<void> {
  await using dir = await tempDir();
  const { image, size = 0, options } = shape;
  if (typeof image !== "string") await Deno.writeFile(dir.file("theirs"), image);
  else {
    await useReference(["create", "-q", "-f", "parallels", "-o", image, "theirs", String(size)], {
      cwd: dir.path,
    });
  }
  await Deno.copyFile(dir.file("theirs"), dir.file("ours"));
  const runtime = options === undefined ? "" : `,${options}`;
  const name = (file: string) => `driver=parallels,file.filename=${file}${runtime}`;
  for (let session = 0; session < 3; session++) {
    const mode = { ...READ_ONLY, writable: true, unmap: true };
    const list = { filename: name(dir.file("ours")), imageOptions: true };
    const requests: Request[] = [];
    {
      await using node = await openImage(list, mode, QUIET);
      const bytes = await Deno.readFile(dir.file("theirs"));
      const clusterSize = new DataView(bytes.buffer).getUint32(28, true) * SECTOR;
      for (let n = 0; n < 25; n++) {
        const request = randomRequest(random, node.length, clusterSize);
        requests.push(request);
        await send(node, request);
      }
    }
    const commands = requests.map(commandOf);
    try {
      await useReference(
        [...commands.flatMap((command) => ["-c", command]), "--image-opts", name("theirs")],
        { cwd: dir.path, tool: "qemu-io" },
      );
      const ours = await Deno.readFile(dir.file("ours"));
      const theirs = await withoutLeaks(dir, ours.length);
      assertEquals(ours.length, theirs.length, "length");
      assertEquals(ours.findIndex((byte, at) => byte !== theirs[at]), -1, "first difference");
    } catch (error) {
      throw new Error(`session ${session}:\n${commands.join("\n")}`, { cause: error });
    }
  }
  await useReference(["check", "-f", "parallels", "ours"], { cwd: dir.path });
}

for (const [what, shape] of Object.entries(SHAPES)) {
  Deno.test({
    name: `parallels, written by both tools: ${what}`,
    ignore: reference.ignore,
    async fn() {
      for (const seed of seeds()) {
        try {
          await play(shape, new Random(seed));
        } catch (error) {
          throw new Error(`QIMG_SEEDS=${seed}-${seed}`, { cause: error });
        }
      }
    },
  });
}
