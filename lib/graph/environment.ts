import type { SecretStore } from "../block/secret.ts";
import type { ObjectStore } from "../block/user_object.ts";

/** What opening and operations need from whoever calls them: where diagnostics go, how far to trust, when to stop. */
export interface Environment {
  /** A warning for the user, without `warning:` and the program's name. */
  warn(text: string): void;
  /**
   * A complete diagnostic line (a check's findings, a corruption notice); the
   * program's name and a colon come before it only if `fromProgram` says so.
   */
  report(line: string, fromProgram?: boolean): void;
  /** Images come from strangers: no implicit references, no oversized tables. */
  readonly untrusted: boolean;
  /** Keys and passphrases; none where absent. */
  readonly secrets?: SecretStore;
  /** What the user defined beside images and secrets; nothing where absent. */
  readonly objects?: ObjectStore;
  /**
   * Images that are opened with the same object here can refer to each other's nodes by their names
   * (`node-name`); without it only nodes of one image can.
   */
  readonly scope?: object;
  /** Ends a running operation early; it then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Says nothing, trusts as the reference tool does. */
export const QUIET: Environment = { warn() {}, report() {}, untrusted: false };
