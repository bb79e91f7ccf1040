import { isBackingFormat } from "../../lib/block/backing_format.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";

/** What `create -o` takes, in the order of the "Formatting" line. */
export const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  { name: "backing_file", type: "str", help: "Image that shows where this one has no data" },
  { name: "backing_fmt", type: "str", help: "Format of the backing file; it is not stored" },
  { name: "encryption", type: "bool", help: "Old name of encrypt.format=aes" },
  { name: "encrypt.format", type: "str", help: "How the disk is encrypted: aes" },
  { name: "encrypt.key-secret", type: "str", help: "Id of the secret that holds the key" },
];

/** Runtime options: those of `--image-opts` and `json:`. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "encrypt.format", type: "str", help: "Format of the encryption, as a check: aes" },
  {
    name: "encrypt.key-secret",
    type: "str",
    strong: true,
    help: "ID of the secret that holds the key",
  },
  // The rest of the encryption's are looked at where there is any.
  { name: "encrypt.", type: "str", help: "Options of the encryption" },
];

/** Longest name of a backing file that is opened again, bytes. */
export const MAX_BACKING_NAME = 1023;

/** Create options with their values checked. */
export interface CreateParameters {
  /** Virtual size, bytes, a multiple of 512. */
  readonly size: number;
  /** Backing file name as it will be stored, `""` for none. */
  readonly backingFile: string;
  /** Whether one was asked for, be it only by a name that stands for none. */
  readonly hasBacking: boolean;
  /** Id of the secret of an encrypted image, `null` where it is missing; `undefined` without encryption. */
  readonly secret: string | null | undefined;
}

/** What the reference takes for no backing file. */
const NO_BACKING = "fat:";

/**
 * Checks create options together (section 5 of the format's reference).
 *
 * @throws {ImageError} with the reference's texts, in its order.
 */
export function createParameters(options: OptionSet): CreateParameters {
  const refuse = (message: string, field: string, errno: ImageError["errno"] = "EINVAL") =>
    new ImageError(message, { errno, field });
  const backingFormat = options.string("backing_fmt");
  if (backingFormat !== undefined && !isBackingFormat(backingFormat)) {
    throw refuse(`unrecognized backing format '${backingFormat}'`, "backing_fmt");
  }
  const old = options.flag("encryption");
  if (old && options.has("encrypt.format")) {
    throw refuse(
      "'encrypt.format' and its alias 'encryption' can't be used at the same time",
      "encryption",
    );
  }
  const format = old ? "aes" : options.string("encrypt.format");
  const secret = options.string("encrypt.key-secret");
  if (format === undefined && secret !== undefined) {
    throw refuse("Parameter 'encrypt.format' is missing", "encrypt.format");
  }
  if (format !== undefined && format !== "aes" && format !== "luks") {
    throw refuse(`Parameter 'format' does not accept value '${format}'`, "encrypt.format");
  }
  const size = ((options.exact("size") ?? 0n) + 511n) / 512n * 512n;
  if (size === 0n) throw refuse("Image size is too small, cannot be zero length", "size");
  if (format === "luks") throw refuse("Unsupported encryption format", "encrypt.format", "ENOTSUP");
  const backing = options.string("backing_file");
  return {
    size: Number(size),
    backingFile: backing === undefined || backing === NO_BACKING ? "" : backing,
    hasBacking: backing !== undefined,
    secret: format === undefined ? undefined : secret ?? null,
  };
}
