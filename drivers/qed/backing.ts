import type { BackingLink } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import {
  encodeHeader,
  Feature,
  HEADER_BYTES,
  MAX_BACKING_NAME,
  type QedHeader,
  SECTOR,
} from "./header.ts";
import type { QedImage } from "./image.ts";

/** The backing file of an image. */
export class Backing implements BackingLink {
  readonly change?: NonNullable<BackingLink["change"]>;
  readonly #image: QedImage;
  #name: string;

  /** The backing file that an image names. */
  constructor(image: QedImage, name: string) {
    this.#image = image;
    this.#name = name;
    this.change = async (name, format) => {
      await image.lock.run(() => changeBacking(image, name, format));
      this.#name = name;
    };
  }

  get name(): string {
    return this.#name;
  }

  /** Only that it is raw is stored; any other is for probing to find out. */
  get format(): string | undefined {
    const { features } = this.#image.header;
    const wanted = Feature.backingFile | Feature.backingIsRaw;
    return (features & wanted) === wanted ? "raw" : undefined;
  }

  get node(): BlockNode | null {
    return this.#image.backing;
  }

  attach(node: BlockNode | null): void {
    this.#image.backing = node;
  }
}

/**
 * Stores another name (`""`: none) and format. A crash leaves the old ones or the new, as long as there is
 * space for both names beside each other.
 *
 * @throws {ImageError} `ENOTSUP` if there may be things in the header that nobody here knows, `ENOSPC` if
 * the name does not fit, `EINVAL` if no image with it could be opened.
 */
async function changeBacking(
  image: QedImage,
  name: string,
  format: string | undefined,
): Promise<void> {
  const { header } = image;
  if (name !== "" && header.compatFeatures !== 0n) {
    throw ImageError.fromErrno("ENOTSUP", { field: "compat_features" });
  }
  const bytes = new TextEncoder().encode(name);
  const next = withBacking(header, bytes, format);
  if (name === "") await image.file.write(0, encodeHeader(next));
  else {
    // Behind the first sector the old name may be in the way.
    const old = header.backingNameOffset + header.backingNameSize;
    const isInTheWay = (header.features & Feature.backingFile) !== 0n && old > SECTOR &&
      HEADER_BYTES + bytes.length > SECTOR;
    const space = header.headerClusters * header.clusterSize;
    if (isInTheWay && old + bytes.length <= space) next.backingNameOffset = old;
    await writeNamed(image, next, bytes);
  }
  await image.barrier();
  Object.assign(header, next);
}

/** Writes a header with a name: what goes into one sector with the header at last, and at once. */
async function writeNamed(image: QedImage, header: QedHeader, name: Uint8Array): Promise<void> {
  const { file } = image;
  const at = header.backingNameOffset;
  const inSector = Math.min(Math.max(SECTOR - at, 0), name.length);
  if (inSector < name.length) {
    await file.write(at + inSector, name.subarray(inSector));
    await image.barrier();
  }
  const head = new Uint8Array(HEADER_BYTES + (at === HEADER_BYTES ? inSector : 0));
  head.set(encodeHeader(header));
  head.set(name.subarray(0, head.length - HEADER_BYTES), HEADER_BYTES);
  await file.write(0, head);
}

/**
 * A header that names a backing file (or none, with an empty name) right behind itself.
 *
 * @throws {ImageError} `ENOSPC` if the name does not fit, `EINVAL` if no image with it could be opened.
 */
export function withBacking(
  header: QedHeader,
  name: Uint8Array,
  format: string | undefined,
): QedHeader {
  if (HEADER_BYTES + name.length > header.headerClusters * header.clusterSize) {
    throw ImageError.fromErrno("ENOSPC", { field: "header" });
  }
  if (name.length > MAX_BACKING_NAME) throw ImageError.fromErrno("EINVAL", { field: "header" });
  const kept = header.features & ~(Feature.backingFile | Feature.backingIsRaw);
  const named = name.length === 0
    ? 0n
    : Feature.backingFile | (format === "raw" ? Feature.backingIsRaw : 0n);
  return {
    ...header,
    features: kept | named,
    backingNameOffset: HEADER_BYTES,
    backingNameSize: name.length,
  };
}
