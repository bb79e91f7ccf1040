/** qcow images in memory, without the command line and without files. */
import { assert, assertEquals } from "@std/assert";
import { qcow } from "../../../drivers/qcow/driver.ts";
import type { DriverContext } from "../../../lib/block/driver.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { viewOf } from "../../../lib/bytes/endian.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";

/** Bytes of a cluster of images without a backing file. */
export const CLUSTER = 4096;

const KEY = "encrypt.key-secret";

/** How images are opened, with two secrets: `s` and `other`. */
export function secretly(options: Parameters<typeof context>[0], untrusted = false): DriverContext {
  return context(options, { untrusted, secrets: { s: "123456", other: "654321" } });
}

/** Makes an image of 1 MiB unless told otherwise, and answers with its file, open again. */
export async function create(options: Readonly<Record<string, string>> = {}): Promise<MemoryNode> {
  const file = new MemoryNode({ filename: "test.qcow" });
  await qcow.create!({
    filename: "test.qcow",
    options: new OptionSet(qcow.createOptions!, Object.entries({ size: "1M", ...options })),
    createBase: () => Promise.resolve(file),
    context: secretly({ writable: true }),
  });
  return file.copy();
}

/** Makes an encrypted image. */
export function createEncrypted(
  options: Readonly<Record<string, string>> = {},
): Promise<MemoryNode> {
  return create({ "encrypt.format": "aes", [KEY]: "s", ...options });
}

/** How {@linkcode open} opens. */
export interface Opening {
  /** What is behind the image. */
  readonly backing?: BlockNode | undefined;
  /** Default: to write to it. */
  readonly using?: DriverContext;
  /** Which secret holds the key. */
  readonly secret?: string;
}

/** Opens an image. Disposing of the node closes it and what is behind it. */
export async function open(
  file: MemoryNode,
  { backing, using = secretly({ writable: true }), secret }: Opening = {},
): Promise<BlockNode> {
  const options = new OptionSet(qcow.openOptions, secret === undefined ? [] : [[KEY, secret]]);
  const node = await qcow.open(file, options, using);
  node.backing!.attach(backing ?? null);
  return node;
}

/** What an image made by hand consists of. */
export interface Layout {
  /** Bytes of the disk. */
  readonly size: number | bigint;
  /** log2 of the bytes of a cluster, default 12. */
  readonly clusterBits?: number;
  /** log2 of the entries of an L2 table, default 9. */
  readonly l2Bits?: number;
  /** Where the L1 table lies, default 48. */
  readonly l1Offset?: number | bigint;
  /** The name of the backing file, as bytes at 512. */
  readonly backing?: Uint8Array;
  /** 64-bit words by their offsets: entries of tables. */
  readonly words?: Readonly<Record<number, number | bigint>>;
  /** Other bytes by their offsets. */
  readonly bytes?: Readonly<Record<number, Uint8Array>>;
  /** Length of the file. */
  readonly length: number;
}

/** An image made byte by byte as section 1 of the format's reference says. */
export function handMade(layout: Layout): MemoryNode {
  const bytes = new Uint8Array(layout.length);
  const view = viewOf(bytes);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, 1);
  if (layout.backing !== undefined) {
    view.setBigUint64(8, 512n);
    view.setUint32(16, layout.backing.length);
    bytes.set(layout.backing, 512);
  }
  view.setBigUint64(24, BigInt(layout.size));
  view.setUint8(32, layout.clusterBits ?? 12);
  view.setUint8(33, layout.l2Bits ?? 9);
  view.setBigUint64(40, BigInt(layout.l1Offset ?? 48));
  for (const [at, word] of Object.entries(layout.words ?? {})) {
    view.setBigUint64(Number(at), BigInt(word));
  }
  for (const [at, data] of Object.entries(layout.bytes ?? {})) bytes.set(data, Number(at));
  return new MemoryNode({ filename: "test.qcow", bytes });
}

/** A 64-bit field of an image. */
export function field(file: MemoryNode, at: number): bigint {
  return viewOf(file.slice(at, 8)).getBigUint64(0);
}

/** `length` bytes of one value. */
export function filled(length: number, value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).fill(value);
}

/** Reads a part of a disk. */
export async function readOf(node: BlockNode, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await node.read(offset, bytes);
  return bytes;
}

/**
 * Asserts that no two structures of an image lie in one place, and that all entries can be right.
 *
 * @returns the bytes of the file that something leads to.
 */
export function assertSound(file: MemoryNode): number {
  const header = viewOf(file.slice(0, 48));
  const clusterBits = header.getUint8(32);
  const [cluster, tableSize] = [2 ** clusterBits, 8 * 2 ** header.getUint8(33)];
  const l1Offset = Number(header.getBigUint64(40));
  const l1Size = Math.ceil(Number(header.getBigUint64(24)) / (cluster * tableSize / 8)) * 8;
  const used: { from: number; to: number; what: string }[] = [
    { from: 0, to: l1Offset + l1Size, what: "header and L1 table" },
  ];
  const words = function* (at: number, length: number) {
    const view = viewOf(file.slice(at, length));
    for (let i = 0; i < length; i += 8) yield view.getBigUint64(i);
  };
  for (const table of words(l1Offset, l1Size)) {
    if (table === 0n) continue;
    const from = Number(table);
    used.push({ from, to: from + tableSize, what: "L2 table" });
    for (const entry of words(from, tableSize)) {
      if (entry === 0n) continue;
      const place = entry & (1n << BigInt(63 - clusterBits)) - 1n;
      const length = entry >> BigInt(63 - clusterBits) & BigInt(cluster - 1);
      if (entry >> 63n === 1n) {
        used.push({ from: Number(place), to: Number(place + length), what: "stream" });
      } else {
        assertEquals(entry % BigInt(cluster), 0n, `entry ${entry.toString(16)}`);
        used.push({ from: Number(entry), to: Number(entry) + cluster, what: "cluster" });
      }
    }
  }
  used.sort((a, b) => a.from - b.from);
  for (const [i, one] of used.entries()) {
    const next = used[i + 1];
    assert(
      next === undefined || one.to <= next.from,
      `${one.what} at ${one.from}, ${next?.what} at ${next?.from}`,
    );
  }
  return used.reduce((sum, { from, to }) => sum + to - from, 0);
}
