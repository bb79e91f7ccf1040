/**
 * Writing slots in another thread.
 *
 * @module
 */
import type { DataRun } from "./job.ts";
import type { Partner } from "./partner.ts";
import type { Piece } from "./planner.ts";
import { type ReservedRun, reserveRuns } from "./reserve.ts";
import type { Writer } from "./writer.ts";

/** What it needs of a partner. */
export type SlotPartner = Pick<Partner, "canTake" | "buffer" | "take" | "ended" | "forget">;

/**
 * Lets a partner write what was read from afar, while this thread goes on reading: a server that cannot get
 * rid of its answers has to wait.
 */
export class SlotWriter {
  readonly #writer: Writer;
  readonly #partner: SlotPartner;

  /** The slots are the partner's buffers. */
  constructor(writer: Writer, partner: SlotPartner) {
    this.#writer = writer;
    this.#partner = partner;
  }

  /**
   * Writes a slot with these pieces and their data. False where this thread has to, because the partner has
   * not started yet or could not.
   *
   * @throws {ImageError} `error while writing at byte …`
   */
  async write(
    slot: number,
    pieces: readonly Piece[],
    runs: readonly (readonly DataRun[])[],
  ): Promise<boolean> {
    const partner = this.#partner;
    if (!partner.canTake(slot)) return false;
    const given: ReservedRun[] = [];
    try {
      let from = 0;
      for (const [index, { offset, length }] of pieces.entries()) {
        const bytes = partner.buffer(slot).subarray(from, from + length);
        const scanned = { bytes, offset, runs: runs[index]!, begin: offset };
        await reserveRuns(this.#writer, scanned, from, given);
        from += length;
      }
      partner.take(slot, given, { tell: true });
      const isWritten = await partner.ended(slot);
      partner.forget(slot);
      if (!isWritten) return false;
      for (let run = given.shift(); run !== undefined; run = given.shift()) {
        await this.#writer.publish(run.allocation, pieces[0]!.offset);
      }
      return true;
    } finally {
      for (const { allocation } of given) await allocation.abandon();
    }
  }
}
