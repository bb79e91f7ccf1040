/** Small valid images of every format, to be damaged. */
import { READ_ONLY } from "../../lib/block/mode.ts";
import { crc32c } from "../../lib/bytes/crc32c.ts";
import { openImage } from "../../lib/graph/open.ts";
import { convertImage, createImage } from "../../lib/mod.ts";
import { dmgImage } from "../_dmg.ts";
import { bochsImage, cloopImage } from "../_foreign_images.ts";
import { createOptions, type Kind, KINDS, nameOf, referenceTo, WITH_SECRET } from "../_formats.ts";
import { STORED } from "../drivers/dmg/_chunks.ts";
import {
  cowd,
  cowdContent,
  descriptor,
  seSparse,
  seSparseContent,
} from "../drivers/vmdk/_images.ts";

/** An image in a folder. */
export interface Subject {
  /** What it is. */
  readonly name: string;
  /** How it is opened. */
  readonly kind: Kind;
  /** The file that is opened. */
  readonly image: string;
  /** The file to be damaged, mostly the same; others may lie beside it. */
  readonly file: string;
  /** Puts checksums right that damage would show in. */
  readonly seal?: (bytes: Uint8Array) => void;
  /** Takes back damage that costs more than an error, as the format has it. */
  readonly bound?: (bytes: Uint8Array) => void;
}

const M = 1 << 20;
/** What the guest wrote: sectors that are all of this are no metadata. */
export const DATA_BYTE = 0xda;

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** The checksums of headers and region tables. */
function sealVhdx(bytes: Uint8Array): void {
  for (const [offset, length] of [[64, 4], [128, 4], [192, 64], [256, 64]] as const) {
    const part = bytes.subarray(offset * 1024, (offset + length) * 1024);
    if (part.length < length * 1024) continue;
    view(part).setUint32(4, 0, true);
    view(part).setUint32(4, crc32c(part), true);
  }
}

/** The checksums of the footers and of the header of a growing disk. */
function sealVpc(bytes: Uint8Array): void {
  const ends = [[0, 512, 64], [512, 1024, 36], [bytes.length - 512, 512, 64]] as const;
  for (const [offset, length, at] of ends) {
    const part = bytes.subarray(offset, offset + length);
    if (offset < 0 || part.length < length) continue;
    if (part[0] !== 0x63) continue;
    view(part).setUint32(at, 0);
    view(part).setUint32(at, ~part.reduce((sum, byte) => sum + byte, 0));
  }
}

/** Work that a header asks for takes as long as it says: counts of iterations stay below 65536. */
function boundLuks(bytes: Uint8Array): void {
  for (let at = 0; at + 592 <= bytes.length; at += 512) {
    if (view(bytes).getUint32(at) !== 0x4c554b53) continue;
    for (const count of [164, ...Array.from({ length: 8 }, (_, slot) => 208 + slot * 48 + 4)]) {
      bytes.fill(0, at + count, at + count + 2);
    }
  }
}

const SEALS: Readonly<Record<string, Subject["seal"]>> = { vhdx: sealVhdx, vpc: sealVpc };
const BOUNDS: Readonly<Record<string, Subject["bound"]>> = { luks: boundLuks, qcow2: boundLuks };

/** Made by the drivers, and written here and there. */
async function made(kind: Kind, dir: string): Promise<Subject> {
  const name = nameOf(kind);
  const file = `${dir}/${kind.format}`;
  const size = 3 * M;
  const { format, options } = kind;
  if (kind.isStream) {
    const source = new Uint8Array(size);
    source.fill(DATA_BYTE, 0, 200_000).fill(1, M, M + 70_000);
    await Deno.writeFile(`${file}.raw`, source);
    await convertImage({
      sources: [{ filename: `${file}.raw`, format: "raw" }],
      target: file,
      targetFormat: format,
      options: createOptions(kind),
    });
  } else {
    await createImage({ filename: file, format, size, options: createOptions(kind) }, WITH_SECRET);
    const mode = { ...READ_ONLY, writable: true };
    await using node = await openImage(referenceTo(kind, file), mode, WITH_SECRET);
    for (const [offset, length] of [[0, 4096], [70_000, 130_000], [2 * M, 65536]] as const) {
      await node.write(offset, new Uint8Array(length).fill(DATA_BYTE));
    }
    if (!options.includes("static")) await node.writeZeroes(65536, 4096, { unmap: true });
  }
  const seal = SEALS[format];
  const bound = BOUNDS[format];
  return {
    name,
    kind,
    image: file,
    file,
    ...seal === undefined ? {} : { seal },
    ...bound === undefined ? {} : { bound },
  };
}

async function handMade(
  name: string,
  format: string,
  dir: string,
  bytes: Uint8Array,
): Promise<Subject> {
  const file = `${dir}/${name.replaceAll(/\W/g, "_")}`;
  await Deno.writeFile(file, bytes);
  return { name, kind: { format, options: "" }, image: file, file };
}

/** An extent beside the descriptor that names it. */
async function vmdkExtent(
  type: "vmfsSparse" | "seSparse",
  dir: string,
  bytes: Uint8Array,
  sectors: number,
): Promise<Subject> {
  const subject = await handMade(`vmdk, ${type}`, "vmdk", dir, bytes);
  const line = `RW ${sectors} ${type.toUpperCase()} "${subject.file.split("/").at(-1)}"`;
  const image = `${dir}/descriptor.vmdk`;
  await Deno.writeTextFile(image, descriptor(type, line));
  return { ...subject, image };
}

/** A chunk of each type, so that damage meets every decoder. */
function dmg(layout: "plist" | "resources"): Uint8Array {
  return dmgImage({ layout, tables: [STORED.map(({ chunk }) => chunk)] });
}

/** Makes all of them, each in a folder of its own below `dir`. */
export async function* subjects(dir: string): AsyncGenerator<Subject> {
  let number = 0;
  const folder = async () => {
    const path = `${dir}/${number++}`;
    await Deno.mkdir(path);
    return path;
  };
  for (const kind of KINDS) {
    if (kind.format !== "raw") yield await made(kind, await folder());
  }
  yield await handMade("bochs, version 1", "bochs", await folder(), bochsImage(1));
  yield await handMade("bochs, version 2", "bochs", await folder(), bochsImage(2));
  yield await handMade("cloop", "cloop", await folder(), cloopImage({ blockSize: 4096 }));
  yield await handMade("dmg with a plist", "dmg", await folder(), dmg("plist"));
  yield await handMade("dmg with resources", "dmg", await folder(), dmg("resources"));
  yield await vmdkExtent("vmfsSparse", await folder(), cowd(), cowdContent().length / 512);
  yield await vmdkExtent("seSparse", await folder(), seSparse(), seSparseContent().length / 512);
}
