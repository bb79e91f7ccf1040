/**
 * Making an image (section 9 of the format's reference).
 *
 * @module
 */
import type { CreateRequest, DriverContext } from "../../lib/block/driver.ts";
import { ImageError, reasonText } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { Autoclear, Compatible, Incompatible } from "./_layout.ts";
import { changeBacking } from "./backing.ts";
import {
  announceEncryption,
  type EncryptionPlan,
  makeEncryption,
  planEncryption,
} from "./encryption_create.ts";
import type { Qcow2Header } from "./header.ts";
import { geometryOf } from "./header_reader.ts";
import { encodeHeader, writeHeaderBody, writeMagic } from "./header_writer.ts";
import { Qcow2Image } from "./image.ts";
import { flushImage } from "./lazy.ts";
import { CREATE_OPTIONS, type CreateParameters, createParameters } from "./options.ts";
import { resizeImage } from "./resize.ts";

/**
 * Makes an image. Options are checked before anything is touched.
 *
 * @throws {ImageError} with the reference's texts; `EFBIG` if the size does not fit the format.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const parameters = createParameters(request.options);
  const encryption = parameters.encryption &&
    await planEncryption(parameters.encryption, request.context);
  await using file = await request.createBase();
  await using dataFile = await createDataFile(request, parameters);
  await formatImage(file, dataFile?.node, parameters, request.context, encryption);
}

/** The data file, closed with the block that made it. */
async function createDataFile(
  { options, context }: CreateRequest,
  { dataFile }: CreateParameters,
): Promise<AsyncDisposable & { readonly node: BlockNode } | undefined> {
  if (dataFile === undefined) return undefined;
  const own = new Set(CREATE_OPTIONS.map(({ name }) => name));
  const below = options.specs.filter(({ name }) => !own.has(name));
  const node = await context.createFile("data-file", dataFile, options.restrictedTo(below));
  return { node, [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() };
}

/**
 * Lays an image out in an empty file (and an empty data file).
 *
 * @throws {ImageError} as {@linkcode createImage}.
 */
export async function formatImage(
  file: BlockNode,
  dataFile: BlockNode | undefined,
  parameters: CreateParameters,
  context: DriverContext,
  encryption?: EncryptionPlan,
): Promise<void> {
  const header = newHeader(parameters);
  if (encryption !== undefined) announceEncryption(header, encryption);
  // The name without a protocol's prefix: it is taken literally when the image is opened.
  if (dataFile !== undefined) header.dataFile = dataFile.filename;
  if (parameters.dataFileRaw) header.autoclear |= BigInt(Autoclear.dataFileRaw);
  // Whether it fits is known before anything long is done.
  encodeHeader(header);

  // A refcount table of one cluster, and the first block.
  const { clusterSize } = geometryOf(header);
  const start = new Uint8Array(clusterSize * 2);
  new DataView(start.buffer).setBigUint64(0, BigInt(clusterSize * 2));
  await file.write(clusterSize, start);

  const image = new Qcow2Image(file, header, geometryOf(header), creating(context));
  // The dirty bit is for crashes of images in use; a failed creation leaves no image.
  image.lazyRefcounts = false;
  if (dataFile !== undefined) image.dataFile = dataFile;
  await image.refcounts.load();
  await image.lock.run(() => image.refcounts.allocate(clusterSize * 3));
  try {
    await resizeImage(image, parameters.size, parameters.preallocation);
  } catch (error) {
    throw ImageError.from(error).prefixed("Could not resize image: ");
  }
  const flush = async () => {
    if (context.mode.cache.noFlush) return;
    await file.flush();
    await dataFile?.flush();
  };
  // The magic comes last and alone: before it the file is nobody's image.
  if (parameters.backingFile === "") await writeHeaderBody(image);
  else await assignBacking(image, parameters);
  if (encryption !== undefined) {
    await makeEncryption(image, encryption);
    await writeHeaderBody(image);
  }
  await flushImage(image);
  await flush();
  await writeMagic(image);
  await flush();
}

/**
 * Everything is allowed to the one who makes an image. Its tables are not
 * flushed one after the other: what a crash leaves is no image anyway.
 */
function creating(context: DriverContext): DriverContext {
  return {
    filename: context.filename,
    mode: {
      ...context.mode,
      writable: true,
      metadataOnly: false,
      checking: false,
      noBacking: true,
      resizing: true,
      cache: { ...context.mode.cache, noFlush: true },
    },
    untrusted: false,
    report: (line) => context.report(line),
    warn: (text) => context.warn(text),
    secret: (id) => context.secret(id),
    openFile: (role, filename) => context.openFile(role, filename),
    createFile: (role, filename, options) => context.createFile(role, filename, options),
  };
}

function newHeader(parameters: CreateParameters): Qcow2Header {
  const { version, clusterBits, refcountOrder, compressionType, extendedL2 } = parameters;
  const incompatible = (parameters.dataFile === undefined ? 0 : Incompatible.dataFile) |
    (compressionType === 0 ? 0 : Incompatible.compressionType) |
    (extendedL2 ? Incompatible.extendedL2 : 0);
  return {
    version,
    backingFile: "",
    backingFormat: undefined,
    clusterBits,
    size: 0,
    cryptMethod: 0,
    l1Size: 0,
    l1Offset: 0,
    refcountTableOffset: 2 ** clusterBits,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: BigInt(incompatible),
    compatible: BigInt(parameters.lazyRefcounts ? Compatible.lazyRefcounts : 0),
    autoclear: 0n,
    refcountOrder,
    compressionType,
    unknownFields: new Uint8Array(0),
    dataFile: undefined,
    cryptoHeader: undefined,
    bitmaps: undefined,
    staleBitmaps: false,
    unknownExtensions: [],
    spellings: new Map(),
  };
}

async function assignBacking(
  image: Qcow2Image,
  { backingFile, backingFormat }: CreateParameters,
): Promise<void> {
  try {
    await changeBacking(image, backingFile, backingFormat, writeHeaderBody);
  } catch (error) {
    const { errno } = ImageError.from(error);
    throw new ImageError(
      `Could not assign backing file '${backingFile}' with format ` +
        `'${backingFormat ?? ""}': ${reasonText(error)}`,
      { errno, field: "backing_file", cause: error },
    );
  }
}
