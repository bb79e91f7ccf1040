/** Random damage to the metadata of an image: where its tables lie, and what is done to their words. */
import type { Random } from "../../_random.ts";

const OFFSET = 0xff_ffff_ffff_fe00n;

/** A table of an image, or a group of header fields. */
interface Region {
  readonly kind: string;
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Bytes of an entry. */
  readonly word: 2 | 4 | 8;
}

/**
 * The tables of a sound image.
 *
 * Left out are the fields whose damage the reference answers in ways of its
 * own (`check_test.ts` has those that matter): unknown autoclear bits, the
 * offset of the snapshot table, and sizes of tables by which these grow so
 * much that the reference's cache writes back in the middle of a check. What
 * would make the reference extend the file is left out where it is done.
 */
function regionsOf(image: Uint8Array): Region[] {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const offsetAt = (at: number) => Number(view.getBigUint64(at) & OFFSET);
  const clusterSize = 2 ** view.getUint32(20);
  const regions: Region[] = [
    { kind: "size", offset: 24, length: 8, word: 8 },
    { kind: "L1 offset", offset: 40, length: 8, word: 8 },
    { kind: "refcount table offset", offset: 48, length: 8, word: 8 },
  ];
  if (view.getUint32(4) === 3) {
    regions.push({ kind: "features", offset: 72, length: 16, word: 8 });
  }
  const addL1 = (kind: string, offset: number, entries: number) => {
    regions.push({ kind: `${kind}L1`, offset, length: entries * 8, word: 8 });
    for (let i = 0; i < entries; i++) {
      const table = offsetAt(offset + i * 8);
      if (table !== 0) {
        regions.push({ kind: `${kind}L2`, offset: table, length: clusterSize, word: 8 });
      }
    }
  };
  addL1("", offsetAt(40), view.getUint32(36));

  const refcountTable = offsetAt(48);
  regions.push({ kind: "refcount table", offset: refcountTable, length: 64, word: 8 });
  for (let at = refcountTable; offsetAt(at) !== 0; at += 8) {
    regions.push({
      kind: "refcount block",
      offset: offsetAt(at),
      length: clusterSize,
      word: 2,
    });
  }
  let at = offsetAt(64);
  for (let i = view.getUint32(60); i > 0; i--) {
    at = Math.ceil(at / 8) * 8;
    const length = 40 + view.getUint32(at + 36) + view.getUint16(at + 12) + view.getUint16(at + 14);
    regions.push({ kind: "snapshot", offset: at, length, word: 4 });
    addL1("snapshot ", offsetAt(at), view.getUint32(at + 8));
    at += length;
  }
  return regions;
}

/** Damages one to three words of an image; says what it did. */
export function damage(image: Uint8Array, random: Random): string[] {
  const regions = regionsOf(image);
  const kinds = [...new Set(regions.map(({ kind }) => kind))];
  const log: string[] = [];
  for (let count = random.pick([1, 1, 1, 2, 3]); count > 0; count--) {
    const kind = random.pick(kinds);
    const region = random.pick(regions.filter((region) => region.kind === kind));
    const offset = pickWord(image, region, random);
    log.push(`${kind} at 0x${offset.toString(16)}: ${change(image, offset, region, random)}`);
  }
  return log;
}

/** Mostly a word that is in use. */
function pickWord(image: Uint8Array, { offset, length, word }: Region, random: Random): number {
  const used: number[] = [];
  for (let at = 0; at + word <= length; at += word) {
    if (image.subarray(offset + at, offset + at + word).some((byte) => byte !== 0)) {
      used.push(offset + at);
    }
  }
  return used.length > 0 && !random.oneIn(4)
    ? random.pick(used)
    : offset + random.below(Math.floor(length / word)) * word;
}

function change(image: Uint8Array, offset: number, region: Region, random: Random): string {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const { word, kind } = region;
  const flip = (bit: number) => {
    const at = offset + word - 1 - (bit >>> 3);
    image[at] = image[at]! ^ 1 << (bit & 7);
    return `bit ${bit} flipped`;
  };
  // How far a file can be extended depends on the host.
  if (kind === "refcount table" && random.oneIn(2)) return flip(random.below(22));
  if (kind.endsWith("offset") && random.oneIn(2)) return flip(random.below(40));
  if (word < 8 || kind === "size" || kind === "features") return flip(random.below(word * 8));
  const set = (value: bigint) => {
    view.setBigUint64(offset, value);
    return `= 0x${value.toString(16)}`;
  };
  const clusterSize = 2 ** view.getUint32(20);
  const cluster = BigInt((1 + random.below(image.length / clusterSize + 2)) * clusterSize);
  if (kind.endsWith("offset")) return set(cluster);
  switch (random.below(kind === "refcount table" ? 2 : 4)) {
    case 0:
      return set(0n);
    case 1:
      return set(
        cluster | (kind === "refcount table" ? 0n : random.pick([0n, 1n << 63n, 1n << 62n, 1n])),
      );
    case 2:
      return set(view.getBigUint64(offset) ^ 1n << BigInt(random.between(9, 20)));
    default:
      return flip(random.below(64));
  }
}
