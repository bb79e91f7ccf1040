/**
 * Random lives of QED images: the same requests through qimg and the reference leave the same bytes, and
 * what one of them wrote the other reads and finds nothing wrong with.
 *
 * `QIMG_SEQUENCES=100` runs that many, `QIMG_SEED=7` one alone.
 */
import { assertEquals } from "@std/assert";
import { checkImage, openImage } from "../../lib/mod.ts";
import { Random } from "../_random.ts";
import { reference, useQimg, useReference, writeWithReference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";

const SEQUENCES = Number(Deno.env.get("QIMG_SEQUENCES") ?? 6);
const ONLY = Deno.env.get("QIMG_SEED");
const SECTOR = 512;

interface Shape {
  readonly clusterSize: number;
  readonly tableSize: number;
  readonly size: number;
  readonly hasBacking: boolean;
}

function shapeOf(seed: number): Shape {
  const clusterSize = [4096, 65536, 8192, 4096][seed % 4]!;
  return {
    clusterSize,
    tableSize: [2, 4, 16, 8][Math.floor(seed / 2) % 4]!,
    // Several tables, and a last cluster that is not whole.
    size: (seed % 2 === 0 ? 9 : 3) * 2 ** 20 + SECTOR * (seed % 5),
    hasBacking: seed % 3 === 0,
  };
}

/** A request, of which writes fill a range with one byte. */
interface Request {
  readonly kind: "write" | "zero" | "flush";
  readonly offset: number;
  readonly length: number;
  readonly value: number;
}

function requests(random: Random, shape: Shape, count: number): Request[] {
  const { size, clusterSize, hasBacking } = shape;
  // The reference shows what is behind zeros where a part of their cluster is written.
  const unit = hasBacking ? clusterSize : SECTOR;
  return Array.from({ length: count }, () => {
    const kind = random.pick(["write", "write", "write", "zero", "flush"] as const);
    const most = random.pick([4096, 65536, 1 << 20]);
    let offset = random.below(size);
    offset -= offset % (random.oneIn(2) ? clusterSize : unit);
    let length = Math.min(random.between(1, most), size - offset);
    if (kind === "zero" && random.oneIn(2)) length = Math.ceil(length / clusterSize) * clusterSize;
    length = Math.min(Math.ceil(length / unit) * unit, size - offset);
    return { kind, offset, length, value: random.between(1, 255) };
  });
}

function commandOf({ kind, offset, length, value }: Request): string {
  if (kind === "flush") return "flush";
  return `write ${kind === "zero" ? "-z" : `-P ${value}`} ${offset} ${length}`;
}

function applyTo(model: Uint8Array, { kind, offset, length, value }: Request): void {
  if (kind !== "flush") model.fill(kind === "zero" ? 0 : value, offset, offset + length);
}

async function write(filename: string, wanted: readonly Request[]): Promise<void> {
  await using disk = await openImage(filename, { writable: true });
  for (const { kind, offset, length, value } of wanted) {
    if (kind === "flush") await disk.flush();
    else if (kind === "zero") await disk.writeZeroes(offset, length);
    else await disk.write(offset, new Uint8Array(length).fill(value));
  }
}

async function read(filename: string): Promise<Uint8Array> {
  await using disk = await openImage(filename);
  const bytes = new Uint8Array(disk.length);
  await disk.read(0, bytes);
  return bytes;
}

async function live(dir: string, seed: number): Promise<void> {
  const shape = shapeOf(seed);
  const random = new Random(seed);
  const model = new Uint8Array(shape.size);
  if (shape.hasBacking) {
    const length = shape.size - random.below(2 ** 20);
    model.set(random.bytes(length));
    Deno.writeFileSync(`${dir}/base`, model.subarray(0, length));
  }
  const options = `cluster_size=${shape.clusterSize},table_size=${shape.tableSize}`;
  const backing = shape.hasBacking ? ["-b", "base", "-F", "raw"] : [];
  const create = (name: string) => [
    ...["create", "-q", "-f", "qed", "-o", options],
    ...backing,
    name,
    `${shape.size}`,
  ];
  await useQimg(create("ours"), { cwd: dir });
  await useReference(create("theirs"), { cwd: dir });
  const assertAlike = async (what: string) => {
    const [ours, theirs] = [Deno.readFileSync(`${dir}/ours`), Deno.readFileSync(`${dir}/theirs`)];
    const at = ours.findIndex((byte, index) => byte !== theirs[index]);
    assertEquals([ours.length, at], [theirs.length, -1], `${what}: bytes of the file`);
    assertEquals(await read(`${dir}/theirs`), model, `${what}: what qimg reads`);
    Deno.writeFileSync(`${dir}/model`, model);
    await useReference(["compare", "-f", "qed", "-F", "raw", "ours", "model"], { cwd: dir });
    await useReference(["check", "-f", "qed", "ours"], { cwd: dir });
    const found = await checkImage({ filename: `${dir}/theirs` });
    assertEquals([found?.result.corruptions, found?.result.leaks], [0, 0], what);
  };
  for (const round of ["the first round", "the second round"]) {
    const wanted = requests(random, shape, 25);
    for (const request of wanted) applyTo(model, request);
    await write(`${dir}/ours`, wanted);
    await writeWithReference("theirs", wanted.map(commandOf), { cwd: dir, format: "qed" });
    await assertAlike(round);
  }
  if (!shape.hasBacking) {
    const size = shape.size + SECTOR * random.between(1, 5000);
    for (const [tool, name] of [[useQimg, "ours"], [useReference, "theirs"]] as const) {
      await tool(["resize", "-q", "-f", "qed", name, `${size}`], { cwd: dir });
    }
    const [ours, theirs] = [Deno.readFileSync(`${dir}/ours`), Deno.readFileSync(`${dir}/theirs`)];
    assertEquals(ours, theirs, "after growing");
  }
  // Each goes on with what the other has made.
  const wanted = requests(random, shape, 15);
  for (const request of wanted) applyTo(model, request);
  await Deno.rename(`${dir}/ours`, `${dir}/swap`);
  await Deno.rename(`${dir}/theirs`, `${dir}/ours`);
  await Deno.rename(`${dir}/swap`, `${dir}/theirs`);
  await write(`${dir}/ours`, wanted);
  await writeWithReference("theirs", wanted.map(commandOf), { cwd: dir, format: "qed" });
  const [ours, theirs] = [Deno.readFileSync(`${dir}/ours`), Deno.readFileSync(`${dir}/theirs`)];
  assertEquals(ours.findIndex((byte, index) => byte !== theirs[index]), -1, "after a swap");
  assertEquals((await read(`${dir}/theirs`)).subarray(0, shape.size), model, "after a swap");
}

const seeds = ONLY === undefined
  ? Array.from({ length: SEQUENCES }, (_, i) => i + 1)
  : [Number(ONLY)];
for (const seed of seeds) {
  const { clusterSize, tableSize, hasBacking } = shapeOf(seed);
  const backing = hasBacking ? ", a backing file" : "";
  Deno.test({
    name:
      `random life of qed ${seed}: clusters of ${clusterSize}, tables of ${tableSize}${backing}`,
    ignore: reference.ignore,
    fn: () => withTempDir((dir) => live(dir, seed)),
  });
}
