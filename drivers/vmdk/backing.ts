import type { BackingLink } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import type { VmdkImage } from "./image.ts";

/** The parent of an image (section 7 of the format's reference). */
export class Backing implements BackingLink {
  readonly name: string;
  readonly format: string | undefined;
  readonly #image: VmdkImage;
  #wrong: BlockNode | undefined;
  #isChecked = false;

  /** The parent that an image names. */
  constructor(image: VmdkImage) {
    this.#image = image;
    this.name = image.facts.parent;
    this.format = this.name === "" ? undefined : "vmdk";
  }

  get node(): BlockNode | null {
    return this.#wrong ?? this.#image.backing;
  }

  attach(node: BlockNode | null): void {
    this.#image.backing = node;
    this.#wrong = undefined;
    this.#isChecked = node === null;
  }

  /** Whether it is still to be found out that the parent is another one than it was. */
  get mayBeWrong(): boolean {
    return !this.#isChecked;
  }

  /**
   * Finds out whether the parent is what it was. If not, what it holds is kept from whoever would read it
   * without asking the image, unless it is open for writing: then it is about to get what the image holds.
   */
  async check(): Promise<void> {
    const { backing } = this.#image;
    try {
      await this.#image.requireParent();
    } catch {
      if (backing?.readOnly) this.#wrong = withheld(backing);
    }
    this.#isChecked = true;
  }

  /** Closes the parent. */
  async close(): Promise<void> {
    await this.#image.backing?.[Symbol.asyncDispose]();
  }
}

/** A node whose bytes cannot be had. */
function withheld(node: BlockNode): BlockNode {
  const read = (): Promise<void> =>
    Promise.reject(
      ImageError.fromErrno("EINVAL", { file: node.filename, field: "parentCID" }),
    );
  return {
    driver: node.driver,
    filename: node.filename,
    readOnly: true,
    length: node.length,
    limits: node.limits,
    children: node.children,
    ...(node.backing === undefined ? {} : { backing: node.backing }),
    read,
    write: read,
    writeZeroes: read,
    discard: () => Promise.resolve(),
    async extent(offset, length): Promise<Extent> {
      const { file: _file, offset: _offset, packed: _packed, ...extent } = await node.extent(
        offset,
        length,
      );
      return extent;
    },
    flush: () => node.flush(),
    resize: read,
    allocatedSize: () => node.allocatedSize(),
    details: () => node.details?.() ?? Promise.resolve({}),
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  };
}
