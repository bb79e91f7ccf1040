/**
 * Making an image (section 8 of the format's reference).
 *
 * @module
 */
import type { CreateRequest } from "../../lib/block/driver.ts";
import { during, ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { GRAIN_SECTORS, NO_PARENT, SECTOR, SPLIT_SECTORS, TABLE_ENTRIES } from "./_layout.ts";
import { fitsEmbedded, newContentId, newDescriptor } from "./descriptor.ts";
import { contentIdOf } from "./image.ts";
import { CREATE_OPTIONS, type CreateParameters, createParameters } from "./options.ts";
import { encodeHeader, planSparse } from "./sparse_header.ts";

/** Directory entries that are written at a time. */
const DIRECTORY_CHUNK = 65536;

/**
 * Makes an image. Options are checked before anything is touched.
 *
 * @throws {ImageError} with the reference's texts; `EFBIG` if the size does not fit the format.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const parameters = createParameters(request.options);
  const parentCid = await parentContentId(request, parameters);
  const { flat, split } = parameters;
  const extents: string[] = [];
  const descriptor = () =>
    newDescriptor({
      cid: newContentId(),
      parentCid,
      createType: parameters.subformat,
      parent: parameters.backingFile,
      extents,
      hardwareVersion: parameters.hardwareVersion,
      size: parameters.size,
      adapterType: parameters.adapterType,
      toolsVersion: parameters.toolsVersion,
    });
  if (!flat && !split) {
    extents.push(`RW ${parameters.size / SECTOR} SPARSE "${partsOf(request.filename).name}"`);
    const text = descriptor();
    if (!fitsEmbedded(text)) throw ImageError.fromErrno("EINVAL", { field: "descriptor" });
    await using file = await request.createBase();
    await formatSparse(file, parameters.size / SECTOR, parameters, text);
    return;
  }
  await using file = await request.createBase();
  for (const { sectors, path, name } of filesOf(request.filename, parameters)) {
    await using extent = await createExtentFile(request, path);
    if (flat) await extent.resize(sectors * SECTOR, "off");
    else await formatSparse(extent, sectors, parameters);
    await extent.flush();
    extents.push(`RW ${sectors} ${flat ? `FLAT "${name}" 0` : `SPARSE "${name}"`}`);
  }
  await file.write(0, descriptor());
}

/** Name of the file, and what stands in front of it. */
function partsOf(filename: string): { folder: string; name: string } {
  const end = ["/", "\\", ":"].map((mark) => filename.lastIndexOf(mark)).find((at) => at >= 0) ??
    -1;
  return { folder: filename.slice(0, end + 1), name: filename.slice(end + 1) };
}

interface ExtentFile {
  readonly sectors: number;
  readonly path: string;
  readonly name: string;
}

/** The files of the extents, in order. */
function* filesOf(
  filename: string,
  { size, flat, split }: CreateParameters,
): Generator<ExtentFile> {
  const { folder, name } = partsOf(filename);
  const dot = name.lastIndexOf(".");
  const prefix = dot < 0 ? name : name.slice(0, dot);
  const postfix = dot < 0 ? "" : name.slice(dot);
  const total = size / SECTOR;
  const step = split ? SPLIT_SECTORS : total;
  for (let start = 0, number = 1; start < total; start += step, number++) {
    const suffix = split ? `${flat ? "f" : "s"}${String(number).padStart(3, "0")}` : "flat";
    const own = `${prefix}-${suffix}${postfix}`;
    yield { sectors: Math.min(step, total - start), path: folder + own, name: own };
  }
}

async function createExtentFile(
  { options, context }: CreateRequest,
  path: string,
): Promise<BlockNode> {
  const own = new Set(CREATE_OPTIONS.map(({ name }) => name));
  const below = options.specs.filter(({ name }) => !own.has(name));
  return await context.createFile("extent", path, options.restrictedTo(below));
}

async function parentContentId(
  { context }: CreateRequest,
  { backingFile }: CreateParameters,
): Promise<number> {
  if (backingFile === "") return NO_PARENT;
  const refuse = (message: string) =>
    new ImageError(message, { errno: "EINVAL", field: "backing_file" });
  if (context.openBacking === undefined) throw refuse("Failed to read parent CID");
  await using node = await context.openBacking(backingFile);
  if (node.driver !== "vmdk") {
    throw refuse(`Invalid backing file format: ${node.driver}. Must be vmdk`);
  }
  const cid = await contentIdOf(node);
  if (cid === undefined) throw refuse("Failed to read parent CID");
  return cid;
}

/**
 * Lays a sparse extent out in an empty file, with all its grain tables. The
 * header comes last: before it the file is nobody's image.
 */
async function formatSparse(
  file: BlockNode,
  capacity: number,
  { stream, zeroGrains }: Pick<CreateParameters, "stream" | "zeroGrains">,
  descriptor?: Uint8Array,
): Promise<void> {
  const plan = planSparse(capacity, {
    grainSectors: GRAIN_SECTORS,
    tableEntries: TABLE_ENTRIES,
    stream,
    zeroGrains,
  });
  const { header } = plan;
  await during(
    "failed to write VMDK header",
    () => file.resize(Number(header.overhead) * SECTOR, "off"),
  );
  await during(
    "failed to write VMDK backup grain directory",
    () => writeDirectory(file, Number(header.redundantAt), plan.redundantTables, plan),
  );
  await during(
    "failed to write VMDK grain directory",
    () => writeDirectory(file, Number(header.directoryAt), plan.firstTable, plan),
  );
  if (descriptor !== undefined) await file.write(SECTOR, descriptor);
  await file.flush();
  await during("failed to write VMDK header", () => file.write(0, encodeHeader(header)));
}

async function writeDirectory(
  file: BlockNode,
  sector: number,
  firstTable: number,
  { tables, tableSectors }: { readonly tables: number; readonly tableSectors: number },
): Promise<void> {
  for (let done = 0; done < tables; done += DIRECTORY_CHUNK) {
    const count = Math.min(DIRECTORY_CHUNK, tables - done);
    const bytes = new Uint8Array(count * 4);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      view.setUint32(i * 4, firstTable + (done + i) * tableSectors, true);
    }
    await file.write(sector * SECTOR + done * 4, bytes);
  }
}
