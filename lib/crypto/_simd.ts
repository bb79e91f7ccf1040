/**
 * The loops of the sector ciphers that are too slow in JavaScript, as a
 * WebAssembly module of two functions over a memory of its own.
 *
 * Measured over 128 KiB: `xor` is ten times as fast as a loop over an
 * `Int32Array`, `mask` four times; copying in and out costs a twentieth of what
 * that gains.
 *
 * @module
 */

/** Bytes that are worked on at a time: input, masks and the cipher's output fit into a second-level cache. */
export const CHUNK = 128 << 10;

/** Bytes of a sector. */
export const SECTOR = 512;

/** Working memory with the two loops. One set serves a thread: nothing in here outlives a call. */
export interface Workspace {
  /** `CHUNK` bytes to work on. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** As many bytes of masks. */
  readonly masks: Uint8Array<ArrayBuffer>;
  /** First masks of the sectors in `data`, 16 bytes each. */
  readonly seeds: Uint8Array<ArrayBuffer>;
  /** Sets the first `bytes` (a multiple of 16) of `data` to their exclusive or with `masks`. */
  xor(bytes: number): void;
  /**
   * Writes the masks of XTS for the first `bytes` (whole sectors) of `data`, which
   * become their exclusive or with them: a sector's first mask is its seed, each
   * other one its predecessor doubled in GF(2^128).
   */
  mask(bytes: number): void;
}

let workspace: Workspace | undefined;

/** The thread's working memory. */
export function sharedWorkspace(): Workspace {
  return workspace ??= createWorkspace();
}

function createWorkspace(): Workspace {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes()));
  const { memory, xor, mask } = instance.exports as {
    memory: WebAssembly.Memory;
    xor(bytes: number): void;
    mask(bytes: number): void;
  };
  const part = (offset: number, length: number) =>
    new Uint8Array(memory.buffer as ArrayBuffer, offset, length);
  return {
    data: part(0, CHUNK),
    masks: part(CHUNK, CHUNK),
    seeds: part(2 * CHUNK, CHUNK / SECTOR * 16),
    xor,
    mask,
  };
}

const I32 = 0x7f;
const I64 = 0x7e;
const EMPTY = 0x40;

const get = (local: number) => [0x20, local];
const set = (local: number) => [0x21, local];
const tee = (local: number) => [0x22, local];
const i32 = (value: number) => [0x41, ...signed(value)];
const i64 = (value: number) => [0x42, ...signed(value)];
const load64 = (offset: number) => [0x29, 3, ...unsigned(offset)];
const load128 = (offset: number) => [0xfd, 0x00, 4, ...unsigned(offset)];
const store128 = (offset: number) => [0xfd, 0x0b, 4, ...unsigned(offset)];
const XOR128 = [0xfd, 0x51];
const SPLAT64 = [0xfd, 0x12];
const REPLACE_HIGH = [0xfd, 0x1e, 1];
const ADD = 0x6a;
const LESS = 0x49;
const [AND64, OR64, XOR64, SHL64, SHR64_S, SHR64_U] = [0x83, 0x84, 0x85, 0x86, 0x87, 0x88];
const loop = (...body: number[]) => [0x03, EMPTY, ...body, 0x0b];
/** Begins a loop anew while a local is below another. */
const whileBelow = (local: number, end: number) => [...get(local), ...get(end), LESS, 0x0d, 0];

/** `xor(bytes)`: local 1 is the place. */
function xorCode(): number[] {
  const [bytes, at] = [0, 1];
  return [
    ...loop(
      ...get(at),
      ...get(at),
      ...load128(0),
      ...get(at),
      ...load128(CHUNK),
      ...XOR128,
      ...store128(0),
      ...get(at),
      ...i32(16),
      ADD,
      ...set(at),
      ...whileBelow(at, bytes),
    ),
  ];
}

/** `mask(bytes)`: place, end of the sector, place of its seed, and the mask's halves. */
function maskCode(): number[] {
  const [bytes, at, end, seed, low, high] = [0, 1, 2, 3, 4, 5];
  return [
    ...loop(
      ...get(seed),
      ...load64(2 * CHUNK),
      ...set(low),
      ...get(seed),
      ...load64(2 * CHUNK + 8),
      ...set(high),
      ...get(seed),
      ...i32(16),
      ADD,
      ...set(seed),
      ...get(at),
      ...i32(SECTOR),
      ADD,
      ...set(end),
      ...loop(
        // masks[at] = (high, low); data[at] ^= masks[at]
        ...get(at),
        ...get(at),
        ...get(low),
        ...SPLAT64,
        ...get(high),
        ...REPLACE_HIGH,
        ...store128(CHUNK),
        ...get(at),
        ...load128(0),
        ...get(at),
        ...load128(CHUNK),
        ...XOR128,
        ...store128(0),
        // What high loses at the top comes back as the polynomial's 0x87 in low.
        ...get(high),
        ...i64(63),
        SHR64_S,
        ...i64(0x87),
        AND64,
        ...get(high),
        ...i64(1),
        SHL64,
        ...get(low),
        ...i64(63),
        SHR64_U,
        OR64,
        ...set(high),
        ...get(low),
        ...i64(1),
        SHL64,
        XOR64,
        ...set(low),
        ...get(at),
        ...i32(16),
        ADD,
        ...tee(at),
        ...get(end),
        LESS,
        0x0d,
        0,
      ),
      ...whileBelow(at, bytes),
    ),
  ];
}

/** The module: two functions of one type, a memory, and the exports of all three. */
function moduleBytes(): Uint8Array<ArrayBuffer> {
  const pages = Math.ceil((2 * CHUNK + CHUNK / SECTOR * 16) / 65536);
  const body = (locals: number[], code: number[]) => sized([...locals, ...code, 0x0b]);
  const name = (text: string) => sized([...new TextEncoder().encode(text)]);
  const section = (id: number, content: number[]) => [id, ...sized(content)];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 1, I32, 0]),
    ...section(3, [2, 0, 0]),
    ...section(5, [1, 0, ...unsigned(pages)]),
    ...section(7, [3, ...name("memory"), 2, 0, ...name("xor"), 0, 0, ...name("mask"), 0, 1]),
    ...section(10, [2, ...body([1, 1, I32], xorCode()), ...body([2, 3, I32, 2, I64], maskCode())]),
  ]);
}

function sized(bytes: number[]): number[] {
  return [...unsigned(bytes.length), ...bytes];
}

/** LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push(value & 0x7f | 0x80);
  return [...bytes, value];
}

/** Signed LEB128 of a value from 0 on: the top bit of the last byte is the sign. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x3f; value >>>= 7) bytes.push(value & 0x7f | 0x80);
  return [...bytes, value];
}
