/**
 * `--object`: what the user defines beside images, which options then refer to by its id.
 *
 * @module
 */
import type { SecretStore } from "../block/secret.ts";

/** A secret that was defined on the command line. */
export interface SecretObject {
  /** What options call it. */
  readonly id: string;
  /** Its bytes. */
  readonly bytes: Uint8Array;
}

/** The secrets of a command line. */
export function secretStore(objects: readonly SecretObject[]): SecretStore {
  const secrets = new Map(objects.map(({ id, bytes }) => [id, bytes]));
  return { get: (id) => secrets.get(id) };
}
