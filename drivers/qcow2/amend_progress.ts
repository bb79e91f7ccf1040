import type { AmendRequest } from "../../lib/block/capabilities.ts";

/** How far an operation is: units done, of so many in all. */
export type Step = (done: number, total: number) => void;

/** Adds up the progress of several operations, whose lengths are known one by one, as the reference does. */
export class AmendProgress {
  readonly #operations: number;
  readonly #report: AmendRequest["onProgress"];
  #completed = -1;
  /** Units of the operations before this one, and of this one. */
  #before = 0;
  #total = 0;

  /** Nothing is done of `operations` operations; `report` takes fractions from 0 to 1. */
  constructor(operations: number, report: AmendRequest["onProgress"]) {
    this.#operations = operations;
    this.#report = report;
  }

  /** Starts the next operation. */
  operation(): Step {
    let begun = false;
    return (done, total) => {
      if (!begun) {
        begun = true;
        this.#completed++;
        this.#before += this.#total;
      }
      this.#total = total;
      // Those to come are taken for as long as the ones so far, on average.
      const known = this.#before + total;
      const later = this.#operations - this.#completed - 1;
      const expected = known + Math.floor(known * later / (this.#completed + 1));
      this.#report?.((this.#before + done) / expected);
    };
  }
}
