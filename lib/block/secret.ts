/** Keys and passphrases by their ids. Nothing here is ever printed or written to a file. */
export interface SecretStore {
  /** The bytes of a secret, `undefined` if there is none with this id. */
  get(id: string): Uint8Array | undefined;
}
