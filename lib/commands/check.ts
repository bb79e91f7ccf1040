import type { CheckResult, RepairMode } from "../block/capabilities.ts";
import { checkImage, type CheckOutcome } from "../ops/check.ts";
import { type Command, CommandError, defineCommand, UsageError } from "./_command.ts";
import { twoDecimals } from "./_format.ts";
import {
  cacheMode,
  cacheOption,
  environmentOf,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  OUTPUT,
  QUIET,
  UNTRUSTED,
} from "./_options.ts";

/** The format has no check. */
const EXIT_UNSUPPORTED = 63;
const EXIT_INCOMPLETE = 1;
const EXIT_CORRUPT = 2;
const EXIT_LEAKS = 3;

/** `qimg check`: checks the consistency of an image, and repairs it (cli.md, 12.1). */
export const check: Command = defineCommand({
  name: "check",
  description: "Check the consistency of an image, and repair it",
  synopsis: [
    "[--image-opts | -f FMT] [-r leaks|all] [-T CACHE] [--output human|json]",
    "[-q] [-U] [--object OBJECT] [--untrusted] FILENAME",
  ],
  options: {
    quiet: QUIET,
    format: FORMAT,
    cache: cacheOption("T", "cache", "how the host caches the image, default writeback"),
    repair: {
      short: "r",
      long: ["repair"],
      value: "leaks|all",
      help: ["repair leaked clusters, or everything that can be repaired"],
      parse(text: string): RepairMode {
        if (text === "leaks" || text === "all") return text;
        throw new UsageError(`--repair (-r) expects 'leaks' or 'all' not '${text}'`);
      },
    },
    output: OUTPUT,
    forceShare: FORCE_SHARE,
    imageOpts: IMAGE_OPTS,
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image to check"] }],
  access: ({ repair }, [filename]) =>
    repair === undefined ? { reads: [filename] } : { writes: [filename] },
  async run(ctx) {
    const { format, output = "human", repair = "none", cache, quiet, forceShare } = ctx.options;
    const filename = onlyImage(ctx.operands);
    const print = quiet ? () => {} : ctx.out;
    const outcome = await checkImage(
      { filename, format, imageOptions: ctx.options.imageOpts },
      {
        repair,
        forceShare,
        ...(cache === undefined ? {} : { cache: cacheMode(cache, { source: true }) }),
      },
      environmentOf(ctx, ctx.options),
      ({ leaks, corruptions }) => {
        if (output === "human") {
          print(
            "The following inconsistencies were found and repaired:\n\n" +
              `    ${leaks} leaked clusters\n    ${corruptions} corruptions\n\n` +
              "Double checking the fixed image now...\n",
          );
        }
      },
    );
    if (outcome === undefined) {
      throw new CommandError("This image format does not support checks", {
        exitCode: EXIT_UNSUPPORTED,
      });
    }
    if (output === "human") print(humanReport(outcome.result));
    else if (!quiet) ctx.json(jsonReport(filename, outcome));
    return exitCode(outcome.result);
  },
});

function exitCode(result: CheckResult): number {
  if (result.checkErrors > 0) {
    throw new CommandError("Check failed", { exitCode: EXIT_INCOMPLETE });
  }
  return result.corruptions > 0 ? EXIT_CORRUPT : result.leaks > 0 ? EXIT_LEAKS : 0;
}

function humanReport(result: CheckResult): string {
  const { corruptions, leaks, checkErrors, totalClusters, allocatedClusters } = result;
  const parts: string[] = [];
  if (corruptions === 0 && leaks === 0 && checkErrors === 0) {
    parts.push("No errors were found on the image.\n");
  }
  if (corruptions > 0) {
    parts.push(
      `\n${corruptions} errors were found on the image.\n`,
      "Data may be corrupted, or further writes to the image may corrupt it.\n",
    );
  }
  if (leaks > 0) {
    parts.push(
      `\n${leaks} leaked clusters were found on the image.\n`,
      "This means waste of disk space, but no harm to data.\n",
    );
  }
  if (checkErrors > 0) {
    parts.push(`\n${checkErrors} internal errors have occurred during the check.\n`);
  }
  if (totalClusters > 0 && allocatedClusters > 0) {
    parts.push(
      `${allocatedClusters}/${totalClusters} = ${
        percent(allocatedClusters, totalClusters)
      } allocated, `,
      `${percent(result.fragmentedClusters, allocatedClusters)} fragmented, `,
      `${percent(result.compressedClusters, allocatedClusters)} compressed clusters\n`,
    );
  }
  if (result.imageEndOffset > 0) parts.push(`Image end offset: ${result.imageEndOffset}\n`);
  return parts.join("");
}

function percent(part: number, whole: number): string {
  return `${twoDecimals(part * 100 / whole)}%`;
}

function jsonReport(filename: string, { format, result }: CheckOutcome) {
  const ifAny = (count: number) => count === 0 ? undefined : count;
  return {
    filename,
    format,
    "check-errors": result.checkErrors,
    "image-end-offset": ifAny(result.imageEndOffset),
    corruptions: ifAny(result.corruptions),
    leaks: ifAny(result.leaks),
    "corruptions-fixed": ifAny(result.corruptionsFixed),
    "leaks-fixed": ifAny(result.leaksFixed),
    "total-clusters": ifAny(result.totalClusters),
    "allocated-clusters": ifAny(result.allocatedClusters),
    "fragmented-clusters": ifAny(result.fragmentedClusters),
    "compressed-clusters": ifAny(result.compressedClusters),
  };
}
