/**
 * Random lives of images of every format: what a guest does in qimg and in the
 * reference by turns, beside a plain model of the disk.
 *
 * `QIMG_SEQUENCES=100` runs that many for each kind of image, `QIMG_SEED=7` one
 * alone.
 */
import { assert, assertEquals } from "@std/assert";
import { READ_ONLY } from "../../lib/block/mode.ts";
import { openImage } from "../../lib/graph/open.ts";
import { checkImage, createImage, ImageError, resizeImage } from "../../lib/mod.ts";
import {
  createOptions,
  type Kind,
  KINDS,
  nameOf,
  opens,
  referenceTo,
  WITH_SECRET,
} from "../_formats.ts";
import { Random } from "../_random.ts";
import { reference, runReference, useReference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";

const SEQUENCES = Number(Deno.env.get("QIMG_SEQUENCES") ?? 2);
const ONLY = Deno.env.get("QIMG_SEED");

const MIB = 1 << 20;
/** Turns of one tool or the other. */
const TURNS = 5;
const REQUESTS = 8;

interface Request {
  readonly kind: "write" | "zero" | "unmap" | "discard";
  readonly offset: number;
  readonly length: number;
}

class DiskLife {
  readonly log: string[] = [];
  readonly #kind: Kind;
  readonly #random: Random;
  readonly #dir: string;
  readonly #name: string;
  #disk = new Uint8Array();
  /** Whatever is wrong is not the reference's doing. */
  #wroteLast = true;

  constructor(kind: Kind, random: Random, dir: string) {
    this.#kind = kind;
    this.#random = random;
    this.#dir = dir;
    this.#name = `a.${kind.format}`;
  }

  async run(): Promise<void> {
    await this.#create();
    for (let turn = 0; turn < TURNS; turn++) {
      if (this.#random.oneIn(2)) await this.#ourTurn();
      else await this.#theirTurn();
      if (this.#random.oneIn(4)) await this.#resize();
      await this.#verifyOurs();
    }
    await this.#verifyTheirs();
  }

  get #path(): string {
    return `${this.#dir}/${this.#name}`;
  }

  get #image() {
    return referenceTo(this.#kind, this.#path);
  }

  /** By either tool, of a size that need not be whole clusters. */
  async #create(): Promise<void> {
    const random = this.#random;
    const size = random.between(1, 6 * MIB / 512) * 512;
    const { format, options } = this.#kind;
    if (random.oneIn(2)) {
      this.log.push(`create ${size}`);
      await createImage(
        { filename: this.#path, format, size, options: createOptions(this.#kind) },
        WITH_SECRET,
      );
    } else {
      this.log.push(`reference: create ${size}`);
      const more = options === "" ? [] : ["-o", options];
      const object = this.#kind.key === undefined ? [] : opens(this.#kind, "").slice(0, 2);
      await this.#reference("create", "-q", ...object, "-f", format, ...more, this.#name, size);
    }
    await using node = await openImage(this.#image, READ_ONLY, WITH_SECRET);
    if (!this.#kind.roundsUp) assertEquals(node.length, size);
    this.#disk = new Uint8Array(node.length);
    if (this.#kind.readsNoise) await node.read(0, this.#disk);
  }

  #reference(...args: readonly (string | number)[]): Promise<string> {
    return useReference(args.map(String), { cwd: this.#dir });
  }

  #request(): Request {
    const random = this.#random;
    const size = this.#disk.length;
    const unit = random.pick([512, 4096, 65536, MIB]);
    let offset = random.below(size);
    offset -= offset % unit;
    const length = Math.min(
      unit * random.pick([1, 1, 2, 3]),
      random.between(1, 2 * MIB / 512) * 512,
      size - offset,
    );
    const kind = random.pick(["write", "write", "write", "zero", "unmap", "discard"] as const);
    return { kind, offset, length };
  }

  async #ourTurn(): Promise<void> {
    this.#wroteLast = true;
    const mode = { ...READ_ONLY, writable: true, unmap: true };
    await using node = await openImage(this.#image, mode, WITH_SECRET);
    for (let left = this.#random.between(1, REQUESTS); left > 0; left--) {
      const { kind, offset, length } = this.#request();
      // Bytes and not sectors, where we choose.
      const shift = kind === "discard" ? 0 : this.#random.below(Math.min(length, 512));
      const [at, count] = [offset + shift, length - shift];
      this.log.push(`${kind} ${at} ${count}`);
      switch (kind) {
        case "write": {
          const bytes = this.#content(count);
          await node.write(at, bytes);
          this.#disk.set(bytes, at);
          break;
        }
        case "discard":
          await node.discard(at, count);
          await this.#forget(node, at, count);
          break;
        default:
          await node.writeZeroes(at, count, { unmap: kind === "unmap" });
          this.#disk.fill(0, at, at + count);
      }
      if (this.#random.oneIn(6)) await node.flush();
    }
  }

  /** What is discarded reads as it was or as zeros, sector by sector, and stays so. */
  async #forget(
    node: { read(at: number, into: Uint8Array): Promise<void> },
    at: number,
    count: number,
  ) {
    const now = new Uint8Array(count);
    await node.read(at, now);
    for (let i = 0; i < count; i += 512) {
      const sector = now.subarray(i, i + 512);
      if (sector.some((byte) => byte !== 0)) continue;
      this.#disk.fill(0, at + i, at + i + sector.length);
    }
  }

  #content(length: number): Uint8Array<ArrayBuffer> {
    const period = Math.min(length, this.#random.pick([1, 97, 4099]));
    const bytes = new Uint8Array(length);
    bytes.set(this.#random.bytes(period));
    for (let done = period; done < length; done *= 2) bytes.copyWithin(done, 0, done);
    return bytes;
  }

  async #theirTurn(): Promise<void> {
    const commands: string[] = [];
    for (let left = this.#random.between(1, REQUESTS); left > 0; left--) {
      const { kind, offset, length } = this.#request();
      if (kind === "discard") continue;
      const byte = this.#random.between(1, 255);
      const how = { write: `-P ${byte}`, zero: "-z", unmap: "-z -u" }[kind];
      commands.push(`write ${how} ${offset} ${length}`);
      this.#disk.fill(kind === "write" ? byte : 0, offset, offset + length);
    }
    this.log.push(...commands.map((command) => `reference: ${command}`));
    if (commands.length === 0) return;
    this.#wroteLast = false;
    await useReference(
      [...commands.flatMap((command) => ["-c", command]), ...opens(this.#kind, this.#name)],
      { cwd: this.#dir, tool: "qemu-io" },
    );
  }

  /** Formats that cannot say so, in the reference as well. */
  async #resize(): Promise<void> {
    const random = this.#random;
    const size = Math.ceil(this.#disk.length / 512) * 512 + random.between(0, 2 * MIB / 512) * 512;
    this.log.push(`resize ${size}`);
    try {
      await resizeImage(this.#image, { size }, WITH_SECRET);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.log.push(`  ${error.message}`);
      const { code } = await runReference(
        ["resize", "-q", ...opens(this.#kind, this.#name), `${size}`],
        { cwd: this.#dir },
      );
      assertEquals(code, 1, `only qimg refuses: ${error.message}`);
      return;
    }
    await using node = await openImage(this.#image, READ_ONLY, WITH_SECRET);
    const disk = new Uint8Array(size);
    if (this.#kind.readsNoise) await node.read(0, disk);
    disk.set(this.#disk);
    this.#disk = disk;
  }

  async #verifyOurs(): Promise<void> {
    await using node = await openImage(this.#image, READ_ONLY, WITH_SECRET);
    assertEquals(node.length, this.#disk.length);
    const bytes = new Uint8Array(node.length);
    await node.read(0, bytes);
    assertEquals(differenceOf(bytes, this.#disk), -1, "first byte that qimg reads wrongly");
    if (node.checker === undefined) return;
    const lines: string[] = [];
    const report = (line: string) => void lines.push(line);
    const outcome = await checkImage(this.#image, {}, { ...WITH_SECRET, report });
    const { corruptions, leaks, checkErrors } = outcome!.result;
    assertEquals([corruptions, checkErrors], [0, 0], lines.join("\n"));
    if (leaks > 0) this.log.push(...lines);
    // The reference leaves space behind the end of some formats' files, and finds it.
    if (leaks > 0) assertEquals((await this.#theirCheck()).code, 3, lines.join("\n"));
  }

  #theirCheck() {
    return runReference(["check", ...opens(this.#kind, this.#name)], { cwd: this.#dir });
  }

  async #verifyTheirs(): Promise<void> {
    const image = opens(this.#kind, this.#name);
    const check = await this.#theirCheck();
    // 63: the format has no checks.
    const sound = check.code === 63 || check.code === 0 ||
      (check.code === 3 && !this.#wroteLast);
    assert(sound, `${check.code}: ${check.stdout}${check.stderr}`);
    await Deno.writeFile(`${this.#dir}/model`, this.#disk);
    if (this.#kind.key === undefined) {
      const compared = await this.#reference(
        ...["compare", "-f", this.#kind.format, "-F", "raw", this.#name, "model"],
      );
      assertEquals(compared, "Images are identical.\n");
    } else {
      await this.#reference("convert", ...image, "-O", "raw", "found");
      const found = await Deno.readFile(`${this.#dir}/found`);
      assertEquals(differenceOf(found, this.#disk), -1, "first byte that the reference reads");
      assertEquals(found.length, this.#disk.length);
    }
  }
}

function differenceOf(one: Uint8Array, other: Uint8Array): number {
  return one.findIndex((byte, i) => byte !== other[i]);
}

for (const kind of KINDS) {
  if (kind.isStream) continue;
  Deno.test({
    name: `random lives of ${nameOf(kind)}`,
    ignore: reference.ignore,
    fn: async () => {
      const seeds = ONLY === undefined
        ? Array.from({ length: SEQUENCES }, (_, i) => i + 1)
        : [Number(ONLY)];
      for (const seed of seeds) {
        await withTempDir(async (dir) => {
          const life = new DiskLife(kind, new Random(seed), dir);
          try {
            await life.run();
          } catch (error) {
            throw new Error(`QIMG_SEED=${seed}\n${life.log.join("\n")}`, { cause: error });
          }
        });
      }
    },
  });
}
