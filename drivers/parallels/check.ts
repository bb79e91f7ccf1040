/**
 * Checking an image, and repairing it (section 6 of the format's reference).
 *
 * @module
 */
import type { CheckReport, CheckResult, RepairMode } from "../../lib/block/capabilities.ts";
import { noFindings } from "../../lib/block/check_result.ts";
import { divideUp } from "../../lib/bytes/align.ts";
import { type ParallelsImage, usedPositions } from "./image.ts";

/** One check: what is found, and what is done about it. */
class Check {
  readonly #image: ParallelsImage;
  readonly #repair: RepairMode;
  readonly #report: CheckReport;
  readonly #result: CheckResult;
  /** Copies of clusters go behind all others, as the reference has them where it does not know of holes. */
  #appends: boolean;

  constructor(image: ParallelsImage, repair: RepairMode, report: CheckReport) {
    this.#image = image;
    this.#repair = repair;
    this.#report = report;
    this.#appends = image.wasInUse || image.endAtOpen > image.file.length;
    this.#result = {
      ...noFindings(),
      totalClusters: image.table.length,
    };
  }

  async run(): Promise<CheckResult> {
    const image = this.#image;
    this.#checkInUse();
    await this.#checkDataStart();
    this.#checkOutside();
    await this.#cutTail(true);
    await this.#checkDuplicates();
    this.#countClusters();
    if (!image.context.mode.writable) return this.#result;
    await image.storeTable();
    image.findSpace();
    return this.#result;
  }

  #checkInUse(): void {
    if (!this.#image.wasInUse) return;
    // The mark itself goes when the image is closed.
    if (this.#corruption("image was not closed correctly")) this.#image.wasInUse = false;
  }

  async #checkDataStart(): Promise<void> {
    const { header, file } = this.#image;
    if (header.dataStart(file.length) !== undefined) return;
    if (!this.#corruption("data_off field has incorrect value")) return;
    header.repairDataStart();
    this.#appends = false;
    await this.#image.storeHeader();
  }

  #checkOutside(): void {
    const { table, header, endAtOpen, space } = this.#image;
    const { clusterSize } = header;
    const fileLength = this.#image.file.length;
    let end = 0;
    // In a file shorter than a cluster there is no room for any, to the reference: not for one that is 0.
    const entries = clusterSize > fileLength ? range(table.storedLength) : table.used();
    for (const index of entries) {
      const position = table.get(index);
      if (position !== 0 && this.#image.isInside(position)) {
        end = Math.max(end, position + clusterSize);
        continue;
      }
      if (this.#corruption(`cluster ${index} is outside image`) && position !== 0) {
        table.set(index, 0);
      }
    }
    this.#result.imageEndOffset = end > 0 ? end : Math.max(endAtOpen, space?.dataEnd ?? 0);
  }

  /** Cuts off what lies behind the last cluster. */
  async #cutTail(isFinding: boolean): Promise<void> {
    const { file, header } = this.#image;
    const end = this.#result.imageEndOffset;
    const rest = file.length - end;
    if (rest <= 0) return;
    const count = divideUp(rest, header.clusterSize);
    const isRepaired = this.#repair !== "none";
    if (isFinding) {
      this.#report(`${verb(isRepaired)} space leaked at the end of the image ${rest}`);
      this.#result.leaks += count;
    }
    if (!isRepaired) return;
    await this.#image.dropExtension();
    // What is cut off must not be in the table any more.
    await this.#image.storeTable();
    await file.resize(end, "off");
    if (isFinding) this.#markFixed("leaks", count);
  }

  async #checkDuplicates(): Promise<void> {
    const image = this.#image;
    const { table, header: { clusterSize } } = image;
    const positions = usedPositions(image);
    const hasDuplicates = positions.some((position, i) =>
      i > 0 && position < positions[i - 1]! + clusterSize
    );
    if (!hasDuplicates) return;
    const seen = new Map<number, number>();
    const isTaken = (position: number) => {
      const place = Math.floor(position / clusterSize);
      return seen.has(place) || seen.get(place - 1)! + clusterSize > position ||
        seen.get(place + 1)! < position + clusterSize;
    };
    let isCopied = false;
    for (const index of table.used()) {
      const position = table.get(index);
      if (!image.isInside(position)) continue;
      if (!isTaken(position)) {
        seen.set(Math.floor(position / clusterSize), position);
        continue;
      }
      if (!this.#corruption(`duplicate offset in BAT entry ${index}`)) continue;
      if (!isCopied) image.findSpace();
      isCopied = true;
      const copy = await this.#copyCluster(position);
      table.set(index, copy);
      seen.set(Math.floor(copy / clusterSize), copy);
      this.#result.imageEndOffset = Math.max(this.#result.imageEndOffset, copy + clusterSize);
    }
    if (isCopied) await this.#cutTail(false);
  }

  /** Copies a cluster to a place of its own. */
  async #copyCluster(position: number): Promise<number> {
    const { file, space, header: { clusterSize } } = this.#image;
    await this.#image.dropExtension();
    const hole = this.#appends ? undefined : space!.take(1);
    const copy = hole === undefined ? space!.append() : hole.position;
    const step = new Uint8Array(Math.min(clusterSize, COPY_STEP));
    for (let done = 0; done < clusterSize; done += step.length) {
      const part = step.subarray(0, clusterSize - done);
      await file.read(position + done, part);
      await file.write(copy + done, part);
    }
    return copy;
  }

  #countClusters(): void {
    const { table, header: { clusterSize } } = this.#image;
    const result = this.#result;
    /** Where the cluster before this one is, if it counts. */
    let before = 0;
    let expected = 0;
    for (const index of table.used()) {
      const position = table.get(index);
      if (index !== expected) before = 0;
      expected = index + 1;
      if (position + clusterSize > result.imageEndOffset) {
        before = 0;
        continue;
      }
      if (before !== 0 && before + clusterSize !== position) result.fragmentedClusters++;
      before = position;
      result.allocatedClusters++;
    }
  }

  /** Counts a corruption; true if it is to be repaired, and counted as such. */
  #corruption(what: string): boolean {
    const isRepaired = this.#repair === "all";
    this.#report(`${verb(isRepaired)} ${what}`);
    this.#result.corruptions++;
    if (isRepaired) this.#markFixed("corruptions", 1);
    return isRepaired;
  }

  #markFixed(what: "corruptions" | "leaks", count: number): void {
    this.#result[`${what}Fixed`] += count;
  }
}

/** Bytes of a cluster that are copied at a time. */
const COPY_STEP = 1 << 20;

function verb(isRepaired: boolean): string {
  return isRepaired ? "Repairing" : "ERROR";
}

function* range(end: number): Generator<number, void, undefined> {
  for (let index = 0; index < end; index++) yield index;
}

/**
 * Checks an image, and repairs what `repair` allows.
 *
 * @throws {ImageError} for failed I/O.
 */
export async function checkImage(
  image: ParallelsImage,
  repair: RepairMode,
  report: CheckReport,
): Promise<CheckResult> {
  return await new Check(image, repair, report).run();
}

/** Whether nobody may write to an image before it is repaired (section 2). */
export function needsRepair(image: ParallelsImage): boolean {
  const { header, file, table, wasInUse, endAtOpen, dataStart } = image;
  if (wasInUse || header.dataStart(file.length) === undefined) return true;
  if (endAtOpen > file.length || dataStart > file.length) return true;
  for (const index of table.used()) {
    if (!image.isInside(table.get(index))) return true;
  }
  const positions = usedPositions(image);
  return positions.some((position, i) =>
    i > 0 && position < positions[i - 1]! + header.clusterSize
  );
}
