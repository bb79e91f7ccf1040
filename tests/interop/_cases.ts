/**
 * Tables of command lines that both tools must treat alike.
 *
 * A case says what there is before (`given`), the command line, and what to
 * look at afterwards. What is given is made once by the reference and copied
 * for each tool, holes included, so that both begin with the same bytes.
 */

import { assert } from "@std/assert";
import { Random } from "../_random.ts";
import {
  assertSame,
  reference,
  type SameOptions,
  useReference,
  writeWithReference,
} from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

/** One thing that happens in a folder before the command line runs. */
export interface Given {
  /** Says all that it depends on: two with one key do the same. */
  readonly key: string;
  /** Does it in the folder `dir`. */
  make(dir: string): unknown;
}

/** What is given, what is run, and what has to be equal afterwards. */
export interface Case extends Omit<SameOptions, "setup"> {
  /** In this order. */
  readonly given?: readonly Given[];
  /** The command line after the program's name; a string is split at spaces. */
  readonly run: string | readonly string[];
  /** What cannot be copied (permissions that keep root out, mounts): done in each folder. */
  readonly prepare?: (dir: string) => void | Promise<void>;
}

/** `qemu-img` of the reference, quietly: `img("create -f qcow2 a 1M")`. */
export function img(line: string | readonly string[]): Given {
  const words = wordsOf(line);
  const args = words[0] === "create" ? ["create", "-q", ...words.slice(1)] : words;
  return {
    key: `img ${JSON.stringify(args)}`,
    make: (cwd) => useReference(args, { cwd }),
  };
}

/** `qemu-io` of the reference on one image: `io("a", "write -P 7 0 64k", "discard 0 4k")`. */
export function io(image: string, ...commands: readonly string[]): Given {
  return ioAs("qcow2", image, ...commands);
}

/** As {@linkcode io} with another format than qcow2. */
export function ioAs(format: string, image: string, ...commands: readonly string[]): Given {
  return {
    key: `io ${format} ${image} ${JSON.stringify(commands)}`,
    make: (cwd) => writeWithReference(image, commands, { cwd, format }),
  };
}

/** A file with this text. */
export function text(name: string, content: string): Given {
  return {
    key: `text ${name} ${JSON.stringify(content)}`,
    make: (dir) => Deno.writeTextFile(`${dir}/${name}`, content),
  };
}

/** A folder. */
export function folder(name: string): Given {
  return { key: `folder ${name}`, make: (dir) => Deno.mkdir(`${dir}/${name}`) };
}

/** A file of zeros without a byte on the host. */
export function hole(name: string, length: number): Given {
  return {
    key: `hole ${name} ${length}`,
    make(dir) {
      using file = Deno.openSync(`${dir}/${name}`, { write: true, create: true });
      file.truncateSync(length);
    },
  };
}

/** A part of a raw disk. All in bytes. */
export type DiskPart =
  /**
   * `noise` does not compress, `mixed` to a quarter, `flat` to nothing; `gaps` is noise with runs of zero
   * sectors of all lengths in it.
   */
  readonly [offset: number, length: number, what: "noise" | "mixed" | "flat" | "gaps" | "zeros"];

/** A raw disk with these parts, and holes between them. */
export function disk(name: string, length: number, parts: readonly DiskPart[]): Given {
  return {
    key: `disk ${name} ${length} ${JSON.stringify(parts)}`,
    make(dir) {
      using file = Deno.openSync(`${dir}/${name}`, { write: true, create: true });
      file.truncateSync(length);
      for (const [offset, size, what] of parts) {
        const random = new Random(offset + size);
        const bytes = what === "zeros"
          ? new Uint8Array(size)
          : what === "flat"
          ? new Uint8Array(size).fill(1 + random.below(255))
          : random.bytes(size, what === "mixed" ? 4 : 256);
        if (what === "gaps") {
          for (let at = 0; at < size;) {
            const data = 512 * random.pick([1, 2, 3, 8, 20, 64, 200]);
            const zeros = 512 * random.pick([1, 2, 7, 8, 9, 15, 16, 40, 128, 300]);
            bytes.fill(0, at + data, at + data + zeros);
            at += data + zeros;
          }
        }
        file.seekSync(offset, Deno.SeekMode.Start);
        for (let at = 0; at < size;) at += file.writeSync(bytes.subarray(at));
      }
    },
  };
}

/** Changes bytes of a file: big-endian numbers of 1, 2, 4 or 8 bytes at their offsets. */
export function patch(
  name: string,
  ...changes: readonly (readonly [offset: number, size: 1 | 2 | 4 | 8, value: number | bigint])[]
): Given {
  const shown = changes.map((change) => change.map(String));
  return {
    key: `patch ${name} ${JSON.stringify(shown)}`,
    make(dir) {
      using file = Deno.openSync(`${dir}/${name}`, { read: true, write: true });
      for (const [offset, size, value] of changes) {
        const bytes = new Uint8Array(8);
        new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
        file.seekSync(offset, Deno.SeekMode.Start);
        assert(file.writeSync(bytes.subarray(8 - size)) === size);
      }
    },
  };
}

/** Makes a file longer or shorter. */
export function truncate(name: string, length: number): Given {
  return {
    key: `truncate ${name} ${length}`,
    make: (dir) => Deno.truncate(`${dir}/${name}`, length),
  };
}

function wordsOf(line: string | readonly string[]): readonly string[] {
  return typeof line === "string" ? line.split(" ") : line;
}

const made = new Map<string, Promise<TempDir>>();

Deno.test.afterAll(async () => {
  for (const dir of await Promise.allSettled(made.values())) {
    // What could not be made has failed its test.
    if (dir.status === "fulfilled") await dir.value[Symbol.asyncDispose]();
  }
});

/** A folder with all that is given; made once. */
function madeFolder(given: readonly Given[]): Promise<TempDir> {
  const key = given.map((step) => step.key).join("\n");
  let folder = made.get(key);
  if (folder === undefined) {
    folder = makeFolder(given);
    made.set(key, folder);
  }
  return folder;
}

async function makeFolder(given: readonly Given[]): Promise<TempDir> {
  const dir = await tempDir();
  const last = given.at(-1);
  // What several cases have in common is made once for all of them.
  if (given.length > 1) await copyFolder(await madeFolder(given.slice(0, -1)), dir.path);
  await last?.make(dir.path);
  return dir;
}

async function copyFolder(from: TempDir, to: string): Promise<void> {
  // Unlike what Deno has, this keeps holes.
  const { success, stderr } = await new Deno.Command("cp", {
    args: ["-a", "--reflink=auto", `${from.path}/.`, to],
  }).output();
  assert(success, new TextDecoder().decode(stderr));
}

/** Registers a test: both tools do the same. */
export function same(name: string, { given = [], run, prepare, ...options }: Case): void {
  Deno.test({
    name,
    ignore: reference.ignore,
    async fn() {
      const source = await madeFolder(given);
      await assertSame(wordsOf(run), {
        ...options,
        async setup(dir) {
          await copyFolder(source, dir);
          await prepare?.(dir);
        },
      });
    },
  });
}

/** Registers a test for each command line, all with the same given. */
export function sameForEach(
  about: string,
  lines: readonly string[],
  options: Omit<Case, "run"> = {},
): void {
  for (const run of lines) same(`${about}: ${run}`, { ...options, run });
}
