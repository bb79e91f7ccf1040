/**
 * What names and options ask for.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import type { JsonValue } from "../../lib/bytes/json.ts";
import type { FatType } from "./layout.ts";

/** Beginning of names. */
const PREFIX = "fat:";

/** Bytes of a volume's name. */
const LABEL = 11;

/** The name of a volume that nobody names. */
const DEFAULT_LABEL = "QEMU VVFAT";

/** Runtime options. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "dir", type: "str", help: "Folder that the disk shows", strong: true },
  { name: "fat-type", type: "num", help: "FAT type: 12, 16 or 32", strong: true },
  { name: "floppy", type: "bool", help: "A floppy rather than a hard disk", strong: true },
  { name: "label", type: "str", help: "Name of the volume, up to 11 bytes", strong: true },
  { name: "rw", type: "bool", help: "Changes are made in the folder, too", strong: true },
];

/** A folder and how it is shown. */
export interface FolderRequest {
  /** The folder. */
  readonly dir: string;
  /** Bits of a FAT entry; `undefined` for what suits the medium. */
  readonly fatType: FatType | undefined;
  /** A floppy disk. */
  readonly floppy: boolean;
  /** Name of the volume, 11 bytes. */
  readonly label: Uint8Array;
  /** Changes go to the folder. */
  readonly writesBack: boolean;
  /** What the name says, as options; nothing where options said it. */
  readonly named: { readonly [key: string]: JsonValue };
}

/**
 * Reads a name, `fat:[floppy:][12:|16:|32:][rw:]DIR`, or, if it is empty, the options.
 *
 * @throws {ImageError} for what is missing or wrong.
 */
export function folderRequest(filename: string, options: OptionSet): FolderRequest {
  if (filename !== "") {
    const named = parseName(filename);
    return {
      dir: named.dir,
      fatType: named["fat-type"] === 0 ? undefined : named["fat-type"],
      floppy: named.floppy,
      label: labelBytes(undefined),
      writesBack: named.rw,
      named: { ...named },
    };
  }
  const dir = options.string("dir");
  if (dir === undefined) throw refused("vvfat block driver requires a 'dir' option", "dir");
  // Of the number 32 bits count.
  const fatType = Number(BigInt.asIntN(32, options.exact("fat-type") ?? 0n));
  const label = labelBytes(options.string("label"));
  if (fatType !== 0 && fatType !== 12 && fatType !== 16 && fatType !== 32) {
    throw refused("Valid FAT types are only 12, 16 and 32", "fat-type");
  }
  return {
    dir,
    fatType: fatType === 0 ? undefined : fatType,
    floppy: options.flag("floppy"),
    label,
    writesBack: options.flag("rw"),
    named: {},
  };
}

/** A name taken apart. Words that mean nothing do no harm, and the folder has no colon. */
function parseName(name: string) {
  if (!name.startsWith(PREFIX)) {
    throw refused("File name string must start with 'fat:'", "filename");
  }
  const fatType = ([32, 16, 12] as const).find((type) => name.includes(`:${type}:`));
  const colon = name.lastIndexOf(":");
  // The drive letter of other systems.
  const isDrive = name[colon - 2] === ":" && /[A-Za-z]/.test(name[colon - 1]!);
  return {
    "fat-type": fatType ?? 0 as const,
    dir: name.slice(isDrive ? colon - 1 : colon + 1),
    floppy: name.includes(":floppy:"),
    rw: name.includes(":rw:"),
  };
}

function labelBytes(label: string | undefined): Uint8Array {
  const bytes = new TextEncoder().encode(label ?? DEFAULT_LABEL);
  if (bytes.length > LABEL) {
    throw refused("vvfat label cannot be longer than 11 bytes", "label");
  }
  const padded = new Uint8Array(LABEL).fill(0x20);
  padded.set(bytes);
  return padded;
}

function refused(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}
