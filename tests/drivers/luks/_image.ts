/** LUKS images in memory, with keys and salts that come again and few iterations. */
import { luks } from "../../../drivers/luks/driver.ts";
import type { DriverContext } from "../../../lib/block/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { type OpenMode, READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { bytesOf, smallVolume } from "../../crypto/_luks.ts";
import { MemoryNode } from "../../_memory_node.ts";

/** Where the disk begins in images with keys of 16 bytes. */
export const PAYLOAD = 528384;

const SECRETS: Readonly<Record<string, string>> = { s: "123456", t: "another" };

/** Made once; nobody writes to it. */
let volume: ReturnType<typeof smallVolume> | undefined;

/** The bytes of an image with an AES-128 key, whose disk of `length` bytes was never written to. */
export async function imageBytes(length: number): Promise<Uint8Array<ArrayBuffer>> {
  const { store } = await (volume ??= smallVolume());
  const bytes = new Uint8Array(PAYLOAD + length);
  bytes.set(store.bytes.subarray(0, PAYLOAD));
  return bytes;
}

/** How an image is opened. */
export interface OpenedAs {
  /** The secret's id, `undefined` for none. */
  readonly secret?: string | undefined;
  /** The file with the header, if that is not `file`. */
  readonly header?: BlockNode;
  /** Believe nothing. */
  readonly untrusted?: boolean;
}

/** Opens an image through the driver; disposing of the node closes its files. */
export async function open(
  file: BlockNode,
  mode: Partial<OpenMode> = {},
  { secret, header, untrusted = false }: OpenedAs = { secret: "s" },
): Promise<BlockNode> {
  const pairs = secret === undefined ? [] : [["key-secret", secret] as const];
  return await luks.open(file, new OptionSet(luks.openOptions, pairs), {
    ...contextOf(mode),
    untrusted,
    ...(header === undefined ? {} : { openChild: () => Promise.resolve(header) }),
  });
}

/** Makes an image through the driver. */
export async function create(options: Readonly<Record<string, string>>): Promise<MemoryNode> {
  const file = new MemoryNode();
  const specs = [...luks.createOptions!, {
    name: "preallocation",
    type: "str" as const,
    help: "as files have it",
  }];
  await luks.create!({
    filename: "test.luks",
    options: new OptionSet(specs, Object.entries(options)),
    createBase: () => Promise.resolve(file),
    context: contextOf({ writable: true }),
  });
  return file.copy();
}

function contextOf(mode: Partial<OpenMode>): DriverContext {
  return {
    filename: "test.luks",
    mode: { ...READ_ONLY, ...mode },
    untrusted: false,
    secret: (id) => {
      const text = SECRETS[id];
      if (text === undefined) throw new ImageError(`No secret with id '${id}'`);
      return bytesOf(text);
    },
    report() {},
    warn() {},
    openFile: () => Promise.reject(new Error("nothing names a file")),
    createFile: () => Promise.reject(new Error("nothing makes a file")),
  };
}

/** Options of `amend`. */
export function amendOptions(options: Readonly<Record<string, string>>): OptionSet {
  return new OptionSet(luks.amendOptions!, Object.entries(options));
}
