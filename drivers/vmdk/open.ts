/**
 * Opening an image with all its files.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32LE } from "../../lib/bytes/endian.ts";
import {
  COWD_MAGIC,
  DESCRIPTOR_AREA,
  Flag,
  KDMV_MAGIC,
  MAX_DESCRIPTOR,
  MAX_EXTENTS,
  SECTOR,
} from "./_layout.ts";
import {
  contentId,
  descriptorText,
  type ExtentLine,
  extentLines,
  parentName,
  standAloneType,
} from "./descriptor.ts";
import {
  COWD_FREE_SECTOR_AT,
  type GrainGeometry,
  readCowdHeader,
  readSeSparseHeaders,
} from "./esx_headers.ts";
import type { DiskExtent, GrainExtent } from "./extent.ts";
import type { ImageFacts } from "./image.ts";
import {
  checkHeader,
  decodeHeader,
  hasFooter,
  isCompressed,
  readFooter,
  type SparseHeader,
} from "./sparse_header.ts";
import { GrainTables, UNALLOCATED, ZERO } from "./tables.ts";

/** An extent before its place in the disk is known. */
type Unplaced<E> = E extends DiskExtent ? Omit<E, "start" | "type"> : never;

/** The parts of a disk, and how its image calls itself. */
interface FoundExtents {
  readonly extents: DiskExtent[];
  readonly createType: string;
}

/**
 * Opens the image in `file`. On failure the files that were opened on the way are closed; `file` is left
 * to the caller.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openExtents(file: BlockNode, context: DriverContext): Promise<ImageFacts> {
  if (file.length === 0) {
    throw new ImageError("File is too small, not a valid image", {
      errno: "EINVAL",
      file: file.filename,
    });
  }
  const head = new Uint8Array(SECTOR);
  await readPadded(file, 0, head);
  const magic = readU32LE(head, 0);
  const isSparse = magic === KDMV_MAGIC || magic === COWD_MAGIC;
  const opened: BlockNode[] = [];
  try {
    const found = isSparse
      ? await openSparse(file, head, context, opened)
      : await openDescriptor(await descriptorAt(file, 0), file, context, opened);
    const at = isSparse ? SECTOR : 0;
    const area = new Uint8Array(DESCRIPTOR_AREA);
    await readPadded(file, at, area);
    const text = descriptorText(area);
    return {
      file,
      context,
      ...found,
      descriptorAt: at,
      parent: parentName(text, file.filename),
      cid: contentId(text, "CID", file.filename),
      parentCid: contentId(text, "parentCID", file.filename),
    };
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

/** Closes files because of an error, which is the one to know of whatever else goes wrong. */
async function closeAll(files: readonly BlockNode[]): Promise<void> {
  for (const file of files) {
    try {
      await file[Symbol.asyncDispose]();
    } catch {
      // The first error counts.
    }
  }
}

async function descriptorAt(file: BlockNode, offset: number): Promise<string> {
  const length = Math.min(Math.max(file.length - offset, 0), MAX_DESCRIPTOR);
  const bytes = new Uint8Array(length);
  await readPadded(file, offset, bytes);
  return descriptorText(bytes);
}

/** An image that is one sparse extent. */
async function openSparse(
  file: BlockNode,
  head: Uint8Array,
  context: DriverContext,
  opened: BlockNode[],
): Promise<FoundExtents> {
  if (readU32LE(head, 0) === KDMV_MAGIC) {
    const { capacity, descriptorAt: at } = decodeHeader(head);
    if (capacity === 0n && at !== 0n) {
      // What is embedded stands for itself.
      const offset = at * BigInt(SECTOR);
      const text = offset < BigInt(file.length) ? await descriptorAt(file, Number(offset)) : "";
      return await openDescriptor(text, file, context, opened);
    }
  }
  const extent = await sparseExtent(file, head, context);
  const createType = extent.header === undefined
    ? ""
    : extent.packed === undefined
    ? "monolithicSparse"
    : "streamOptimized";
  return { extents: placed([{ ...extent, type: "" }], file), createType };
}

/** An image whose extents are files of their own. */
async function openDescriptor(
  text: string,
  file: BlockNode,
  context: DriverContext,
  opened: BlockNode[],
): Promise<FoundExtents> {
  let createType = standAloneType(text, file.filename);
  requireFewExtents(text, file);
  const extents: Omit<DiskExtent, "start">[] = [];
  for (const line of extentLines(text, file.filename)) {
    const child = await context.openFile("extent", extentPath(line.filename, file));
    opened.push(child);
    const extent = await openExtent(line, child, context);
    if (extent.kind === "grains" && extent.packed !== undefined) createType = "streamOptimized";
    extents.push({ ...extent, type: line.type });
  }
  if (extents.length === 0) {
    throw new ImageError("invalid VMDK image descriptor: it has no extents", {
      errno: "EINVAL",
      file: file.filename,
      field: "extent",
    });
  }
  return { extents: placed(extents, file), createType };
}

/** Before any is opened: what has too many has as many as it likes. */
function requireFewExtents(text: string, file: BlockNode): void {
  let count = 0;
  try {
    for (const _ of extentLines(text, file.filename)) count++;
  } catch {
    // A line that is wrong is an error when its turn comes, behind those of the files before it.
  }
  if (count <= MAX_EXTENTS) return;
  throw new ImageError(`More than ${MAX_EXTENTS} extents are not supported`, {
    errno: "EFBIG",
    file: file.filename,
    field: "extent",
  });
}

function placed(extents: readonly Omit<DiskExtent, "start">[], file: BlockNode): DiskExtent[] {
  let start = 0;
  return extents.map((extent) => {
    const found = { ...extent, start } as DiskExtent;
    start += extent.length;
    if (start > Number.MAX_SAFE_INTEGER) {
      throw new ImageError("Disks of 2^53 bytes and more are not supported", {
        errno: "EFBIG",
        file: file.filename,
        field: "extent",
      });
    }
    return found;
  });
}

/** The path of an extent's file; relative ones are so to the descriptor. */
function extentPath(name: string, descriptor: BlockNode): string {
  const isWindows = Deno.build.os === "windows";
  if (isWindows ? /^(?:[\\/]|[A-Za-z]:)/.test(name) : name.startsWith("/")) return name;
  const { filename, local } = bottomOf(descriptor);
  if (local === undefined && !filename.includes("/")) {
    throw new ImageError(
      `Cannot use relative paths with VMDK descriptor file '${filename}'`,
      { errno: "EINVAL", file: filename, field: "extent" },
    );
  }
  const folder = Math.max(filename.lastIndexOf("/"), isWindows ? filename.lastIndexOf("\\") : -1);
  return filename.slice(0, folder + 1) + name;
}

/** The file that the descriptor really lies in. */
function bottomOf(node: BlockNode): BlockNode {
  const below = node.children.find(({ name }) => name === "file");
  return below === undefined ? node : bottomOf(below.node);
}

async function openExtent(
  line: ExtentLine,
  file: BlockNode,
  context: DriverContext,
): Promise<Unplaced<DiskExtent>> {
  switch (line.type) {
    case "FLAT":
    case "VMFS": {
      const length = line.sectors * SECTOR;
      const offset = line.offset * SECTOR;
      if (!Number.isSafeInteger(length + offset)) {
        throw new ImageError("Extents beyond 2^53 bytes are not supported", {
          errno: "EFBIG",
          file: context.filename,
          field: "extent",
        });
      }
      return { kind: "flat", length, offset, file };
    }
    case "SPARSE":
    case "VMFSSPARSE": {
      const head = new Uint8Array(SECTOR);
      await readPadded(file, 0, head);
      if (readU32LE(head, 0) === KDMV_MAGIC && decodeHeader(head).capacity === 0n) {
        // It would stand for a descriptor, which could name itself.
        throw new ImageError("Extents without capacity are not supported", {
          errno: "ENOTSUP",
          file: file.filename,
          field: "capacity",
        });
      }
      return await sparseExtent(file, head, context);
    }
    case "SESPARSE":
      return grainExtent(file, await readSeSparseHeaders(file, context.mode.writable));
  }
}

/** A file that begins with one of the two magics. */
async function sparseExtent(
  file: BlockNode,
  head: Uint8Array,
  context: DriverContext,
): Promise<Unplaced<GrainExtent>> {
  switch (readU32LE(head, 0)) {
    case KDMV_MAGIC:
      return await hostedExtent(file, decodeHeader(head), context);
    case COWD_MAGIC:
      return {
        ...grainExtent(file, await readCowdHeader(file)),
        freeSectorAt: COWD_FREE_SECTOR_AT,
      };
    default:
      throw new ImageError("Image not in VMDK format", {
        errno: "EINVAL",
        file: file.filename,
        field: "magic",
      });
  }
}

function grainExtent(file: BlockNode, geometry: GrainGeometry): Unplaced<GrainExtent> {
  const { length, grainSize, layout } = geometry;
  return {
    kind: "grains",
    file,
    length,
    grainSize,
    tables: new GrainTables(file, layout),
    packed: undefined,
    zeroGrains: false,
    header: undefined,
    freeSectorAt: undefined,
  };
}

async function hostedExtent(
  file: BlockNode,
  first: SparseHeader,
  context: DriverContext,
): Promise<Unplaced<GrainExtent>> {
  const header = hasFooter(first) ? await readFooter(file) : first;
  const { mode } = context;
  const geometry = checkHeader(header, file, mode.writable && !mode.metadataOnly);
  const zeroGrains = (header.flags & Flag.zeroGrains) !== 0;
  const extent = grainExtent(file, {
    ...geometry,
    layout: {
      entrySize: 4,
      ...geometry,
      tableEntries: header.tableEntries,
      tablePosition: (view, at) => view.getUint32(at, true) * SECTOR,
      grainPosition(view, at) {
        const entry = view.getUint32(at, true);
        if (entry === 0) return UNALLOCATED;
        return entry === 1 && zeroGrains ? ZERO : entry * SECTOR;
      },
    },
  });
  const packed = isCompressed(header)
    ? { markers: (header.flags & Flag.markers) !== 0 }
    : undefined;
  return { ...extent, zeroGrains, packed, header: { ...header, directoryAt: first.directoryAt } };
}
