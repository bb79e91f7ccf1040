/**
 * LUKS volumes in images: opened, planned and amended as their options say.
 *
 * @module
 */
import { masterKeyBytes } from "../crypto/algorithms.ts";
import {
  DEFAULT_ITER_TIME,
  type LuksParameters,
  type LuksStore,
  LuksVolume,
  requireCreatable,
} from "../crypto/luks.ts";
import { amendKeySlots } from "../crypto/luks_amend.ts";
import { luksLayout } from "../crypto/luks_header.ts";
import type { DriverContext } from "./driver.ts";
import type { LuksRequest } from "./luks_options.ts";
import type { OptionSet } from "./options.ts";
import { inImage, passphraseOf } from "./passphrase.ts";

/** Most iterations of a key that a header of a stranger may ask for: about a minute. */
const MOST_UNTRUSTED_ITERATIONS = 1 << 27;

/**
 * Opens the volume of an image.
 *
 * @throws {ImageError} as `LuksVolume.open`, and for headers of strangers that ask for hours of work.
 */
export function openLuks(
  store: LuksStore,
  passphrase: Uint8Array,
  { filename, untrusted }: Pick<DriverContext, "filename" | "untrusted">,
  { detached = false }: {
    /** The payload is in another file. */
    readonly detached?: boolean;
  } = {},
): Promise<LuksVolume> {
  const maxIterations = untrusted ? MOST_UNTRUSTED_ITERATIONS : Infinity;
  return inImage(
    filename,
    () => LuksVolume.open(store, passphrase, { detached, maxIterations }),
  );
}

/** A volume that can be made. */
export interface LuksPlan {
  /** How. */
  readonly parameters: LuksParameters;
  /** Bytes of its header, key slots included. */
  readonly headerBytes: number;
}

/**
 * Refuses what cannot be made.
 *
 * @throws {ImageError} with the reference's texts.
 */
export function planLuks(request: LuksRequest, filename: string): LuksPlan {
  const parameters = { ...request, iterTime: request.iterTime ?? DEFAULT_ITER_TIME };
  inImage(filename, () => requireCreatable(parameters));
  return { parameters, headerBytes: luksLayout(masterKeyBytes(parameters)).payloadOffset };
}

/**
 * Changes the key slots of an image's volume as the options that begin with `prefix` say. Ended anywhere,
 * every slot is as it was or as it is to be. With `force` even that is done which nobody can undo: to
 * erase the last key, or to replace one.
 *
 * @throws {ImageError} with the reference's texts; nothing is changed by options that do not go together.
 */
export async function amendLuks(
  volume: LuksVolume,
  options: OptionSet,
  prefix: string,
  { context, force }: { readonly context: DriverContext; readonly force: boolean },
): Promise<void> {
  const secret = (key: string) => {
    const id = options.string(prefix + key);
    return id === undefined ? undefined : () => passphraseOf(id, context, prefix + key);
  };
  await inImage(context.filename, () =>
    amendKeySlots(volume, {
      state: options.string(`${prefix}state`),
      keyslot: options.integer(`${prefix}keyslot`, "keyslot"),
      newSecret: secret("new-secret"),
      oldSecret: secret("old-secret"),
      iterTime: options.exact(`${prefix}iter-time`),
      force,
    }));
}
