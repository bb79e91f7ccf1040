/** What the user defined beside images (`--object`), which options then refer to by its id. */
export interface UserObject {
  /** What options call it. */
  readonly id: string;
  /** What it is: `tls-creds-x509`, `throttle-group` … */
  readonly type: string;
  /** Its properties as texts, by their names. */
  readonly properties: ReadonlyMap<string, string>;
}

/** Objects by their ids. */
export interface ObjectStore {
  /** The object of this id, `undefined` if there is none. */
  get(id: string): UserObject | undefined;
}
