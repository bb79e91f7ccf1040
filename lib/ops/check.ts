import type { CheckResult, RepairMode } from "../block/capabilities.ts";
import type { CacheMode } from "../block/mode.ts";
import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";

/** How to check. */
export interface CheckOptions {
  /** What may be repaired, default nothing. */
  readonly repair?: RepairMode;
  /** `-T`. */
  readonly cache?: CacheMode;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/** Outcome: the last pass, and what the first one repaired. `undefined`: the format has no check. */
export interface CheckOutcome {
  /** Driver name. */
  readonly format: string;
  /** Result of the last pass (with the first pass's `…Fixed` counts). */
  readonly result: CheckResult;
  /** Something was repaired, and the image was checked again. */
  readonly repaired: { readonly leaks: number; readonly corruptions: number } | undefined;
}

/** Checks (and repairs) an image; findings go to `environment.report`. `onRepaired` is called between the passes. */
export function checkImage(
  _image: ImageReference,
  _options: CheckOptions,
  _environment: Environment,
  _onRepaired?: (counts: { leaks: number; corruptions: number }) => void,
): Promise<CheckOutcome | undefined> {
  throw new Error("in work");
}
