/** qcow2 images that nobody would make by accident, written byte by byte. */

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ZERO = 1n;
const KIB = 1024;
const CLUSTER = 64 * KIB;

/** Pieces of a file: bytes, or 64-bit words, by offset. */
type Pieces = readonly (readonly [offset: number, content: Uint8Array | readonly bigint[]])[];

/** An image file. */
export interface EvilImage {
  /** What is evil about it. */
  readonly name: string;
  /** Its bytes. */
  readonly pieces: Pieces;
  /** Its length, if it is longer than the pieces, bytes. */
  readonly length?: number;
  /** Words that the error has to contain, whatever is done with the image. */
  readonly refusal?: string;
  /** Words that the error has to contain when the disk is opened with `--untrusted`. */
  readonly untrustedRefusal?: string;
}

/** Fields of a version 3 header; tables are where the default image has them. */
interface HeaderFields {
  readonly size?: bigint;
  readonly clusterBits?: number;
  readonly l1Size?: number;
  readonly l1Offset?: bigint;
  readonly refcountOffset?: bigint;
  readonly refcountClusters?: number;
  readonly snapshots?: readonly [count: number, offset: bigint];
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly incompatible?: bigint;
  readonly autoclear?: bigint;
  readonly crypt?: number;
  readonly refcountOrder?: number;
  readonly compressionType?: number;
  readonly extensions?: readonly (readonly [type: number, data: Uint8Array])[];
}

function header(fields: HeaderFields): Uint8Array {
  const clusterBits = fields.clusterBits ?? 16;
  const bytes = new Uint8Array(2 ** clusterBits);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, 3);
  view.setUint32(20, clusterBits);
  view.setBigUint64(24, fields.size ?? 1024n * 1024n);
  view.setUint32(32, fields.crypt ?? 0);
  view.setUint32(36, fields.l1Size ?? 1);
  view.setBigUint64(40, fields.l1Offset ?? 0x30000n);
  view.setBigUint64(48, fields.refcountOffset ?? 0x10000n);
  view.setUint32(56, fields.refcountClusters ?? 1);
  const [count, offset] = fields.snapshots ?? [0, 0n];
  view.setUint32(60, count);
  view.setBigUint64(64, offset);
  view.setBigUint64(72, fields.incompatible ?? 0n);
  view.setBigUint64(88, fields.autoclear ?? 0n);
  view.setUint32(96, fields.refcountOrder ?? 4);
  view.setUint32(100, 112);
  view.setUint8(104, fields.compressionType ?? 0);
  let at = 112;
  const extension = (type: number, data: Uint8Array) => {
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  };
  if (fields.backingFormat !== undefined) extension(0xe2792aca, text(fields.backingFormat));
  for (const [type, data] of fields.extensions ?? []) extension(type, data);
  at += 8;
  if (fields.backing !== undefined) {
    const name = text(fields.backing);
    view.setBigUint64(8, BigInt(at));
    view.setUint32(16, name.length);
    bytes.set(name, at);
  }
  return bytes;
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function words(...values: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setBigUint64(i * 8, value);
  return bytes;
}

function repeat(value: bigint, times: number): bigint[] {
  return new Array<bigint>(times).fill(value);
}

/** A refcount table with one block that says 1 of everything. */
const REFCOUNTS: Pieces = [
  [0x10000, [0x20000n]],
  [0x20000, repeat(0x0001_0001_0001_0001n, 8192)],
];

/** A plain image with an L1 table and an L2 table at 0x40000. */
function mapped(l2: readonly bigint[], fields: HeaderFields = {}): Pieces {
  return [
    [0, header(fields)],
    ...REFCOUNTS,
    [0x30000, [COPIED | 0x40000n]],
    [0x40000, l2],
    [0x50000, new Uint8Array(CLUSTER).fill(0x5a)],
  ];
}

/** An image with a bitmap `a` of a bit a sector and this table. */
function withBitmap(size: bigint, table: readonly bigint[], flags = 2): Pieces {
  return [
    [
      0,
      header({
        size,
        l1Size: Number(size >> 29n),
        l1Offset: 0x300000n,
        autoclear: 1n,
        extensions: [[0x23852875, words(1n << 32n, 32n, 0x100000n)]],
      }),
    ],
    ...REFCOUNTS,
    [
      0x100000,
      words(
        0x200000n,
        BigInt(table.length) << 32n | BigInt(flags),
        0x0109_0001_00000000n,
        0x61n << 56n,
      ),
    ],
    [0x200000, table],
  ];
}

/** A snapshot table of `count` entries with the longest names there can be. */
function longNames(count: number): Pieces {
  const size = 40 + 24 + 2 * 65535;
  const step = Math.ceil(size / 8) * 8;
  return Array.from({ length: count }, (_, i) => {
    const entry = new Uint8Array(40);
    const view = new DataView(entry.buffer);
    view.setUint16(12, 65535);
    view.setUint16(14, 65535);
    view.setUint32(36, 24);
    return [0x100000 + i * step, entry] as const;
  });
}

/** The images; `secret` is the path of a file whose content must never come out of one of them. */
export function evilImages(secret: string): readonly EvilImage[] {
  return [
    {
      name: "itself as backing file",
      pieces: mapped([], { backing: "evil.qcow2", backingFormat: "qcow2" }),
      untrustedRefusal: "backing",
    },
    {
      name: "itself as data file",
      pieces: mapped([COPIED | 0n, COPIED | 0x10000n], {
        incompatible: 4n,
        extensions: [[0x44415441, text("evil.qcow2")]],
      }),
      untrustedRefusal: "data",
    },
    {
      name: "a secret as backing file without a format",
      pieces: mapped([], { backing: secret }),
      untrustedRefusal: "backing",
    },
    {
      name: "a secret as data file",
      pieces: mapped([COPIED | 0n], {
        incompatible: 4n,
        extensions: [[0x44415441, text(secret)]],
      }),
      untrustedRefusal: "data",
    },
    {
      name: "a server as backing file",
      pieces: mapped([], { backing: "nbd://127.0.0.1:1/x", backingFormat: "raw" }),
      untrustedRefusal: "backing",
    },
    {
      name: "a json: name as backing file",
      pieces: mapped([], {
        backing: `json:{"driver": "raw", "file": {"driver": "file", "filename": "${secret}"}}`,
      }),
      untrustedRefusal: "backing",
    },
    {
      name: "a backing name of control characters",
      pieces: mapped([], { backing: "\x1b[2J\x07\0secret", backingFormat: "raw" }),
      untrustedRefusal: "backing",
    },
    {
      name: "a disk of almost 2^63 bytes",
      pieces: [[
        0,
        header({
          size: 2n ** 63n - 512n,
          l1Size: 4194304,
          l1Offset: 0x400000n,
          refcountOffset: 0x200000n,
          clusterBits: 21,
        }),
      ]],
      refusal: "L1 table is too small",
    },
    {
      name: "a disk of 8 PiB in an L1 table of 32 MiB that is not in the file",
      pieces: [
        [0, header({ size: 2n ** 51n, l1Size: 4194304 })],
        ...REFCOUNTS,
      ],
      untrustedRefusal: "L1 table too large",
    },
    {
      name: "an L1 table larger than there can be",
      pieces: [[0, header({ l1Size: 0xffffffff })]],
      refusal: "Active L1 table too large",
    },
    {
      name: "a refcount table larger than there can be",
      pieces: [[0, header({ refcountClusters: 0xffffffff })]],
      refusal: "Reference count table too large",
    },
    {
      name: "tables at the end of all offsets",
      pieces: [[
        0,
        header({ l1Offset: 0x7fff_ffff_0000_0000n, refcountOffset: 0x7fff_fff0_0000_0000n }),
      ]],
    },
    {
      name: "all tables in the header",
      pieces: [[
        0,
        header({ l1Offset: 0n, refcountOffset: 0n, snapshots: [3, 0n] }),
      ]],
    },
    {
      name: "an L1 table that is its own L2 table and its own data",
      pieces: [
        [0, header({ size: 2n ** 28n, l1Size: 1 })],
        ...REFCOUNTS,
        [0x30000, repeat(COPIED | 0x30000n, 8192)],
      ],
    },
    {
      name: "40 L2 tables in one place, full of one cluster",
      pieces: [
        [0, header({ size: 40n * 2n ** 21n, l1Size: 40, clusterBits: 12 })],
        [0x10000, [0x20000n]],
        [0x30000, repeat(COPIED | 0x40000n, 40)],
        [0x40000, repeat(COPIED | 0x50000n, 512)],
      ],
      length: 0x60000,
    },
    {
      name: "a refcount table full of one block",
      pieces: [
        [0, header({ refcountClusters: 1 })],
        [0x10000, repeat(0x20000n, 8192)],
        [0x20000, repeat(0xffff_ffff_ffff_ffffn, 8192)],
        [0x30000, [0n]],
      ],
    },
    {
      name: "refcount blocks beyond the end of the file",
      pieces: [
        [0, header({})],
        [0x10000, [0x20000n, 1n << 62n, 1n << 61n, 1n << 60n, (1n << 64n) - 0x10000n]],
        ...REFCOUNTS.slice(1),
        [0x30000, [0n]],
      ],
    },
    {
      name: "compressed clusters anywhere",
      pieces: mapped([
        COMPRESSED,
        COMPRESSED | (1n << 62n) - 1n,
        COMPRESSED | 0x4ffffn,
        COMPRESSED | 0xffn << 54n | 0x50000n,
        COMPRESSED | (1n << 54n) - 1n,
        COPIED | COMPRESSED | 0x50001n,
      ]),
    },
    {
      name: "a compressed cluster that inflates without end",
      pieces: [
        ...mapped([COMPRESSED | 0xffn << 54n | 0x50000n]),
        // Stored as deflate stores runs: one block of 258-byte matches of distance 1.
        [0x50000, new Uint8Array([0xed, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90])],
        [0x50009, new Uint8Array(0xff00)],
      ],
    },
    {
      name: "a zstd frame that claims to be 2^63 bytes",
      pieces: [
        ...mapped([COMPRESSED | 0xffn << 54n | 0x50000n], {
          incompatible: 8n,
          compressionType: 1,
        }),
        [
          0x50000,
          new Uint8Array([0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ],
      ],
    },
    {
      name: "extended entries of all bits",
      pieces: mapped(repeat((1n << 64n) - 1n, 8192), { incompatible: 16n }),
    },
    {
      name: "16384 snapshots in a file of zeros",
      pieces: [[0, header({ snapshots: [16384, 0x100000n] })], ...REFCOUNTS],
      untrustedRefusal: "Snapshot table too large",
    },
    {
      name: "snapshots of long names",
      pieces: [
        [0, header({ snapshots: [100, 0x100000n] })],
        ...REFCOUNTS,
        [0x30000, [0n]],
        ...longNames(100),
      ],
    },
    {
      name: "a snapshot with an L1 table of 32 MiB behind the end of the file",
      pieces: [
        [0, header({ snapshots: [1, 0x100000n] })],
        ...REFCOUNTS,
        [0x30000, [0n]],
        [
          0x100000,
          words(1n << 62n, 0x00400000_0001_0001n, 0n, 0n, 24n, 0n, 0n, 0n, 0x3161n << 48n),
        ],
      ],
    },
    {
      name: "65535 bitmaps in a directory of 64 MiB",
      pieces: [
        [
          0,
          header({
            autoclear: 1n,
            extensions: [[0x23852875, words(65535n << 32n, 67107840n, 0x100000n)]],
          }),
        ],
        ...REFCOUNTS,
      ],
      untrustedRefusal: "bitmap",
    },
    {
      name: "a bitmap with a table of 2^27 entries",
      pieces: [
        [
          0,
          header({
            autoclear: 1n,
            extensions: [[0x23852875, words(1n << 32n, 32n, 0x100000n)]],
          }),
        ],
        ...REFCOUNTS,
        [0x100000, words(0x200000n, 0x08000000_00000000n, 0x0109_0001_00000000n, 0x61n << 56n)],
      ],
    },
    {
      name: "a bitmap of nothing but ones",
      pieces: withBitmap(2n ** 39n, repeat(1n, 2048)),
    },
    {
      name: "a bitmap that is the same cluster 64 times",
      pieces: [
        ...withBitmap(2n ** 34n, repeat(0x50000n, 64)),
        [0x50000, new Uint8Array(CLUSTER).fill(0x5a)],
      ],
    },
    {
      name: "a bitmap that leads to the image's metadata",
      pieces: withBitmap(2n ** 31n, [
        0x10000n,
        0x20000n,
        0x30000n,
        0x100000n,
        0x200000n,
        0x50000n,
        1n,
        0n,
      ]),
    },
    {
      name: "a bitmap in use that leads everywhere",
      pieces: withBitmap(
        2n ** 31n,
        [0x10000n, 0x20000n, 0x30000n, 0x100000n, 2n ** 55n, 0x200000n],
        1,
      ),
    },
    {
      name: "a LUKS header that is not there",
      pieces: [
        [
          0,
          header({
            crypt: 2,
            extensions: [[0x0537be77, words(0x4000_0000_0000_0000n, 0x7fff_ffffn)]],
          }),
        ],
        ...REFCOUNTS,
      ],
    },
    {
      name: "extensions that lead out of the header",
      pieces: [[0, header({ extensions: [[0x12345678, new Uint8Array(65_000)]] })]],
    },
    {
      name: "a feature name table that steers the terminal",
      pieces: [
        [
          0,
          header({
            incompatible: 1n << 40n,
            extensions: [[0x6803f857, text("\0(\x1b]0;evil\x07" + "x".repeat(38))]],
          }),
        ],
      ],
      refusal: "Unsupported qcow2 feature(s)",
    },
    {
      name: "a file of 8 TiB that is nearly empty",
      pieces: mapped([COPIED | 0x7ff_ffff_0000n, ZERO | COPIED | 0x7ff_fffe_0000n]),
      length: 2 ** 43,
    },
    {
      name: "512-byte clusters of 64-bit refcounts",
      pieces: [[
        0,
        header({
          clusterBits: 9,
          refcountOrder: 6,
          l1Offset: 0x400n,
          refcountOffset: 0x200n,
          size: 2n ** 30n,
          l1Size: 32768,
        }),
      ]],
    },
    { name: "a magic number and nothing else", pieces: [[0, text("QFI\xfb")]] },
    { name: "four bytes", pieces: [[0, new Uint8Array([0x51, 0x46, 0x49, 0xfb])]] },
  ];
}

/** Writes an image. */
export async function writeEvil(path: string, { pieces, length }: EvilImage): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  for (const [offset, content] of pieces) {
    file.seekSync(offset, Deno.SeekMode.Start);
    const bytes = content instanceof Uint8Array ? content : words(...content);
    for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  }
  if (length !== undefined) file.truncateSync(length);
}
