import type {
  BackingLink,
  BitmapInfo,
  BitmapStore,
  ImageDetails,
  InfoValue,
  SnapshotInfo,
  SnapshotStore,
} from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, NodeChild, NodeLimits } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { Incompatible } from "./_layout.ts";
import { bitmapInfo, readDirectory } from "./bitmap_directory.ts";
import { imageDetails } from "./details.ts";
import { encryptionDetails } from "./encryption.ts";
import { hasFeature } from "./header.ts";
import { geometryOf, readHeader } from "./header_reader.ts";
import type { ImageFacts } from "./image.ts";
import { readRuntimeOptions } from "./runtime_options.ts";
import { readSnapshotTable } from "./snapshots.ts";

/**
 * Opens an image for what `info` shows, and for nothing else: neither keys nor
 * the data file are needed, and none of the modules that move guest data.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openMetadata(
  file: BlockNode,
  context: DriverContext,
  options?: OptionSet,
): Promise<BlockNode> {
  const header = await readHeader(file, context);
  const geometry = geometryOf(header);
  if (options !== undefined) readRuntimeOptions(options, header, geometry, context);
  const facts: ImageFacts = { file, context, header, geometry };
  const encrypt = await encryptionDetails(file, header, context);
  const snapshots = await readSnapshotTable(facts);
  // With a data file there can be none: see `snapshotStore`.
  const listed = hasFeature(header, Incompatible.dataFile) ? [] : snapshots.entries;
  const bitmaps = (await readDirectory(facts)).map(bitmapInfo);
  return new MetadataNode(facts, listed, bitmaps, encrypt);
}

/** An image whose guest data cannot be reached. */
class MetadataNode implements BlockNode {
  readonly driver = "qcow2";
  readonly readOnly = true;
  readonly length: number;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly backing: BackingLink;
  readonly snapshots: SnapshotStore;
  readonly bitmaps?: BitmapStore;
  readonly #facts: ImageFacts;
  readonly #details: ImageDetails;

  constructor(
    facts: ImageFacts,
    snapshots: readonly SnapshotInfo[],
    bitmaps: readonly BitmapInfo[],
    encrypt: InfoValue | undefined,
  ) {
    const { header, geometry, file } = facts;
    this.#facts = facts;
    this.#details = imageDetails(facts, bitmaps, encrypt);
    this.length = header.size;
    this.limits = {
      requestAlignment: 1,
      clusterSize: geometry.clusterSize,
      zeroAlignment: geometry.subclusterSize,
    };
    this.children = [{ name: "file", node: file }];
    this.backing = {
      name: header.backingFile,
      format: header.backingFormat,
      node: null,
      attach() {},
    };
    this.snapshots = { list: () => snapshots };
    if (header.version >= 3) this.bitmaps = { list: () => bitmaps };
  }

  get filename(): string {
    return this.#facts.context.filename;
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve(this.#details);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#facts.file.allocatedSize();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  read(): Promise<never> {
    return this.#refuse();
  }

  write(): Promise<never> {
    return this.#refuse();
  }

  writeZeroes(): Promise<never> {
    return this.#refuse();
  }

  discard(): Promise<never> {
    return this.#refuse();
  }

  extent(): Promise<never> {
    return this.#refuse();
  }

  resize(): Promise<never> {
    return this.#refuse();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#facts.file[Symbol.asyncDispose]();
  }

  #refuse(): Promise<never> {
    return Promise.reject(
      new ImageError("The image is open for its metadata only", {
        errno: "ENOTSUP",
        file: this.filename,
      }),
    );
  }
}
