/** VHDX images in memory: made by the driver, or by hand from the specification. */
import { vhdx } from "../../../drivers/vhdx/driver.ts";
import { CREATE_OPTIONS } from "../../../drivers/vhdx/options.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { crc32c } from "../../../lib/bytes/crc32c.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";

/** Bytes of a MiB. */
export const MIB = 1 << 20;

/** Makes an image through the driver and answers with its file, open again. */
export async function create(options: Readonly<Record<string, string>>): Promise<MemoryNode> {
  const file = new MemoryNode({ filename: "test.vhdx" });
  await vhdx.create!({
    filename: "test.vhdx",
    options: new OptionSet(CREATE_OPTIONS, Object.entries(options)),
    createBase: () => Promise.resolve(file),
    context: context({ writable: true }),
  });
  return file.copy();
}

/** Opens an image through the driver. Disposing of the node closes `file`. */
export async function open(
  file: BlockNode,
  mode: Partial<OpenMode> = {},
  options: { readonly untrusted?: boolean } = {},
): Promise<BlockNode> {
  return await vhdx.open(file, new OptionSet([]), context(mode, options));
}

/** The whole disk. */
export async function contentOf(node: BlockNode): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return bytes;
}

/** Bytes put together from little-endian numbers, texts and other bytes, at their offsets. */
export function pieces(
  length: number,
  ...parts: readonly (
    | readonly [offset: number, size: 1 | 2 | 4 | 8, value: number | bigint]
    | readonly [
      offset: number,
      content: string | Uint8Array,
    ]
  )[]
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (const part of parts) {
    if (part.length === 2) {
      const [offset, content] = part;
      bytes.set(typeof content === "string" ? new TextEncoder().encode(content) : content, offset);
      continue;
    }
    const [offset, size, value] = part;
    for (let i = 0, rest = BigInt(value); i < size; i++, rest >>= 8n) {
      bytes[offset + i] = Number(rest & 0xffn);
    }
  }
  return bytes;
}

/** Sets the checksum in the second four bytes. */
export function summed(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer);
  view.setUint32(4, 0, true);
  view.setUint32(4, crc32c(bytes), true);
  return bytes;
}

/** The bytes of hexadecimal digits. */
export function hex(digits: string): Uint8Array {
  return Uint8Array.fromHex(digits.replaceAll(" ", ""));
}

/** GUIDs of hand-made images: 16 times the same byte. */
export function guid(byte: number): Uint8Array {
  return new Uint8Array(16).fill(byte);
}

/** The text of such a GUID. */
export function guidText(byte: number): string {
  const two = byte.toString(16).padStart(2, "0");
  return `{${[4, 2, 2, 2, 6].map((count) => two.repeat(count)).join("-")}}`;
}

/** What a parent locator says, in its order. */
export type Locator = readonly (readonly [key: string, value: string])[];

/** An image by hand. All in bytes. */
export interface HandMade {
  /** Bytes of the disk. */
  readonly length: number;
  /** Bytes of a block, default 1 MiB. */
  readonly blockSize?: number;
  /** Bytes of a logical sector, default 512. */
  readonly sectorSize?: number;
  /** Bits of the file parameters. */
  readonly bits?: number;
  /** The parent. */
  readonly locator?: Locator;
  /** Entries of the table, by index: state, offset. */
  readonly entries?: readonly (readonly [index: number, state: number, offset: number])[];
  /** What lies anywhere in the file. */
  readonly data?: readonly (readonly [offset: number, bytes: Uint8Array])[];
  /** GUID of the log's entries that count. */
  readonly logGuid?: Uint8Array;
  /** GUID of the data. */
  readonly dataGuid?: Uint8Array;
  /** Bytes of the file, default to the end of what is in it. */
  readonly fileLength?: number;
  /** Bytes of the log, default 1 MiB. */
  readonly logLength?: number;
}

/** Where a hand-made image has its parts. */
export const AT = {
  log: MIB,
  metadata: 3 * MIB,
  /** The table of blocks. */
  table: 4 * MIB,
  /** The first place for a block. */
  data: 6 * MIB,
} as const;

const GUIDS = {
  table: hex("6677c22d 23f60042 9d64115e 9bfd4a08"),
  metadata: hex("06a27c8b 90479a4b b8fe575f 050f886e"),
  parameters: hex("3767a1ca 36fa434d b3b633f0 aa44e76b"),
  size: hex("2442a52f 1bcd7648 b2115dbe d83bf4b8"),
  page83: hex("ab12cabe e6b22345 93efc309 e000c746"),
  logicalSector: hex("1dbf4181 6fa90947 ba47f233 a8faab5f"),
  physicalSector: hex("c748a3cd 5d447144 9cc9e988 5251c556"),
  locator: hex("2d5fd3a8 0bb34d45 abf7d3d8 4834ab0c"),
  vhdxParent: hex("b7ef4ab0 9ed1814a b78925b8 e9445913"),
};

/** Makes an image as Hyper-V does: with other orders and places than the reference. */
export async function handMade(image: HandMade): Promise<MemoryNode> {
  const file = new MemoryNode({ filename: "test.vhdx" });
  const put = (at: number, bytes: Uint8Array) => file.write(at, bytes);
  await put(0, pieces(16, [0, "vhdxfile"]));
  for (const [i, at] of [0x10000, 0x20000].entries()) {
    await put(
      at,
      summed(pieces(
        4096,
        [0, "head"],
        [8, 8, 41 + i],
        [16, guid(1)],
        [32, image.dataGuid ?? guid(2)],
        [48, image.logGuid ?? guid(0)],
        [66, 2, 1],
        [68, 4, image.logLength ?? MIB],
        [72, 8, AT.log],
      )),
    );
  }
  const regions = summed(pieces(
    0x10000,
    [0, "regi"],
    [8, 4, 2],
    [16, GUIDS.metadata],
    [32, 8, AT.metadata],
    [40, 4, MIB],
    [44, 4, 1],
    [48, GUIDS.table],
    [64, 8, AT.table],
    [72, 4, 2 * MIB],
    [76, 4, 1],
  ));
  await put(0x30000, regions);
  await put(0x40000, regions);
  await put(AT.metadata, metadataOf(image));
  for (const [index, state, offset] of image.entries ?? []) {
    await put(AT.table + index * 8, pieces(8, [0, 8, BigInt(offset) | BigInt(state)]));
  }
  if (file.length < AT.data) await file.resize(AT.data, "off");
  for (const [offset, bytes] of image.data ?? []) await put(offset, bytes);
  if (image.fileLength !== undefined) await file.resize(image.fileLength, "off");
  else await file.resize(Math.ceil(file.length / MIB) * MIB, "off");
  return file;
}

function metadataOf(image: HandMade): Uint8Array {
  const { locator, blockSize = MIB, sectorSize = 512 } = image;
  const { bits = locator === undefined ? 0 : 2 } = image;
  const items: [guid: Uint8Array, flags: number, bytes: Uint8Array][] = [
    [GUIDS.physicalSector, 6, pieces(4, [0, 4, 4096])],
    [GUIDS.size, 6, pieces(8, [0, 8, image.length])],
    [GUIDS.page83, 6, guid(7)],
    [GUIDS.logicalSector, 6, pieces(4, [0, 4, sectorSize])],
    [GUIDS.parameters, 4, pieces(8, [0, 4, blockSize], [4, 4, bits])],
  ];
  if (locator !== undefined) items.push([GUIDS.locator, 4, locatorBytes(locator)]);
  let at = 0x10000;
  const parts: [number, Uint8Array][] = [];
  const table: [number, 1 | 2 | 4 | 8, number][] = [];
  for (const [i, [id, flags, bytes]] of items.entries()) {
    const entry = 32 + i * 32;
    parts.push([entry, id], [at, bytes]);
    table.push([entry + 16, 4, at], [entry + 20, 4, bytes.length], [entry + 24, 4, flags]);
    at += bytes.length;
  }
  return pieces(at, [0, "metadata"], [10, 2, items.length], ...parts, ...table);
}

function utf16(text: string): Uint8Array {
  return pieces(
    text.length * 2,
    ...Array.from(text, (_, i) => [i * 2, 2, text.charCodeAt(i)] as const),
  );
}

function locatorBytes(locator: Locator): Uint8Array {
  let at = 20 + locator.length * 12;
  const parts: [number, Uint8Array][] = [];
  const table: [number, 1 | 2 | 4 | 8, number][] = [];
  for (const [i, texts] of locator.entries()) {
    for (const [j, text] of texts.entries()) {
      const bytes = utf16(text);
      parts.push([at, bytes]);
      table.push([20 + i * 12 + j * 4, 4, at], [28 + i * 12 + j * 2, 2, bytes.length]);
      at += bytes.length;
    }
  }
  return pieces(at, [0, GUIDS.vhdxParent], [18, 2, locator.length], ...parts, ...table);
}

/** What an entry of the log does. */
export type LogStep =
  | { readonly at: number; readonly bytes: Uint8Array }
  | { readonly at: number; readonly zeros: number };

/** An entry of the log by hand. */
export interface HandMadeEntry {
  /** Its number. */
  readonly sequence: number;
  /** Where in the log the entry begins with which a replay begins. */
  readonly tail: number;
  /** Its GUID, default that of `guid(5)`. */
  readonly guid?: Uint8Array;
  /** What it does, sectors of 4096 bytes. */
  readonly steps: readonly LogStep[];
  /** The file is so long at least, default 6 MiB. */
  readonly flushed?: number;
  /** The file has to be so long, default 6 MiB. */
  readonly last?: number;
}

/** The bytes of an entry. */
export function logEntry(entry: HandMadeEntry): Uint8Array<ArrayBuffer> {
  const { sequence, tail, steps, guid: id = guid(5), flushed = AT.data, last = AT.data } = entry;
  const head = Math.ceil((steps.length + 2) / 128) * 4096;
  const sectors = steps.filter((step) => "bytes" in step).length;
  const length = head + sectors * 4096;
  const parts: (readonly [number, string | Uint8Array])[] = [];
  const numbers: (readonly [number, 1 | 2 | 4 | 8, number | bigint])[] = [];
  let data = head;
  for (const [i, step] of steps.entries()) {
    const at = 64 + i * 32;
    numbers.push([at + 16, 8, step.at], [at + 24, 8, sequence]);
    if ("zeros" in step) {
      parts.push([at, "zero"]);
      numbers.push([at + 8, 8, step.zeros]);
      continue;
    }
    const { bytes } = step;
    parts.push(
      [at, "desc"],
      [at + 4, bytes.subarray(4092)],
      [at + 8, bytes.subarray(0, 8)],
      [data, "data"],
      [data + 8, bytes.subarray(8, 4092)],
    );
    numbers.push([data + 4, 4, Math.floor(sequence / 2 ** 32)], [data + 4092, 4, sequence >>> 0]);
    data += 4096;
  }
  return summed(pieces(
    length,
    [0, "loge"],
    [8, 4, length],
    [12, 4, tail],
    [16, 8, sequence],
    [24, 4, steps.length],
    [32, id],
    [48, 8, flushed],
    [56, 8, last],
    ...parts,
    ...numbers,
  ));
}

/** Where entries that follow one another in a log are in its file, around the end if need be. */
export function inLog(
  entries: readonly (readonly [position: number, bytes: Uint8Array])[],
  logLength: number = MIB,
): (readonly [number, Uint8Array])[] {
  return entries.flatMap(([position, bytes]) => {
    const first = Math.min(bytes.length, logLength - position);
    return [
      [AT.log + position, bytes.subarray(0, first)] as const,
      ...(first < bytes.length ? [[AT.log, bytes.subarray(first)] as const] : []),
    ];
  });
}

/** 4096 bytes that nothing else is equal to. */
export function sector(seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: 4096 }, (_, at) => seed * 37 + at * 7 + (at >> 8) & 0xff);
}
