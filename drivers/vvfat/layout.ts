/**
 * Where the parts of the disk lie: partition table, boot sector, two FATs, root directory, clusters.
 *
 * @module
 */
import { writeU16LE, writeU32LE } from "../../lib/bytes/endian.ts";
import { divideUp } from "../../lib/bytes/align.ts";

/** Bytes of a sector. */
export const SECTOR = 512;

/** Bytes of a cluster, on floppies too. */
export const CLUSTER = 16 * SECTOR;

/** Bytes of a directory entry. */
export const ENTRY = 32;

/** The bits of an entry of the FAT. */
export type FatType = 12 | 16 | 32;

/** Where the file system is on a hard disk, sectors. */
const PARTITION = 63;

const SECTORS_PER_CLUSTER = CLUSTER / SECTOR;

/** The root directory is two clusters long, which makes the first cluster behind it the one of number 2. */
const ROOT_ENTRIES = 2 * CLUSTER / ENTRY;

/** Number of the volume; the disk's is the same with its halves changed. */
const VOLUME_ID = 0xfabe1afd;
const DISK_ID = 0xbe1afdfa;

/** What is the disk to look like. */
export interface DiskKind {
  /** Bits of a FAT entry; `undefined` for what suits the medium. */
  readonly fatType: FatType | undefined;
  /** A floppy disk: without partitions. */
  readonly floppy: boolean;
}

/** Places and counts. Everything is in bytes unless it says otherwise. */
export interface Layout {
  /** Bits of a FAT entry. */
  readonly fatType: FatType;
  /** The whole disk. */
  readonly length: number;
  /** Offset of the boot sector. */
  readonly boot: number;
  /** Offset of the first FAT. */
  readonly fat: number;
  /** Length of one FAT. */
  readonly fatLength: number;
  /** Offset of the root directory, from which clusters are counted. */
  readonly root: number;
  /** Entries of a root directory that is no chain of clusters. */
  readonly rootEntries: number;
  /** The clusters from number 0 that a folder may fill. */
  readonly capacity: number;
  /** One more than the number of the last cluster that a user of the file system knows. */
  readonly clusterEnd: number;
  /** Sectors of the file system. */
  readonly sectors: number;
  /** Heads, and sectors of a track. */
  readonly heads: number;
  /** Sectors of a track. */
  readonly track: number;
}

/** The layout of a disk. */
export function layoutOf({ fatType: wanted, floppy }: DiskKind): Layout {
  const fatType = wanted ?? (floppy ? 12 : 16);
  const heads = floppy ? 2 : 16;
  // A floppy disk that nobody says more of holds 2.88 MB, one with 12 bits half of it.
  const track = !floppy ? 63 : wanted === 12 ? 18 : 36;
  const cylinders = floppy ? 80 : fatType === 12 ? 64 : 1024;
  const total = cylinders * heads * track;
  const boot = floppy ? 0 : PARTITION;
  const sectors = total - boot;
  // A sector of the FAT stands for so many sectors of clusters, and takes one itself.
  const perFatSector = SECTORS_PER_CLUSTER * (SECTOR * 8 / fatType);
  const fatSectors = divideUp(sectors, Math.floor(perFatSector) + 1);
  const root = boot + 1 + 2 * fatSectors;
  const rootClusters = 2;
  return {
    fatType,
    length: total * SECTOR,
    boot: boot * SECTOR,
    fat: (boot + 1) * SECTOR,
    fatLength: fatSectors * SECTOR,
    root: root * SECTOR,
    rootEntries: ROOT_ENTRIES,
    capacity: Math.floor((sectors - root) / SECTORS_PER_CLUSTER),
    clusterEnd: Math.floor(
      (sectors - (root - boot) - rootClusters * SECTORS_PER_CLUSTER) / SECTORS_PER_CLUSTER,
    ) + rootClusters,
    sectors,
    heads,
    track,
  };
}

/** Everything before the first FAT: the partition table, if there is one, and the boot sector. */
export function makeHead(layout: Layout, label: Uint8Array): Uint8Array {
  const head = new Uint8Array(layout.fat);
  if (layout.boot > 0) writePartitionTable(head, layout);
  writeBootSector(head.subarray(layout.boot), layout, label);
  return head;
}

/** Types of partitions whose last sector has a cylinder of less than 1024, all that there are here. */
const PARTITION_TYPES: Readonly<Record<FatType, number>> = { 12: 0x01, 16: 0x06, 32: 0x0b };

function writePartitionTable(sector: Uint8Array, layout: Layout): void {
  const first = layout.boot / SECTOR;
  const total = layout.length / SECTOR;
  writeU32LE(sector, 0x1b8, DISK_ID);
  sector[0x1be] = 0x80;
  writeAddress(sector.subarray(0x1bf), first, layout);
  sector[0x1c2] = PARTITION_TYPES[layout.fatType];
  writeAddress(sector.subarray(0x1c3), total - 1, layout);
  writeU32LE(sector, 0x1c6, first);
  writeU32LE(sector, 0x1ca, total - first);
  writeU16LE(sector, 0x1fe, 0xaa55);
}

/** Head, sector with the upper bits of the cylinder, cylinder. */
function writeAddress(into: Uint8Array, sector: number, { heads, track }: Layout): void {
  const cylinder = Math.floor(sector / (heads * track));
  into[0] = Math.floor(sector / track) % heads;
  into[1] = sector % track + 1 | (cylinder >> 8) << 6;
  into[2] = cylinder & 0xff;
}

/** Offset of the flags in the boot sector that tell whether the volume was left in order. */
export const VOLUME_FLAGS = 0x25;

function writeBootSector(sector: Uint8Array, layout: Layout, label: Uint8Array): void {
  const { sectors, boot } = layout;
  const isFloppy = boot === 0;
  sector.set([0xeb, 0x3e, 0x90]);
  writeAscii(sector, 0x03, "MSWIN4.1");
  writeU16LE(sector, 0x0b, SECTOR);
  sector[0x0d] = SECTORS_PER_CLUSTER;
  writeU16LE(sector, 0x0e, 1);
  sector[0x10] = 2;
  writeU16LE(sector, 0x11, layout.rootEntries);
  if (sectors <= 0xffff) writeU16LE(sector, 0x13, sectors);
  sector[0x15] = mediumOf(layout);
  writeU16LE(sector, 0x16, layout.fatLength / SECTOR);
  writeU16LE(sector, 0x18, layout.track);
  writeU16LE(sector, 0x1a, layout.heads);
  writeU32LE(sector, 0x1c, boot / SECTOR);
  if (sectors > 0xffff) writeU32LE(sector, 0x20, sectors);
  sector[0x24] = isFloppy ? 0x00 : 0x80;
  sector[0x26] = 0x29;
  writeU32LE(sector, 0x27, VOLUME_ID);
  sector.set(label, 0x2b);
  writeAscii(sector, 0x36, layout.fatType === 12 ? "FAT12   " : "FAT16   ");
  writeU16LE(sector, 0x1fe, 0xaa55);
}

/** The byte that says what the medium is; the FAT begins with it too. */
export function mediumOf({ boot }: Layout): number {
  return boot === 0 ? 0xf0 : 0xf8;
}

function writeAscii(into: Uint8Array, offset: number, text: string): void {
  into.set(new TextEncoder().encode(text), offset);
}
