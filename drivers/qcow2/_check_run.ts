import type { CheckReport, CheckResult, RepairMode } from "../../lib/block/capabilities.ts";
import { noFindings } from "../../lib/block/check_result.ts";
import type { Qcow2Image } from "./image.ts";

/** A number in hexadecimal, as findings print it without a prefix. */
export function hex(value: number | bigint): string {
  return value.toString(16);
}

/** One run of a check: what it is allowed, and what it found so far. */
export class CheckRun {
  /** The image. */
  readonly image: Qcow2Image;
  /** Leaked clusters are freed. */
  readonly fixLeaks: boolean;
  /** Everything is repaired that can be. */
  readonly fixErrors: boolean;
  /** Where findings go. */
  readonly report: CheckReport;
  /** The counts. */
  readonly result: CheckResult = noFindings();
  /** The refcount structure cannot be repaired piece by piece. */
  rebuild = false;

  /** A run that found nothing yet. */
  constructor(image: Qcow2Image, repair: RepairMode, report: CheckReport) {
    this.image = image;
    this.fixLeaks = repair !== "none";
    this.fixErrors = repair === "all";
    this.report = report;
  }

  /** Whether anything may be written. */
  get repairs(): boolean {
    return this.fixLeaks || this.fixErrors;
  }

  /** Reports a corruption that stays. */
  corruption(line: string): void {
    this.report(line);
    this.result.corruptions++;
  }

  /** Reports that a part of the check could not be done. */
  checkError(line: string, fromProgram = false): void {
    this.report(line, fromProgram);
    this.result.checkErrors++;
  }
}
