/**
 * Making images, and how large they would be (sections 5 and 7 of the LUKS reference).
 *
 * @module
 */
import type { CreateRequest, DriverContext, MeasureResult } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { type LuksPlan, planLuks } from "../../lib/block/luks.ts";
import { luksRequest } from "../../lib/block/luks_options.ts";
import type { BlockNode, Preallocation } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { inImage, passphraseOf } from "../../lib/block/passphrase.ts";
import { LuksVolume } from "../../lib/crypto/luks.ts";
import { storeOf } from "./parts.ts";

const PREALLOCATIONS: readonly Preallocation[] = ["off", "metadata", "falloc", "full"];

/** The longest file that the reference knows of. */
const MAX_FILE = 2n ** 63n - 1n;

/**
 * Makes an image: space for its disk, key material, and at last the header. What can be known to fail
 * fails before the file is touched.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const { options, context } = request;
  const how = preallocationOf(options);
  const { plan, passphrase } = planImage(options, context);
  const length = options.exact("size") ?? 0n;
  if (BigInt(plan.headerBytes) + length > MAX_FILE) throw tooLarge(context.filename);
  await using file = await request.createBase();
  try {
    // There are no metadata of space that is not in use.
    await file.resize(plan.headerBytes + Number(length), how === "metadata" ? "off" : how);
  } catch (error) {
    throw ImageError.from(error).errno === "EFBIG" ? tooLarge(context.filename, error) : error;
  }
  const store = storeOf({ file, header: undefined }, context);
  await inImage(context.filename, () => LuksVolume.create(store, plan.parameters, passphrase));
  await store.barrier();
}

function tooLarge(file: string, cause?: unknown): ImageError {
  return new ImageError("The requested file size is too large", {
    errno: "EINVAL",
    file,
    field: "size",
    cause,
  });
}

/** Takes the preallocation out of the options: it is meant for the whole image, and not for an empty file. */
function preallocationOf(options: OptionSet): Preallocation {
  const word = options.string("preallocation") ?? "off";
  options.delete("preallocation");
  const how = PREALLOCATIONS.find((known) => known === word);
  if (how !== undefined) return how;
  throw new ImageError(`invalid parameter value: ${word}`, {
    errno: "EINVAL",
    field: "preallocation",
  });
}

/** The encryption that is asked for, and with what it is opened. */
function planImage(
  options: OptionSet,
  context: Pick<DriverContext, "filename" | "secret">,
): { readonly plan: LuksPlan; readonly passphrase: Uint8Array } {
  const encryption = luksRequest(options, "");
  // As in the reference, which lists the option and takes it only where no command gets.
  if (options.has("detached-header")) {
    throw new ImageError("Parameter 'detached-header' is unexpected", {
      errno: "EINVAL",
      field: "detached-header",
    });
  }
  const passphrase = passphraseOf(options.string("key-secret"), context, "key-secret");
  return { plan: planLuks(encryption, context.filename), passphrase };
}

/**
 * Says how large an image would be: all of it is in the file.
 *
 * @throws {ImageError} for options that {@linkcode createImage} refuses.
 */
export function measureImage(
  options: OptionSet,
  source: BlockNode | undefined,
  secret: DriverContext["secret"],
): MeasureResult {
  const { plan } = planImage(options, { filename: "", secret });
  const size = plan.headerBytes + (source?.length ?? options.number("size") ?? 0);
  return { required: size, fullyAllocated: size };
}
