/**
 * Encrypting a new image (section 14; section 8 of the LUKS reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import type { LuksPlan } from "../../lib/block/luks.ts";
import { inImage, passphraseOf } from "../../lib/block/passphrase.ts";
import { luksStore } from "./encryption.ts";
import type { EncryptionRequest } from "./encryption_options.ts";
import type { Qcow2Header } from "./header.ts";
import type { Qcow2Image } from "./image.ts";

/** An encryption that can be made. */
export interface EncryptionPlan {
  /** Value of the header's `crypt_method`. */
  readonly method: 1 | 2;
  /** The passphrase. */
  readonly passphrase: Uint8Array;
  /** LUKS: how. */
  readonly luks?: LuksPlan;
}

/**
 * Looks the secret up and refuses what cannot be made.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function planEncryption(
  request: EncryptionRequest,
  context: Pick<DriverContext, "filename" | "secret">,
): Promise<EncryptionPlan> {
  const passphrase = passphraseOf(request.secret, context, "encrypt.key-secret");
  if (request.format === "aes") return { method: 1, passphrase };
  const { planLuks } = await import("../../lib/block/luks.ts");
  return { method: 2, passphrase, luks: planLuks(request.luks, context.filename) };
}

/** Bytes that the LUKS header of a planned encryption takes in the file, key slots included; 0 without one. */
export function encryptionHeaderBytes({ luks }: EncryptionPlan): number {
  return luks?.headerBytes ?? 0;
}

/** Lets the header of a new image say what it will, so that its size is known. */
export function announceEncryption(header: Qcow2Header, plan: EncryptionPlan): void {
  header.cryptMethod = plan.method;
  const length = encryptionHeaderBytes(plan);
  if (length > 0) header.cryptoHeader = { offset: 0, length };
}

/**
 * Makes the encryption of a new image whose header announced it: clusters for
 * the LUKS header, zeroed and filled. The image's header is left to the caller.
 *
 * @throws {ImageError} of the file, or for times that no header can say.
 */
export async function makeEncryption(image: Qcow2Image, plan: EncryptionPlan): Promise<void> {
  const { luks, passphrase } = plan;
  if (luks === undefined) return;
  const { file, header, refcounts, context, geometry: { clusterSize } } = image;
  const length = encryptionHeaderBytes(plan);
  const offset = await image.lock.run(() => refcounts.allocate(length));
  header.cryptoHeader = { offset, length };
  const clusters = Math.ceil(length / clusterSize) * clusterSize;
  await image.overlap.check(offset, clusters);
  await file.writeZeroes(offset, clusters, { unmap: false });
  const { LuksVolume } = await import("../../lib/crypto/luks.ts");
  await inImage(
    context.filename,
    () => LuksVolume.create(luksStore(image), luks.parameters, passphrase),
  );
}
