/** Every image that can be made and written, for tests that go through all formats. */
import type { OptionPair } from "../lib/block/options.ts";
import type { ImageReference } from "../lib/graph/open.ts";
import { type Environment, QUIET } from "../lib/graph/environment.ts";

/** A way to make an image. */
export interface Kind {
  /** Format, as `-O` takes it. */
  readonly format: string;
  /** `-o`: its options, `""` for none. */
  readonly options: string;
  /** Options without which it cannot be opened, with their names as image options. */
  readonly key?: readonly (readonly [option: string, value: string])[];
  /** It is written once, from its begin to its end. */
  readonly isStream?: true;
  /** The disk may get larger than asked for. */
  readonly roundsUp?: true;
  /** What nobody wrote reads as anything, though always as the same. */
  readonly readsNoise?: true;
}

/** The passphrase of everything that is encrypted, under the id `s`. */
export const SECRET = "secret,id=s,data=123456";

/** For {@linkcode openImage} and the library: knows the passphrase. */
export const WITH_SECRET: Environment = {
  ...QUIET,
  secrets: { get: (id) => id === "s" ? new TextEncoder().encode("123456") : undefined },
};

const plain = (format: string, ...options: readonly string[]): Kind[] =>
  options.map((given) => ({ format, options: given }));

const LUKS = "key-secret=s,iter-time=1";

/** All of them, each format at its defaults first. */
export const KINDS: readonly Kind[] = [
  ...plain("raw", "", "preallocation=full"),
  ...plain(
    "qcow2",
    "",
    "cluster_size=512,refcount_bits=1",
    "cluster_size=2M,extended_l2=on,compression_type=zstd",
    "compat=0.10",
  ),
  {
    format: "qcow2",
    options: "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1",
    key: [["encrypt.key-secret", "s"]],
  },
  ...plain("qcow", ""),
  {
    format: "qcow",
    options: "encrypt.format=aes,encrypt.key-secret=s",
    key: [["encrypt.key-secret", "s"]],
  },
  ...plain("qed", "", "cluster_size=4k,table_size=2", "cluster_size=1M,table_size=16"),
  ...plain("vdi", "", "static=on"),
  ...plain(
    "vmdk",
    "",
    "subformat=monolithicFlat",
    "subformat=twoGbMaxExtentSparse",
    "subformat=twoGbMaxExtentFlat,adapter_type=lsilogic",
    "zeroed_grain=on,hwversion=17",
    "compat6=on",
  ),
  { format: "vmdk", options: "subformat=streamOptimized", isStream: true },
  ...plain(
    "vhdx",
    "",
    "block_size=1M,log_size=2M",
    "block_state_zero=off",
    "subformat=fixed",
  ),
  ...[
    ...plain("vpc", "", "subformat=fixed"),
    ...plain("vpc", "force_size=on", "force_size=on,subformat=fixed"),
  ].map((kind) => ({ ...kind, roundsUp: true as const })),
  ...plain("parallels", "", "cluster_size=4k", "cluster_size=4M"),
  { format: "luks", options: LUKS, key: [["key-secret", "s"]], readsNoise: true },
  {
    format: "luks",
    options: `${LUKS},cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256`,
    key: [["key-secret", "s"]],
    readsNoise: true,
  },
];

/** The name of a kind in tests. */
export function nameOf({ format, options }: Kind): string {
  return options === "" ? format : `${format} with ${options}`;
}

/** What a command line has to say of an image of this kind to open it. */
export function opens({ format, key = [] }: Kind, filename: string): readonly string[] {
  if (key.length === 0) return ["-f", format, filename];
  return ["--object", SECRET, "--image-opts", imageOptions({ format, key }, filename)];
}

/** The image as a list of image options. */
export function imageOptions(
  { format, key = [] }: Pick<Kind, "format" | "key">,
  filename: string,
): string {
  const pairs = [["driver", format], ...key, ["file.filename", filename]];
  return pairs.map(([name, value]) => `${name}=${value}`).join(",");
}

/** The image for the library. */
export function referenceTo(kind: Kind, filename: string): ImageReference {
  if (kind.key === undefined) return { filename, format: kind.format };
  return { filename: imageOptions(kind, filename), imageOptions: true };
}

/** What creation takes in the library. */
export function createOptions({ options }: Kind): OptionPair[] {
  if (options === "") return [];
  return options.split(",").map((pair) => {
    const at = pair.indexOf("=");
    return [pair.slice(0, at), pair.slice(at + 1)] as const;
  });
}
