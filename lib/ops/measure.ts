import type { MeasureResult } from "../block/driver.ts";
import type { OptionPair } from "../block/options.ts";
import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";

/** What to measure: a size or an image, for a target format. */
export interface MeasureOptions {
  /** Target format, default raw. */
  readonly format?: string | undefined;
  /** `-o`. */
  readonly options?: readonly OptionPair[];
  /** A mere size, bytes. */
  readonly size?: number | undefined;
  /** Or a source. */
  readonly source?: ImageReference | undefined;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/** Says how much space an image would take. */
export function measureImage(
  _options: MeasureOptions,
  _environment: Environment,
): Promise<MeasureResult> {
  throw new Error("in work");
}
