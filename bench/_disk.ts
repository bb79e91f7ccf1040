/**
 * Disk images to show and measure with: made here, nothing is downloaded.
 */

import { crc32 } from "node:zlib";

const SECTOR = 512;
const MiB = 1 << 20;

/** A run of reproducible random bytes (xorshift128, Marsaglia 2003). */
export class RandomBytes {
  readonly #state: Uint32Array;

  /** The same bytes for the same seed. */
  constructor(seed: number) {
    this.#state = Uint32Array.of(seed ^ 0x9e3779b9, 362436069, 521288629, 88675123);
  }

  /** Overwrites `into` with the next bytes; its length must be a multiple of four. */
  fill(into: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const words = new Uint32Array(into.buffer, into.byteOffset, into.length / 4);
    let [x = 0, y = 0, z = 0, w = 0] = this.#state;
    for (let i = 0; i < words.length; i++) {
      const t = x ^ (x << 11);
      x = y;
      y = z;
      z = w;
      w = w ^ (w >>> 19) ^ t ^ (t >>> 8);
      words[i] = w;
    }
    this.#state.set([x, y, z, w]);
    return into;
  }
}

/** An endless supply of what installed systems consist of: the bytes of the running Deno program. */
export class ProgramBytes implements Disposable {
  readonly #file = Deno.openSync(Deno.execPath());

  /** Overwrites `into` with the next bytes, from the front again when the program is used up. */
  fill(into: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    let done = 0;
    while (done < into.length) {
      const n = this.#file.readSync(into.subarray(done));
      if (n === null) this.#file.seekSync(0, Deno.SeekMode.Start);
      else done += n;
    }
    return into;
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Lines as a log file has them. */
function logText(into: Uint8Array<ArrayBuffer>, first: number): Uint8Array<ArrayBuffer> {
  let text = "";
  for (let i = first; text.length < into.length; i++) {
    const time = new Date(1_700_000_000_000 + i * 1_237).toISOString();
    text += `${time} unit-${i % 17}[${1000 + (i * 7) % 9000}]: request ${i * 2654435761 % 1e9} ` +
      `took ${(i * 31) % 997} ms, status ${i % 23 === 0 ? 503 : 200}\n`;
  }
  new TextEncoder().encodeInto(text, into);
  return into;
}

/** Writes all of `bytes` at `offset`. */
export function writeAt(file: Deno.FsFile, offset: number, bytes: Uint8Array): void {
  file.seekSync(offset, Deno.SeekMode.Start);
  while (bytes.length > 0) bytes = bytes.subarray(file.writeSync(bytes));
}

/** A partition: its type and place, bytes. */
interface Partition {
  readonly type: string;
  readonly name: string;
  readonly start: number;
  readonly length: number;
}

const EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const LINUX_DATA = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/** A GUID as UEFI stores it: the first three groups little-endian (UEFI 2.10, appendix A). */
function guidBytes(guid: string): Uint8Array {
  const bytes = Uint8Array.from(
    guid.replaceAll("-", "").match(/../g) ?? [],
    (h) => parseInt(h, 16),
  );
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** Writes a protective MBR and both copies of a GPT (UEFI 2.10, chapter 5). */
function writeGpt(file: Deno.FsFile, size: number, partitions: readonly Partition[]): void {
  const last = size / SECTOR - 1;

  const mbr = new Uint8Array(SECTOR);
  const mbrView = new DataView(mbr.buffer);
  // One partition of type 0xee from the second sector to the end; CHS 0/0/2 and "too large".
  mbr.set([0, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446);
  mbrView.setUint32(454, 1, true);
  mbrView.setUint32(458, Math.min(last, 0xffffffff), true);
  mbr.set([0x55, 0xaa], 510);

  const entries = new Uint8Array(128 * 128);
  const entriesView = new DataView(entries.buffer);
  partitions.forEach(({ type, name, start, length }, i) => {
    const at = i * 128;
    entries.set(guidBytes(type), at);
    entries.set(guidBytes(`d15c0000-0000-4000-8000-00000000000${i + 1}`), at + 16);
    entriesView.setBigUint64(at + 32, BigInt(start / SECTOR), true);
    entriesView.setBigUint64(at + 40, BigInt((start + length) / SECTOR - 1), true);
    [...name].forEach((c, k) => entriesView.setUint16(at + 56 + 2 * k, c.charCodeAt(0), true));
  });
  const entrySectors = entries.length / SECTOR;

  const header = (own: number, other: number, table: number): Uint8Array => {
    const bytes = new Uint8Array(SECTOR);
    const view = new DataView(bytes.buffer);
    new TextEncoder().encodeInto("EFI PART", bytes);
    view.setUint32(8, 0x00010000, true);
    view.setUint32(12, 92, true);
    view.setBigUint64(24, BigInt(own), true);
    view.setBigUint64(32, BigInt(other), true);
    view.setBigUint64(40, BigInt(2 + entrySectors), true);
    view.setBigUint64(48, BigInt(last - entrySectors - 1), true);
    bytes.set(guidBytes("d15c0000-0000-4000-8000-000000000000"), 56);
    view.setBigUint64(72, BigInt(table), true);
    view.setUint32(80, 128, true);
    view.setUint32(84, 128, true);
    view.setUint32(88, crc32(entries), true);
    // The checksum is over the header with this very field zero.
    view.setUint32(16, crc32(bytes.subarray(0, 92)), true);
    return bytes;
  };

  writeAt(file, 0, mbr);
  writeAt(file, SECTOR, header(1, last, 2));
  writeAt(file, 2 * SECTOR, entries);
  writeAt(file, (last - entrySectors) * SECTOR, entries);
  writeAt(file, last * SECTOR, header(last, 1, last - entrySectors));
}

/** Writes a FAT16 file system of 2 KiB clusters with one file in it. */
function writeFat16(file: Deno.FsFile, { start, length }: Partition, content: Uint8Array): void {
  const sectors = length / SECTOR;
  const perCluster = 4;
  const rootEntries = 512;
  const fatSectors = Math.ceil((sectors / perCluster + 2) * 2 / SECTOR);

  const boot = new Uint8Array(SECTOR);
  const view = new DataView(boot.buffer);
  boot.set([0xeb, 0x3c, 0x90]);
  const put = (at: number, text: string) => new TextEncoder().encodeInto(text, boot.subarray(at));
  put(3, "QIMGDEMO");
  view.setUint16(11, SECTOR, true);
  boot[13] = perCluster;
  view.setUint16(14, 1, true);
  boot[16] = 2;
  view.setUint16(17, rootEntries, true);
  boot[21] = 0xf8;
  view.setUint16(22, fatSectors, true);
  view.setUint16(24, 63, true);
  view.setUint16(26, 255, true);
  view.setUint32(28, start / SECTOR, true);
  view.setUint32(32, sectors, true);
  boot.set([0x80, 0, 0x29, 0x0d, 0x15, 0xc0, 0xde], 36);
  put(43, "NO NAME    ");
  put(54, "FAT16   ");
  boot.set([0x55, 0xaa], 510);
  writeAt(file, start, boot);

  const clusters = Math.ceil(content.length / (perCluster * SECTOR));
  const fat = new Uint8Array(fatSectors * SECTOR);
  const fatView = new DataView(fat.buffer);
  fatView.setUint16(0, 0xfff8, true);
  fatView.setUint16(2, 0xffff, true);
  for (let i = 0; i < clusters; i++) {
    fatView.setUint16(2 * (i + 2), i === clusters - 1 ? 0xffff : i + 3, true);
  }
  writeAt(file, start + SECTOR, fat);
  writeAt(file, start + (1 + fatSectors) * SECTOR, fat);

  const root = new Uint8Array(rootEntries * 32);
  new TextEncoder().encodeInto("BOOTX64 EFI", root);
  root[11] = 0x20;
  const rootView = new DataView(root.buffer);
  rootView.setUint16(26, 2, true);
  rootView.setUint32(28, content.length, true);
  const rootAt = start + (1 + 2 * fatSectors) * SECTOR;
  writeAt(file, rootAt, root);
  writeAt(file, rootAt + root.length, content);
}

/** Fills a partition as years of use do: text, programs, random bytes, zeros and holes. */
function writeMixedData(file: Deno.FsFile, { start, length }: Partition): void {
  using program = new ProgramBytes();
  const random = new RandomBytes(20_260_101);
  const superblock = new Uint8Array(1024);
  // Where ext2 and its successors keep their magic number, so that tools see a Linux file system.
  superblock.set([0x53, 0xef], 56);
  writeAt(file, start + 1024, superblock);
  const buffer = new Uint8Array(MiB);
  const kinds: readonly ((index: number) => Uint8Array | undefined)[] = [
    () => program.fill(buffer),
    (index) => logText(buffer, index * 10_000),
    () => program.fill(buffer),
    () => undefined,
    () => random.fill(buffer),
    () => program.fill(buffer),
    () => buffer.fill(0),
    () => undefined,
  ];
  for (let at = MiB; at + MiB <= length; at += MiB) {
    const bytes = kinds[at / MiB % kinds.length]?.(at / MiB);
    if (bytes !== undefined) writeAt(file, start + at, bytes);
  }
}

/**
 * Makes a raw disk image of `size` bytes (a multiple of 1 MiB, at least 48
 * MiB): a GPT, an EFI system partition and a Linux partition in use.
 */
export function makeDisk(path: string, size: number): void {
  const esp = { type: EFI_SYSTEM, name: "EFI system", start: MiB, length: 32 * MiB };
  const root = {
    type: LINUX_DATA,
    name: "Linux",
    start: 33 * MiB,
    length: size - 34 * MiB,
  };
  using file = Deno.openSync(path, { write: true, createNew: true });
  file.truncateSync(size);
  writeGpt(file, size, [esp, root]);
  using program = new ProgramBytes();
  writeFat16(file, esp, program.fill(new Uint8Array(4 * MiB)));
  writeMixedData(file, root);
}
