/**
 * Sound QED images, damaged at random: `check` with and without repairs, opening for writing, and reading
 * say what the reference says, end as it ends and leave the same bytes; and what is called repaired, the
 * reference finds without corruptions.
 *
 * `QIMG_DAMAGE_SEEDS=300` runs that many seeds, `QIMG_DAMAGE_SEEDS=17-17` one.
 */
import { assert, assertEquals } from "@std/assert";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { type Outcome, reference, runQimg, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { CLUSTER, create, open } from "../drivers/qed/_image.ts";

const SEEDS = Deno.env.get("QIMG_DAMAGE_SEEDS") ?? "20";
const L1 = CLUSTER;
const ENTRIES = 2 * CLUSTER / 8;
const [FEATURES, AUTOCLEAR, IMAGE_SIZE] = [16, 32, 48];
const NEED_CHECK = 2n;

/** An image with data, zeros and gaps in three tables. */
async function soundImage(random: Random): Promise<Uint8Array<ArrayBuffer>> {
  const size = (3 * ENTRIES - 5) * CLUSTER - 512;
  const file = await create({ size: `${size}` });
  {
    await using node: Awaited<ReturnType<typeof open>> = await open(file);
    for (let n = 0; n < 25; n++) {
      const at = Math.floor(random.below(size) / 512) * 512;
      const length = Math.min(random.between(1, 60000), size - at);
      if (random.oneIn(4)) await node.writeZeroes(at, length, { unmap: false });
      else await node.write(at, new Uint8Array(length).fill(random.between(1, 255)));
    }
  }
  return file.bytes();
}

/** Where things lie in a sound image. */
class Damage {
  readonly log: string[] = [];
  readonly #view: DataView;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #random: Random;
  readonly #tables: number[] = [];
  #length: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, random: Random) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
    this.#random = random;
    this.#length = bytes.length;
    for (let i = 0; i < ENTRIES; i++) {
      const table = Number(this.#get(L1 + i * 8));
      if (table !== 0) this.#tables.push(table);
    }
  }

  do(ways: number): Uint8Array<ArrayBuffer> {
    while (ways-- > 0) this.#once();
    const image = new Uint8Array(this.#length);
    image.set(this.#bytes.subarray(0, this.#length));
    return image;
  }

  #once(): void {
    const random = this.#random;
    switch (random.below(12)) {
      case 0:
      case 1:
        return this.#set("L1 entry", L1 + random.below(4) * 8, this.#place());
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
        return this.#set(
          "L2 entry",
          random.pick(this.#tables) + random.below(ENTRIES) * 8,
          this.#place(),
        );
      case 7: {
        const at = random.pick([L1, ...this.#tables]);
        const from = at + random.below(ENTRIES) * 8;
        const length = Math.min(8 * random.between(1, 30), at + 2 * CLUSTER - from);
        const fill = random.pick([0, 1, 0xff]);
        this.#bytes.fill(fill, from, from + length);
        return void this.log.push(`${length} bytes at ${from}: ${fill}`);
      }
      case 8:
        return this.#set("features", FEATURES, NEED_CHECK);
      case 9:
        return this.#set("autoclear features", AUTOCLEAR, BigInt(random.u32()) << 16n);
      case 10:
        return this.#set("image size", IMAGE_SIZE, this.#get(IMAGE_SIZE) + 512n * 4096n);
      default:
        this.#length -= random.pick([1, CLUSTER - 1, CLUSTER, random.below(20 * CLUSTER)]);
        return void this.log.push(`length: ${this.#length}`);
    }
  }

  /** A value for an entry. */
  #place(): bigint {
    const random = this.#random;
    const clusters = Math.floor(this.#bytes.length / CLUSTER);
    const cluster = BigInt(random.below(clusters + 3) * CLUSTER);
    return random.pick([
      0n,
      1n,
      cluster,
      cluster,
      cluster,
      BigInt(random.pick(this.#tables)),
      cluster + BigInt(random.below(CLUSTER)),
      BigInt(random.u32()) << BigInt(random.below(33)),
      (1n << 64n) - 1n,
    ]);
  }

  #get(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  #set(what: string, at: number, value: bigint): void {
    this.log.push(`${what} at ${at}: ${this.#get(at).toString(16)} -> ${value.toString(16)}`);
    this.#view.setBigUint64(at, value, true);
  }
}

/** What a tool did, and left. */
interface Done extends Outcome {
  readonly image: Uint8Array;
  readonly copy: Uint8Array | undefined;
}

type Tool = (args: readonly string[], cwd: string) => Promise<Outcome>;
const theirs: Tool = (args, cwd) => runReference(args, { cwd });
const ours: Tool = (args, cwd) => runQimg(args, { cwd, program: "qemu-img" });

async function runWith(tool: Tool, line: string, image: Uint8Array): Promise<Done> {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a.qed"), image);
  const outcome = await tool(line.split(" "), dir.path);
  const copy = await Deno.readFile(dir.file("copy")).catch(() => undefined);
  // Where a map ends early, the comma behind its last line is a matter of taste.
  const stdout = outcome.stdout.replace(/,\n$/, "");
  return { ...outcome, stdout, image: await Deno.readFile(dir.file("a.qed")), copy };
}

function assertAlike(line: string, actual: Done, expected: Done): void {
  const { image, copy, ...told } = actual;
  const { image: expectedImage, copy: expectedCopy, ...expectedTold } = expected;
  assertEquals(told, expectedTold, line);
  const differs = (a: Uint8Array, b: Uint8Array) => a.findIndex((byte, at) => byte !== b[at]);
  assertEquals(
    [image.length, differs(image, expectedImage)],
    [expectedImage.length, -1],
    `${line}: bytes of the image`,
  );
  if (expected.code !== 0 || expectedCopy === undefined) return;
  assertEquals(differs(copy!, expectedCopy), -1, `${line}: bytes of the copy`);
}

/**
 * Entries may name clusters that the file has not. The reference only looks at the first of a run of
 * clusters, and shows zeros for the lost ones, as long as requests do not begin with one of them; here all
 * of them are errors.
 */
function isLost({ code, stderr }: Outcome, expected: Outcome, isShorter: boolean): boolean {
  return code === 1 && stderr.includes("Invalid argument") && (expected.code === 0 || isShorter);
}

async function examine(seed: number): Promise<void> {
  const random = new Random(seed);
  const damage = new Damage(await soundImage(random), random);
  const image = damage.do(random.pick([1, 1, 2, 3]));
  const isShorter = damage.log.some((line) => line.startsWith("length"));
  try {
    for (
      const line of [
        "check --output=json -f qed a.qed",
        "check -r leaks -f qed a.qed",
        "check --output=json -r all -f qed a.qed",
        "resize -f qed a.qed +512",
        "map --output=json -f qed a.qed",
        "convert -f qed -O raw a.qed copy",
      ]
    ) {
      const actual = await runWith(ours, line, image);
      const expected = await runWith(theirs, line, image);
      if (!/^check|^resize/.test(line) && isLost(actual, expected, isShorter)) {
        const found = await runWith(theirs, "check -f qed a.qed", image);
        assertEquals(found.code, 2, `${line}: nothing is lost`);
        continue;
      }
      assertAlike(line, actual, expected);
      if (!line.includes("-r all") || actual.code !== 0) continue;
      const verdict = await runWith(theirs, "check -f qed a.qed", actual.image);
      assert([0, 3].includes(verdict.code), `the repaired image: ${verdict.stdout}`);
    }
    await assertReadable(image);
  } catch (cause) {
    throw new Error(`QIMG_DAMAGE_SEEDS=${seed}-${seed}: ${damage.log.join("; ")}`, { cause });
  }
}

/** After a repair everything can be read, but for tables that lie where something else does. */
async function assertReadable(image: Uint8Array): Promise<void> {
  const file = new MemoryNode({ bytes: image });
  let node;
  try {
    node = await open(file);
  } catch {
    return;
  }
  await using disk: Awaited<ReturnType<typeof open>> = node;
  const { corruptions } = await disk.checker!.check("all", () => {});
  if (corruptions === 0) await disk.read(0, new Uint8Array(disk.length));
  const again = await disk.checker!.check("none", () => {});
  assertEquals(again.corruptions, corruptions, "what cannot be repaired stays");
}

const [from, to] = SEEDS.includes("-") ? SEEDS.split("-").map(Number) : [1, Number(SEEDS)];
for (let first = from!; first <= to!; first += 5) {
  const last = Math.min(first + 4, to!);
  Deno.test({
    name: `qed: damage ${first} to ${last}`,
    ignore: reference.ignore,
    async fn() {
      for (let seed = first; seed <= last; seed++) await examine(seed);
    },
  });
}
