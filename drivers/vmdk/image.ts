import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { DESCRIPTOR_AREA, MAX_REWRITTEN_DESCRIPTOR, SECTOR } from "./_layout.ts";
import { changeContentId } from "./descriptor.ts";
import type { DiskExtent } from "./extent.ts";

/** What is known of an image once it is open. */
export interface ImageFacts {
  /** The file that the image is opened by. */
  readonly file: BlockNode;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** The parts of the disk, in order. There is at least one. */
  readonly extents: readonly DiskExtent[];
  /** Kind of image. */
  readonly createType: string;
  /** Where in `file` the descriptor lies: 0 if it is all that there is, else 512. */
  readonly descriptorAt: number;
  /** Name of the parent, `""` if there is none. */
  readonly parent: string;
  /** Content id of the parent when this image was put in front of it. */
  readonly parentCid: number;
  /** Content id when the image was opened. */
  readonly cid: number;
}

/** An open image: what all modules of this driver share. */
export class VmdkImage {
  /** What was found when it was opened. */
  readonly facts: ImageFacts;
  /** Bytes of the disk. */
  readonly length: number;
  /** Held by whatever changes metadata. */
  readonly lock = new Mutex();
  /** The open parent, `null` if there is none. */
  backing: BlockNode | null = null;
  /** Content id. */
  cid: number;
  #marking: Promise<void> | undefined;
  #isParentChecked = false;
  #last: DiskExtent;

  /** State over what was found. */
  constructor(facts: ImageFacts) {
    this.facts = facts;
    this.cid = facts.cid;
    this.#last = facts.extents[0]!;
    this.length = facts.extents.reduce((sum, { length }) => sum + length, 0);
  }

  /** The part of the disk in which a byte lies. */
  extentAt(offset: number): DiskExtent {
    const { start, length } = this.#last;
    if (offset >= start && offset < start + length) return this.#last;
    const { extents } = this.facts;
    let low = 0;
    let high = extents.length - 1;
    while (low < high) {
      const middle = low + high + 1 >> 1;
      if (extents[middle]!.start <= offset) low = middle;
      else high = middle - 1;
    }
    // One that is empty begins where the next one does, but is not the last of those.
    return this.#last = extents[low]!;
  }

  /** Flushes a file, unless flushes are not wanted (`cache.no-flush`). */
  async barrier(file: BlockNode): Promise<void> {
    if (!this.facts.context.mode.cache.noFlush) await file.flush();
  }

  /**
   * Gives the image another content id before something is written for the first time, so that images in
   * front of it are no longer taken for such, at a power cut neither.
   *
   * @throws {ImageError} also `EFBIG` for a stand-alone descriptor of more than 16 MiB.
   */
  markWritten(): Promise<void> {
    return this.#marking ??= this.#changeContentId().catch((error) => {
      this.#marking = undefined;
      throw error;
    });
  }

  async #changeContentId(): Promise<void> {
    const { file, descriptorAt, context } = this.facts;
    const length = descriptorAt === 0 ? file.length : DESCRIPTOR_AREA;
    if (length > MAX_REWRITTEN_DESCRIPTOR) {
      context.report("VMDK description file too big", true);
      throw ImageError.fromErrno("EFBIG", { file: file.filename, field: "CID" });
    }
    const before = new Uint8Array(length);
    await readPadded(file, descriptorAt, before);
    const { bytes: after, cid } = changeContentId(before, file.filename);
    // Only sectors that change: as a rule that is one, which a crash cannot tear.
    for (let at = 0; at < after.length; at += SECTOR) {
      const sector = after.subarray(at, at + SECTOR);
      if (sector.every((byte, i) => byte === before[at + i])) continue;
      await file.write(descriptorAt + at, sector);
    }
    if (descriptorAt === 0 && file.exactLength !== after.length) {
      await file.resize(after.length, "off");
    }
    await this.barrier(file);
    this.cid = cid;
  }

  /**
   * Makes sure that the parent is what it was when this image was put in front of it (section 7).
   *
   * @throws {ImageError} `EINVAL` if it is not.
   */
  async requireParent(): Promise<void> {
    if (this.#isParentChecked || this.backing === null) return;
    if (await contentIdOf(this.backing) !== this.facts.parentCid) {
      throw ImageError.fromErrno("EINVAL", {
        file: this.facts.context.filename,
        field: "parentCID",
      });
    }
    this.#isParentChecked = true;
  }
}

/** The content id of any open image that is a VMDK, found in what it tells of itself. */
export async function contentIdOf(node: BlockNode): Promise<number | undefined> {
  const specific = (await node.details?.())?.specific;
  const cid = specific?.type === "vmdk" ? specific.data["cid"] : undefined;
  return typeof cid === "number" ? cid : undefined;
}
