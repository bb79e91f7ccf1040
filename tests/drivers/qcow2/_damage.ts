/** Ways to damage an image's header, and what opening it then says (section 3 of the format's reference). */
import type { OpenMode } from "../../../lib/block/mode.ts";
import { patch } from "./_image.ts";

/** One damage. */
export interface Damage {
  /** What is wrong. */
  readonly name: string;
  /** Damages the bytes of a plain version 3 image of 1 MiB with 64 KiB clusters. */
  readonly apply: (image: Uint8Array) => void;
  /** The error's text. */
  readonly text: string;
  /** How it is opened; read-only if absent. */
  readonly mode?: Partial<OpenMode>;
  /** This driver says something else than the reference, or stops where it goes on. */
  readonly own?: true;
}

/** An extension of the header at `at`, and the end marker behind it. */
export function extension(
  image: Uint8Array,
  at: number,
  type: number,
  length: number,
  data: Uint8Array = new Uint8Array(0),
): void {
  image.fill(0, at, at + 1024);
  patch(image, [at, 4, type], [at + 4, 4, length]);
  image.set(data, at + 8);
}

function words(...values: (number | bigint)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  patch(bytes, ...values.map((value, i) => [i * 8, 8, value] as const));
  return bytes;
}

const BITMAPS = 0x23852875;

/** All of them, in the order of the checks. */
export const DAMAGES: readonly Damage[] = [
  {
    name: "magic",
    apply: (image) => patch(image, [0, 4, 0x514649fa]),
    text: "Image is not in qcow2 format",
  },
  {
    name: "version 4",
    apply: (image) => patch(image, [4, 4, 4]),
    text: "Unsupported qcow2 version 4",
  },
  {
    name: "version 1",
    apply: (image) => patch(image, [4, 4, 1]),
    text: "Unsupported qcow2 version 1",
  },
  {
    name: "cluster_bits 8",
    apply: (image) => patch(image, [20, 4, 8]),
    text: "Unsupported cluster size: 2^8",
  },
  {
    name: "cluster_bits 22",
    apply: (image) => patch(image, [20, 4, 22]),
    text: "Unsupported cluster size: 2^22",
  },
  {
    name: "cluster_bits 4294967295",
    apply: (image) => patch(image, [20, 4, 0xffffffff]),
    text: "Unsupported cluster size: 2^4294967295",
  },
  {
    name: "header_length 103",
    apply: (image) => patch(image, [100, 4, 103]),
    text: "qcow2 header too short",
  },
  {
    name: "header_length above the cluster size",
    apply: (image) => patch(image, [100, 4, 65537]),
    text: "qcow2 header exceeds cluster size",
  },
  {
    name: "backing_file_offset above the cluster size",
    apply: (image) => patch(image, [8, 8, 65537]),
    text: "Invalid backing file offset",
  },
  {
    name: "compression_type 2",
    apply: (image) => patch(image, [72, 8, 8], [104, 1, 2]),
    text: "qcow2: unknown compression type: 2",
  },
  {
    name: "compression bit without type",
    apply: (image) => patch(image, [72, 8, 8]),
    text: "qcow2: Compression type incompatible feature bit must not be set",
  },
  {
    name: "compression type without bit",
    apply: (image) => patch(image, [104, 1, 1]),
    text: "qcow2: Compression type incompatible feature bit must be set",
  },
  {
    name: "unknown incompatible bits",
    apply: (image) => patch(image, [72, 8, 0x8000_0000_0000_0060n]),
    text: "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000060",
  },
  {
    name: "unknown incompatible bits that the feature table names",
    apply: (image) => {
      patch(image, [72, 8, 0x60]);
      image.set(new TextEncoder().encode("\x00\x05frobnication"), 0x78);
      image.fill(0, 0x78 + 14, 0x78 + 48);
    },
    text: "Unsupported qcow2 feature(s): frobnication, Unknown incompatible feature: 40",
  },
  {
    name: "a feature name of 46 characters",
    apply: (image) => {
      patch(image, [72, 8, 0x20]);
      image.set(new TextEncoder().encode("\x00\x05" + "n".repeat(46)), 0x78);
    },
    text: `Unsupported qcow2 feature(s): ${"n".repeat(46)}`,
  },
  {
    name: "corrupt bit",
    apply: (image) => patch(image, [72, 8, 2]),
    text: "qcow2: Image is corrupt; cannot be opened read/write",
    mode: { writable: true },
  },
  {
    name: "extended L2 with clusters of 8 KiB",
    apply: (image) => patch(image, [20, 4, 13], [72, 8, 16]),
    text: "Unsupported subcluster size: 256",
  },
  {
    name: "refcount_order 7",
    apply: (image) => patch(image, [96, 4, 7]),
    text: "Reference count entry width too large; may not exceed 64 bits",
  },
  {
    name: "no refcount table",
    apply: (image) => patch(image, [56, 4, 0]),
    text: "Image does not contain a reference count table",
  },
  {
    name: "refcount table of 129 clusters",
    apply: (image) => patch(image, [56, 4, 129]),
    text: "Reference count table too large",
  },
  {
    name: "unaligned refcount table",
    apply: (image) => patch(image, [48, 8, 65536 + 512]),
    text: "Reference count table offset invalid",
  },
  {
    name: "refcount table at the end of all offsets",
    apply: (image) => patch(image, [48, 8, 0x7fff_ffff_ffff_0000n]),
    text: "Reference count table offset invalid",
  },
  {
    name: "65537 snapshots",
    apply: (image) => patch(image, [60, 4, 65537]),
    text: "Snapshot table too large",
  },
  {
    name: "unaligned snapshot table",
    apply: (image) => patch(image, [60, 4, 1], [64, 8, 1]),
    text: "Snapshot table offset invalid",
  },
  {
    name: "L1 table above 32 MiB",
    apply: (image) => patch(image, [36, 4, 4194305]),
    text: "Active L1 table too large",
  },
  {
    name: "unaligned L1 table",
    apply: (image) => patch(image, [40, 8, 8]),
    text: "Active L1 table offset invalid",
  },
  {
    name: "size beyond 2^31 L2 tables",
    apply: (image) => patch(image, [24, 8, 2n ** 61n]),
    text: "Image is too big",
  },
  {
    name: "size beyond the L1 table",
    apply: (image) => patch(image, [24, 8, 512 * 1024 * 1024 + 512]),
    text: "L1 table is too small",
  },
  {
    name: "size above 2^53 that the L1 table covers",
    apply: (image) =>
      patch(image, [20, 4, 21], [24, 8, 2n ** 53n], [36, 4, 16384], [40, 8, 0x600000], [
        48,
        8,
        0x200000,
      ]),
    text: "Image size 9007199254740992 exceeds the supported maximum of 9007199254740991 bytes",
    own: true,
  },
  {
    name: "crypt_method 3",
    apply: (image) => patch(image, [32, 4, 3]),
    text: "Unsupported encryption method 3",
  },
  {
    name: "extension longer than the cluster",
    apply: (image) => extension(image, 0x70, 0x12345678, 65536),
    text: "Header extension too large",
  },
  {
    name: "extension header cut by the backing name",
    apply: (image) => {
      patch(image, [8, 8, 0x74], [16, 4, 1]);
    },
    text: "Header extension too large",
  },
  {
    name: "backing format of 16 characters",
    apply: (image) => extension(image, 0x70, 0xe2792aca, 16),
    text: "ERROR: ext_backing_format: len=16 too large (>=16)",
  },
  {
    name: "LUKS pointer without LUKS",
    apply: (image) => extension(image, 0x70, 0x0537be77, 16),
    text: "CRYPTO header extension only expected with LUKS encryption method",
  },
  {
    name: "short LUKS pointer",
    apply: (image) => {
      patch(image, [32, 4, 2]);
      extension(image, 0x70, 0x0537be77, 8);
    },
    text: "CRYPTO header extension size 8, but expected size 16",
  },
  {
    name: "unaligned LUKS header",
    apply: (image) => {
      patch(image, [32, 4, 2]);
      extension(image, 0x70, 0x0537be77, 16, words(512, 4096));
    },
    text: "Encryption header offset '512' is not a multiple of cluster size '65536'",
  },
  {
    name: "bitmaps extension of 16 bytes",
    apply: (image) => extension(image, 0x70, BITMAPS, 16),
    text: "bitmaps_ext: Invalid extension length",
  },
  {
    name: "bitmaps extension with reserved bits",
    apply: (image) => {
      patch(image, [88, 8, 1]);
      extension(image, 0x70, BITMAPS, 24, words(0x1_0000_0001n, 64, 65536));
    },
    text: "bitmaps_ext: Reserved field is not zero",
  },
  {
    name: "65536 bitmaps",
    apply: (image) => {
      patch(image, [88, 8, 1]);
      extension(image, 0x70, BITMAPS, 24, words(0x10000n << 32n, 64, 65536));
    },
    text: "bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535",
  },
  {
    name: "no bitmaps in the bitmaps extension",
    apply: (image) => {
      patch(image, [88, 8, 1]);
      extension(image, 0x70, BITMAPS, 24, words(0, 64, 65536));
    },
    text: "found bitmaps extension with zero bitmaps",
  },
  {
    name: "unaligned bitmap directory",
    apply: (image) => {
      patch(image, [88, 8, 1]);
      extension(image, 0x70, BITMAPS, 24, words(1n << 32n, 64, 65537));
    },
    text: "bitmaps_ext: invalid bitmap directory offset",
  },
  {
    name: "huge bitmap directory",
    apply: (image) => {
      patch(image, [88, 8, 1]);
      extension(image, 0x70, BITMAPS, 24, words(1n << 32n, 67107841, 65536));
    },
    text:
      "bitmaps_ext: bitmap directory size (67107841) exceeds the maximum supported size (67107840)",
  },
  {
    name: "empty bitmap directory",
    apply: (image) => {
      patch(image, [88, 8, 1]);
      extension(image, 0x70, BITMAPS, 24, words(1n << 32n, 0, 65536));
    },
    text: "Requested bitmap directory size is zero",
  },
  {
    name: "data file without a name",
    apply: (image) => patch(image, [72, 8, 4]),
    text: "'data-file' is required for this image",
  },
  {
    name: "raw data file without a data file",
    apply: (image) => patch(image, [88, 8, 2]),
    text: "data-file-raw requires a data file",
  },
  {
    name: "LUKS without a pointer",
    apply: (image) => patch(image, [32, 4, 2]),
    text: "Missing CRYPTO header for crypt method 2",
    mode: { metadataOnly: true },
  },
  {
    name: "AES without a key",
    apply: (image) => patch(image, [32, 4, 1]),
    text: "Parameter 'encrypt.key-secret' is required for cipher",
  },
  {
    name: "backing name of 1024 bytes",
    apply: (image) => patch(image, [8, 8, 0x200], [16, 4, 1024]),
    text: "Backing file name too long",
  },
  {
    name: "backing name beyond the cluster",
    apply: (image) => patch(image, [8, 8, 65536 - 10], [16, 4, 11]),
    text: "Backing file name too long",
  },
];
