/**
 * Requests to change key slots (section 6 of the LUKS reference).
 *
 * @module
 */
import { CryptoError } from "./error.ts";
import { DEFAULT_ITER_TIME, type LuksVolume } from "./luks.ts";
import { LUKS_SLOTS } from "./luks_header.ts";

/** Which key slots are to become what. Passphrases are asked for when they are needed. */
export interface KeySlotRequest {
  /** `active` or `inactive`. */
  readonly state: string | undefined;
  /** The one slot, 0 to 7. */
  readonly keyslot: number | undefined;
  /** The passphrase to add. */
  readonly newSecret: (() => Uint8Array) | undefined;
  /** The passphrase whose slots are meant. */
  readonly oldSecret: (() => Uint8Array) | undefined;
  /** How long the new passphrase takes to try, milliseconds. */
  readonly iterTime: bigint | undefined;
  /** Allow what cannot be undone by anybody. */
  readonly force: boolean;
}

/**
 * Adds a passphrase to a volume, or erases slots.
 *
 * @throws {CryptoError} with the reference's texts.
 */
export async function amendKeySlots(volume: LuksVolume, request: KeySlotRequest): Promise<void> {
  switch (request.state) {
    case undefined:
      throw refuse("state", "Parameter 'state' is missing");
    case "active":
      return await activate(volume, request);
    case "inactive":
      return await erase(volume, request);
    default:
      throw refuse("state", `Parameter 'state' does not accept value '${request.state}'`);
  }
}

function refuse(field: string, message: string): CryptoError {
  return new CryptoError(message, field);
}

async function activate(volume: LuksVolume, request: KeySlotRequest): Promise<void> {
  const { keyslot, newSecret, oldSecret, iterTime = DEFAULT_ITER_TIME, force } = request;
  if (newSecret === undefined) {
    throw refuse("new-secret", "'new-secret' is required to activate a keyslot");
  }
  if (oldSecret !== undefined) {
    throw refuse("old-secret", "'old-secret' must not be given when activating keyslots");
  }
  const { slots } = volume.header;
  const free = slots.findIndex(({ active }) => !active);
  if (keyslot === undefined) {
    if (free < 0) throw refuse("keyslot", "Can't add a keyslot - all keyslots are in use");
    return await volume.fillSlot(free, newSecret(), iterTime);
  }
  requireSlot(keyslot);
  if (!slots[keyslot]!.active) return await volume.fillSlot(keyslot, newSecret(), iterTime);
  if (!force) {
    throw refuse(
      "keyslot",
      `Refusing to overwrite active keyslot ${keyslot} - please erase it first`,
    );
  }
  await replace(volume, keyslot, free, newSecret(), iterTime);
}

/**
 * Puts another passphrase into a slot that may hold the only one: as long as
 * its material is neither the old nor the new, another slot opens with the new
 * one, if there is a free one.
 */
async function replace(
  volume: LuksVolume,
  keyslot: number,
  free: number,
  passphrase: Uint8Array,
  iterTime: bigint,
): Promise<void> {
  if (free >= 0) await volume.fillSlot(free, passphrase, iterTime);
  await volume.eraseSlot(keyslot);
  await volume.fillSlot(keyslot, passphrase, iterTime);
  if (free >= 0) await volume.eraseSlot(free);
}

async function erase(volume: LuksVolume, request: KeySlotRequest): Promise<void> {
  const { keyslot, newSecret, oldSecret, iterTime, force } = request;
  if (newSecret !== undefined) {
    throw refuse("new-secret", "'new-secret' must not be given when erasing keyslots");
  }
  if (iterTime !== undefined) {
    throw refuse("iter-time", "'iter-time' must not be given when erasing keyslots");
  }
  const passphrase = oldSecret?.();
  if (keyslot !== undefined) await eraseOne(volume, keyslot, passphrase, force);
  else if (passphrase !== undefined) await eraseMatching(volume, passphrase, force);
  else {
    throw refuse(
      "keyslot",
      "To erase keyslot(s), either explicit keyslot index or the password currently contained " +
        "in them must be given",
    );
  }
}

async function eraseOne(
  volume: LuksVolume,
  keyslot: number,
  passphrase: Uint8Array | undefined,
  force: boolean,
): Promise<void> {
  requireSlot(keyslot);
  const { slots } = volume.header;
  if (passphrase !== undefined && !await volume.slotOpens(keyslot, passphrase)) {
    throw refuse(
      "old-secret",
      `Given keyslot ${keyslot} doesn't contain the given old password for erase operation`,
    );
  }
  if (!force && !slots[keyslot]!.active) {
    throw refuse("keyslot", `Given keyslot ${keyslot} is already erased (inactive) `);
  }
  if (!force && slots.filter(({ active }) => active).length === 1) {
    throw refuse(
      "keyslot",
      `Attempt to erase the only active keyslot ${keyslot} which will erase all the data in the ` +
        "image irreversibly - refusing operation",
    );
  }
  await volume.eraseSlot(keyslot);
}

async function eraseMatching(
  volume: LuksVolume,
  passphrase: Uint8Array,
  force: boolean,
): Promise<void> {
  const active = [...volume.header.slots.keys()].filter((i) => volume.header.slots[i]!.active);
  const matching: number[] = [];
  for (const index of active) {
    if (await volume.slotOpens(index, passphrase)) matching.push(index);
  }
  if (matching.length === 0) {
    throw refuse("old-secret", "No keyslots match given (old) password for erase operation");
  }
  if (!force && matching.length === active.length) {
    throw refuse(
      "old-secret",
      "All the active keyslots match the (old) password that was given and erasing them will " +
        "erase all the data in the image irreversibly - refusing operation",
    );
  }
  for (const index of matching) await volume.eraseSlot(index);
}

function requireSlot(keyslot: number): void {
  if (keyslot >= 0 && keyslot < LUKS_SLOTS) return;
  throw refuse(
    "keyslot",
    // As the reference prints it: 32 bits without a sign.
    `Invalid keyslot ${keyslot >>> 0} specified, must be between 0 and ${LUKS_SLOTS - 1}`,
  );
}
