/**
 * Stories: one command after the other, by both tools on files that begin
 * alike and have to be alike after each.
 */
import { assert, assertEquals } from "@std/assert";
import {
  reference,
  run,
  runQimg,
  runReference,
  sha256,
  useReference,
  writeWithReference,
} from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import type { Given } from "./_cases.ts";

/** Something that happens: a command line of both tools, or what `qemu-io` writes to an image. */
export type Event = string | readonly string[] | { readonly io: string; readonly to: string };

/** `qemu-io` commands in both folders: `guest("a", "write -P 7 0 64k")`. */
export function guest(to: string, ...commands: readonly string[]): Event[] {
  return commands.map((io) => ({ io, to }));
}

/** What is told. */
export interface Story {
  /** What there is at first. */
  readonly given: readonly Given[];
  /** What happens then. */
  readonly events: readonly Event[];
  /** The qcow2 images that have to be equal byte for byte after each command; default `a`. */
  readonly images?: readonly string[];
  /** Bytes are not compared: the reference does it in another way. Content, sizes and checks are. */
  readonly otherBytes?: boolean;
  /** What `check` is told to look at; default the images by their names. */
  readonly checked?: string;
  /** What is given is not sound, so nobody checks it. */
  readonly unsound?: boolean;
}

/** Tests that both tools do the same all along. */
export function story(name: string, told: Story): void {
  Deno.test({ name, ignore: reference.ignore, fn: () => tell(told) });
}

async function tell(
  { given, events, images = ["a"], otherBytes = false, unsound = false, checked }: Story,
): Promise<void> {
  await using theirs = await tempDir();
  await using ours = await tempDir();
  const dirs = [theirs.path, ours.path] as const;
  for (const step of given) await step.make(theirs.path);
  // Made once, for keys are random.
  await run("cp", ["-a", `${theirs.path}/.`, ours.path], { cwd: "." });
  for (const cwd of dirs) for (const image of images) await forgetDates(`${cwd}/${image}`);
  for (const [number, event] of events.entries()) {
    const told = `event ${number}, ${JSON.stringify(event)}`;
    if (typeof event === "object" && "io" in event) {
      for (const cwd of dirs) {
        await writeWithReference(event.to, [event.io], { cwd, format: "qcow2" });
      }
      continue;
    }
    const args = typeof event === "string" ? event.split(" ") : event;
    const [expected, actual] = await Promise.all([
      runReference(args, { cwd: theirs.path }),
      runQimg(args, { cwd: ours.path, program: "qemu-img" }),
    ]);
    assertEquals(actual, expected, told);
    for (const image of images) {
      const [one, other] = dirs.map((dir) => `${dir}/${image}`) as [string, string];
      await forgetDates(one);
      await forgetDates(other);
      if (!unsound) {
        // Leaks count as errors, too.
        const what = checked?.split(" ") ?? ["-f", "qcow2", image];
        const check = await runReference(["check", ...what], { cwd: ours.path });
        assertEquals([check.code, check.stderr], [0, ""], `${told}: ${check.stdout}`);
      }
      if (otherBytes) await assertSameDisk(one, other, told);
      else assertEquals(await sha256(other), await sha256(one), `${told}: bytes of ${image}`);
      const [expectedBlocks, blocks] = await Promise.all([one, other].map(blocksOf));
      // Some file systems keep a page more, and some pages are not the reference's to give back.
      assert(
        blocks! <= expectedBlocks! + 256,
        `${told}: ${image} takes ${blocks} sectors instead of ${expectedBlocks}`,
      );
    }
  }
}

async function assertSameDisk(one: string, other: string, told: string): Promise<void> {
  const compared = await runReference(["compare", "-s", one, other], { cwd: "." });
  assertEquals([compared.code, compared.stderr], [0, ""], `${told}: ${compared.stdout}`);
  const [expected, actual] = await Promise.all([one, other].map(async (image) => {
    const info = JSON.parse(await useReference(["info", "--output=json", image], { cwd: "." }));
    return [info["virtual-size"], info.snapshots, info["format-specific"]];
  }));
  assertEquals(actual, expected, told);
}

async function blocksOf(path: string): Promise<number> {
  return (await Deno.stat(path)).blocks ?? 0;
}

/** Makes all snapshots of an image ones of the first second. */
export async function forgetDates(path: string): Promise<void> {
  using file = await Deno.open(path, { read: true, write: true });
  const read = (offset: number, length: number) => {
    const bytes = new Uint8Array(length);
    file.seekSync(offset, Deno.SeekMode.Start);
    for (let at = 0; at < length;) {
      const n = file.readSync(bytes.subarray(at));
      if (n === null) break;
      at += n;
    }
    return new DataView(bytes.buffer);
  };
  const header = read(0, 72);
  if (header.getUint32(0) !== 0x514649fb) return;
  let at = Number(header.getBigUint64(64));
  for (let left = header.getUint32(60); left > 0; left--) {
    at = Math.ceil(at / 8) * 8;
    file.seekSync(at + 16, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(8));
    const entry = read(at, 40);
    at += 40 + entry.getUint32(36) + entry.getUint16(12) + entry.getUint16(14);
  }
}
