import type { CacheMode } from "../block/mode.ts";
import type { OptionPair } from "../block/options.ts";
import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";
import type { Progress } from "./progress.ts";

/** What to convert, and how. */
export interface ConvertOptions {
  /** Sources, concatenated. */
  readonly sources: readonly ImageReference[];
  /** Target name. */
  readonly target: string;
  /** Target format, default raw. */
  readonly targetFormat?: string | undefined;
  /** `-o`. */
  readonly options?: readonly OptionPair[];
  /** Backing file of the target (`-B`). */
  readonly backing?: string | undefined;
  /** Its format (`-F`). */
  readonly backingFormat?: string | undefined;
  /** Write compressed clusters (`-c`). */
  readonly compress?: boolean;
  /** Compression level, default the codec's. */
  readonly compressionLevel?: number | undefined;
  /** The target exists (`-n`). */
  readonly noCreate?: boolean;
  /** It reads as zeros (`--target-is-zero`). */
  readonly targetIsZero?: boolean;
  /** Smallest run of zeros that is skipped, bytes; 0 writes everything (`-S`). `undefined`: 4096. */
  readonly sparseSize?: number | undefined;
  /** Requests in flight, 1 to 16 (`-m`), default 8. */
  readonly parallel?: number | undefined;
  /** Write as data comes (`-W`). */
  readonly outOfOrder?: boolean;
  /** Bytes a second, 0 = no limit (`-r`). */
  readonly rateLimit?: number | undefined;
  /** Unreadable sectors become zeros (`--salvage`). */
  readonly salvage?: boolean;
  /** Host copy offload (`-C`). */
  readonly copyRange?: boolean;
  /** `-T`, default writeback. */
  readonly sourceCache?: CacheMode;
  /** `-t`, default unsafe. */
  readonly targetCache?: CacheMode;
  /** `-U`. */
  readonly forceShare?: boolean;
  /** Called as the copy gets on. */
  readonly onProgress?: Progress;
}

/** Copies images into a new (or existing) one, changing the format. */
export function convertImage(
  _options: ConvertOptions,
  _environment: Environment,
): Promise<void> {
  throw new Error("in work");
}
