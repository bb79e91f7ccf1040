import type { BackingLink } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { hostNameOf } from "../../lib/block/windows_path.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import { formatGuid } from "./guid.ts";
import type { VhdxImage } from "./image.ts";

/** The parent of a differencing image. */
export class Parent implements BackingLink {
  readonly name: string;
  readonly format = "vhdx";
  readonly #image: VhdxImage;
  readonly #dataGuidOf: (node: BlockNode) => Uint8Array | undefined;
  #node: BlockNode | null = null;

  /** The parent that an image names. `dataGuidOf` tells which data an image of this format has. */
  constructor(image: VhdxImage, dataGuidOf: (node: BlockNode) => Uint8Array | undefined) {
    const { context, file, metadata } = image;
    this.#image = image;
    this.#dataGuidOf = dataGuidOf;
    const look = !context.untrusted && !context.mode.noBacking;
    this.name = hostNameOf(metadata.parent!.paths, file, look);
  }

  get node(): BlockNode | null {
    return this.#node;
  }

  /**
   * Takes the parent. One that somebody has put there in another format cannot be told from others.
   *
   * @throws {ImageError} `EINVAL` for an image with other data than those that this one was put in front of.
   */
  attach(node: BlockNode | null): void {
    // Closed with the image in any case.
    this.#node = node;
    const found = node === null ? undefined : this.#dataGuidOf(node);
    if (node === null || found === undefined) return;
    const { linkages } = this.#image.metadata.parent!;
    if (linkages.some((guid) => equalBytes(guid, found))) return;
    throw new ImageError(
      `'${node.filename}' is not the parent of '${this.#image.context.filename}', or has been ` +
        `written to since: its data are ${formatGuid(found)}, not ${formatGuid(linkages[0]!)}`,
      { errno: "EINVAL", file: this.#image.file.filename, field: "parent_linkage" },
    );
  }
}
