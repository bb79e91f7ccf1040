/** Apple's disk images, made by hand: neither this project nor the reference can write them. */
/** Types of chunks. */
export const ChunkType = {
  zero: 0,
  raw: 1,
  ignore: 2,
  comment: 0x7ffffffe,
  adc: 0x80000004,
  zlib: 0x80000005,
  bzip2: 0x80000006,
  lzfse: 0x80000007,
  lzma: 0x80000008,
  last: 0xffffffff,
} as const;

/** A chunk of an image. Chunks follow one another on the disk and in the file unless they say otherwise. */
export interface DmgChunk {
  readonly type: number;
  readonly sectors: number | bigint;
  /** What is stored. */
  readonly bytes?: Uint8Array;
  /** First sector on the disk, counted from where the table begins. */
  readonly first?: number | bigint;
  /** Where the bytes are said to be, counted from where the data begin. */
  readonly offset?: number | bigint;
  /** How many they are said to be. */
  readonly length?: number | bigint;
}

/** What an image is made of. */
export interface DmgOptions {
  /** The chunks of each table. */
  readonly tables: readonly (readonly DmgChunk[])[];
  /** Where the tables are. */
  readonly layout?: "plist" | "resources";
  /** Bytes of the file before the data. */
  readonly dataOffset?: number;
  /** Bytes of the file after the data: a number that is not even makes the file's length odd. */
  readonly padding?: number;
  /** Sectors of the disk; all that the chunks have unless told. */
  readonly sectors?: number | bigint;
  /** What else stands in the property list, or between the resources. */
  readonly extra?: Uint8Array;
  /** Bytes of data that are in the file already, which is then continued by what is answered. */
  readonly stored?: number;
  /** How many bytes the resources are said to be shorter than they are. */
  readonly shorten?: number;
}

/** The bytes of an image. */
export function dmgImage(options: DmgOptions): Uint8Array<ArrayBuffer> {
  const { layout = "plist", dataOffset = 0, padding = 0, stored = 0, extra, shorten = 0 } = options;
  const data: Uint8Array[] = [new Uint8Array(dataOffset)];
  let dataLength = stored;
  let sector = 0;
  const tables = options.tables.map((chunks) => {
    const start = sector;
    const entries = chunks.map((chunk) => {
      const bytes = chunk.bytes ?? new Uint8Array(0);
      const entry = {
        ...chunk,
        first: chunk.first ?? sector - start,
        offset: chunk.offset ?? dataLength,
        length: chunk.length ?? bytes.length,
      };
      data.push(bytes);
      dataLength += bytes.length;
      if (chunk.first === undefined) sector += Number(chunk.sectors);
      return entry;
    });
    return tableOf(start, sector - start, entries);
  });
  data.push(new Uint8Array(padding));
  const blobs = extra === undefined ? tables : [extra, ...tables];
  const index = layout === "plist" ? plistOf(blobs) : resourcesOf(blobs, shorten);
  const indexOffset = dataOffset + dataLength + padding;
  const koly = new Uint8Array(512);
  const view = new DataView(koly.buffer);
  new TextEncoder().encodeInto("koly", koly);
  view.setUint32(4, 4);
  view.setUint32(8, 512);
  view.setBigUint64(0x18, BigInt(dataOffset));
  view.setBigUint64(0x20, BigInt(dataLength));
  const field = layout === "plist" ? 0xd8 : 0x28;
  view.setBigUint64(field, BigInt(indexOffset));
  view.setBigUint64(field + 8, BigInt(index.length));
  view.setBigUint64(0x1ec, BigInt.asUintN(64, BigInt(options.sectors ?? sector)));
  return concat([...data, index, koly]);
}

/** Where the trailer of an image begins that was made here. */
export function trailerOf(image: Uint8Array): number {
  return image.length - 512;
}

function tableOf(
  first: number,
  sectors: number,
  entries: readonly Required<Omit<DmgChunk, "bytes">>[],
): Uint8Array {
  const bytes = new Uint8Array(204 + 40 * entries.length);
  const view = new DataView(bytes.buffer);
  new TextEncoder().encodeInto("mish", bytes);
  view.setUint32(4, 1);
  view.setBigUint64(8, BigInt(first));
  view.setBigUint64(16, BigInt(sectors));
  view.setUint32(0xc8, entries.length);
  entries.forEach(({ type, sectors, first, offset, length }, index) => {
    const at = 204 + 40 * index;
    view.setUint32(at, type);
    [first, sectors, offset, length].forEach((value, field) =>
      view.setBigUint64(at + 8 + 8 * field, BigInt(value))
    );
  });
  return bytes;
}

function plistOf(blobs: readonly Uint8Array[]): Uint8Array {
  const data = blobs.map((blob) =>
    `<dict><key>Data</key>\n<data>\n\t${
      blob.toBase64().replaceAll(/.{52}/g, "$&\n\t")
    }\n</data></dict>`
  );
  return new TextEncoder().encode(
    `<?xml version="1.0"?>\n<plist version="1.0"><dict><key>blkx</key><array>${
      data.join("\n")
    }</array></dict></plist>\n`,
  );
}

/** Resources from byte 256 on, as old images have them, and an empty map behind them. */
function resourcesOf(blobs: readonly Uint8Array[], shorten: number): Uint8Array {
  const data = concat(blobs.flatMap((blob) => {
    const size = new Uint8Array(4);
    new DataView(size.buffer).setUint32(0, blob.length);
    return [size, blob];
  }));
  const header = new Uint8Array(256);
  const view = new DataView(header.buffer);
  view.setUint32(0, 256);
  view.setUint32(4, 256 + data.length);
  view.setUint32(8, data.length - shorten);
  view.setUint32(12, 30);
  return concat([header, data, new Uint8Array(30)]);
}

/** Runs of bytes one behind the other. */
function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
