/** VMDKs in memory: made by the driver, or by hand from the specifications. */
import { assertEquals } from "@std/assert";
import { deflateSync } from "node:zlib";
import { vmdk } from "../../../drivers/vmdk/driver.ts";
import { CREATE_OPTIONS } from "../../../drivers/vmdk/options.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";

/** Bytes of a sector. */
export const SECTOR = 512;
/** Bytes of a grain of images that the driver makes. */
export const GRAIN = 65536;
/** The folder of images in memory: the names of extents are relative to it. */
export const FOLDER = "./";
/** The name of the image in memory. */
export const NAME = `${FOLDER}test.vmdk`;

/** The files of an image, by name: the image is {@linkcode NAME}. */
export type Files = Map<string, MemoryNode>;

/** Makes an image and answers with its files. */
export async function create(options: Readonly<Record<string, string>>): Promise<Files> {
  const files: Files = new Map();
  const file = new MemoryNode({ filename: NAME });
  await vmdk.create!({
    filename: NAME,
    options: new OptionSet(CREATE_OPTIONS, Object.entries(options)),
    createBase: () => Promise.resolve(file),
    context: context({ writable: true }, { files }),
  });
  return copyOf(new Map([[NAME, file], ...files]));
}

/** The same files once more, open. */
export function copyOf(files: Files): Files {
  return new Map(Array.from(files, ([name, file]) => [name, file.copy()]));
}

/** Opens an image through the driver. Disposing of the node closes the files. */
export async function open(
  files: Files,
  mode: Partial<OpenMode> = {},
  backing?: BlockNode,
): Promise<BlockNode> {
  const using = context(mode, { files });
  const node = await vmdk.open(files.get(NAME)!, new OptionSet([]), using);
  if (backing !== undefined) node.backing!.attach(backing);
  return node;
}

/** The whole disk. */
export async function contentOf(node: BlockNode): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return bytes;
}

/** Asserts that bytes are equal, without words for each that is not. */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, message?: string): void {
  assertEquals(actual.length, expected.length, message);
  let at = 0;
  while (at < actual.length && actual[at] === expected[at]) at++;
  assertEquals(at, actual.length, `${message ?? "bytes"}: first difference`);
}

/** States, as `map` would show them. */
export async function statesOf(node: BlockNode): Promise<[number, string][]> {
  const states: [number, string][] = [];
  for (let at = 0; at < node.length;) {
    const { state, length, compressed } = await node.extent(at, node.length - at);
    const what = compressed ? "compressed" : state;
    const last = states.at(-1);
    if (last?.[1] === what) last[0] += length;
    else states.push([length, what]);
    at += length;
  }
  return states;
}

/** A file of pieces at their offsets: bytes, or text. */
export function fileOf(
  length: number,
  pieces: readonly (readonly [offset: number, content: Uint8Array | string])[],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (const [offset, content] of pieces) {
    bytes.set(typeof content === "string" ? new TextEncoder().encode(content) : content, offset);
  }
  return bytes;
}

/** Little-endian words. */
export function u32(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setUint32(i * 4, value, true);
  return bytes;
}

/** Little-endian double words. */
export function u64(...values: readonly (bigint | number)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setBigUint64(i * 8, BigInt(value), true);
  return bytes;
}

/** A descriptor that stands alone. */
export function descriptor(createType: string, ...extents: readonly string[]): string {
  return [
    "# Disk DescriptorFile",
    "version=1",
    "CID=12345678",
    "parentCID=ffffffff",
    `createType="${createType}"`,
    "# Extent description",
    ...extents,
    "",
  ].join("\n");
}

/** The content of the hand-made disks: byte `at` of a grain that was filled with `seed`. */
export function pattern(seed: number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, at) => seed + at * 7 + (at >> 8) & 0xff);
}

/**
 * A redo log of ESX for 40 MiB in grains of a sector: a grain in the first table, two in the last, and
 * directory entries between them that name none.
 */
export function cowd(): Uint8Array<ArrayBuffer> {
  const capacity = 40 * 2048;
  const header = new Uint8Array(4 * SECTOR);
  header.set(new TextEncoder().encode("COWD"));
  // Version, flags, sectors, grain, directory's sector and entries, next free sector.
  header.set(u32(1, 3, capacity, 1, 4, 20, 74), 4);
  return fileOf(75 * SECTOR, [
    [0, header],
    [4 * SECTOR, u32(5)],
    [4 * SECTOR + 19 * 4, u32(37)],
    [5 * SECTOR + 2 * 4, u32(69)],
    [37 * SECTOR, u32(70)],
    [37 * SECTOR + 4095 * 4, u32(71)],
    [69 * SECTOR, pattern(1, SECTOR)],
    [70 * SECTOR, pattern(2, SECTOR)],
    [71 * SECTOR, pattern(3, SECTOR)],
  ]);
}

/** What a disk of {@linkcode cowd} holds. */
export function cowdContent(): Uint8Array<ArrayBuffer> {
  const table = 4096 * SECTOR;
  return fileOf(20 * table, [
    [2 * SECTOR, pattern(1, SECTOR)],
    [19 * table, pattern(2, SECTOR)],
    [20 * table - SECTOR, pattern(3, SECTOR)],
  ]);
}

/** A space-efficient snapshot of ESX for 48 MiB: grains of all four kinds in two of its three tables. */
export function seSparse(): Uint8Array<ArrayBuffer> {
  const capacity = 3 * 4096 * 8;
  const [volatileAt, directoryAt, tablesAt, grainsAt] = [1, 2, 3, 3 + 2 * 64];
  const allocated = (index: number) =>
    3n << 60n | BigInt(index & 0xfff) << 48n | BigInt(index) >> 12n;
  return fileOf((grainsAt + 8 * 8) * SECTOR, [
    [0, u64(0xcafebabe, 0x2_0000_0001n, capacity, 8, 64, 0, 0, 0, 0, 0)],
    [80, u64(volatileAt, 1, 0, 0, 0, 0, directoryAt, 1, tablesAt, 128, 0, 0, 0, 0, grainsAt, 64)],
    [volatileAt * SECTOR, u64(0xcafecafe)],
    [directoryAt * SECTOR, u64(1n << 60n, 0, 1n << 60n | 1n)],
    [tablesAt * SECTOR, u64(allocated(2), 0, 1n << 60n, 2n << 60n, allocated(0))],
    [(tablesAt + 64) * SECTOR + 4095 * 8, u64(allocated(7))],
    [grainsAt * SECTOR, pattern(9, 4096)],
    [(grainsAt + 16) * SECTOR, pattern(5, 4096)],
    [(grainsAt + 56) * SECTOR, pattern(6, 4096)],
  ]);
}

/** What a disk of {@linkcode seSparse} holds. */
export function seSparseContent(): Uint8Array<ArrayBuffer> {
  const table = 4096 * 4096;
  return fileOf(3 * table, [
    [0, pattern(5, 4096)],
    [4 * 4096, pattern(9, 4096)],
    [3 * table - 4096, pattern(6, 4096)],
  ]);
}

/** Header fields of a hosted sparse extent, as they are on disk. */
export interface HostedFields {
  readonly version?: number;
  readonly flags?: number;
  readonly capacity?: number | bigint;
  readonly grain?: number | bigint;
  readonly descriptorAt?: number | bigint;
  readonly tableEntries?: number;
  readonly redundantAt?: number | bigint;
  readonly directoryAt?: number | bigint;
  readonly overhead?: number | bigint;
  readonly compression?: number;
}

/** The sector of a header of a hosted sparse extent. */
export function hostedHeader(fields: HostedFields): Uint8Array<ArrayBuffer> {
  const header = fileOf(SECTOR, [
    [0, "KDMV"],
    [4, u32(fields.version ?? 1, fields.flags ?? 1)],
    [12, u64(fields.capacity ?? 2048, fields.grain ?? 128, fields.descriptorAt ?? 1, 20)],
    [44, u32(fields.tableEntries ?? 512)],
    [48, u64(fields.redundantAt ?? 0, fields.directoryAt ?? 21, fields.overhead ?? 22)],
    [73, "\n \r\n"],
  ]);
  header[77] = fields.compression ?? 0;
  return header;
}

/** A marker sector of a stream: how many sectors follow, and of what kind they are. */
export function marker(sectors: number, type: number): Uint8Array<ArrayBuffer> {
  return fileOf(SECTOR, [[0, u64(sectors)], [12, u32(type)]]);
}

const STREAM = { version: 3, flags: 0x30001, compression: 1, capacity: 2048 * 16 } as const;

/**
 * A stream as VMware's own tools write it: a short descriptor, grains, a table behind the grains that it
 * leads to, directory, footer, end. The disk has 16 MiB; grains 0, 5 and 255 are stored.
 */
export function stream(): Uint8Array<ArrayBuffer> {
  const sectors: Uint8Array[] = [];
  let at = 128;
  const add = (bytes: Uint8Array): number => {
    const here = at;
    const padded = new Uint8Array(Math.ceil(bytes.length / SECTOR) * SECTOR);
    padded.set(bytes);
    sectors.push(padded);
    at += padded.length / SECTOR;
    return here;
  };
  const table = new Uint8Array(4 * SECTOR);
  for (const [seed, grain] of [[1, 0], [2, 5], [3, 255]] as const) {
    const packed = deflateSync(pattern(seed, GRAIN));
    const place = add(fileOf(12 + packed.length, [
      [0, u64(grain * 128)],
      [8, u32(packed.length)],
      [12, packed],
    ]));
    table.set(u32(place), grain * 4);
  }
  add(marker(4, 1));
  const tableAt = add(table);
  add(marker(1, 2));
  const directoryAt = add(fileOf(SECTOR, [[0, u32(tableAt)]]));
  add(marker(1, 3));
  add(hostedHeader({ ...STREAM, directoryAt, overhead: 128 }));
  add(marker(0, 0));
  const text = descriptor("streamOptimized", 'RDONLY 32768 SPARSE "call-me-stream.vmdk"');
  return fileOf(at * SECTOR, [
    [0, hostedHeader({ ...STREAM, directoryAt: 2n ** 64n - 1n, overhead: 128 })],
    [SECTOR, text.padEnd(SECTOR, " ")],
    ...sectorsFrom(128, sectors),
  ]);
}

function* sectorsFrom(
  first: number,
  pieces: readonly Uint8Array[],
): Generator<readonly [number, Uint8Array]> {
  let at = first * SECTOR;
  for (const piece of pieces) {
    yield [at, piece];
    at += piece.length;
  }
}

/** What a disk of {@linkcode stream} holds. */
export function streamContent(): Uint8Array<ArrayBuffer> {
  return fileOf(256 * GRAIN, [
    [0, pattern(1, GRAIN)],
    [5 * GRAIN, pattern(2, GRAIN)],
    [255 * GRAIN, pattern(3, GRAIN)],
  ]);
}
