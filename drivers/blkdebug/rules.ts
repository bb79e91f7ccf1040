/**
 * What a debugging node does when: rules that wait for events, and the state that they change.
 *
 * @module
 */
import type { DebugEvent } from "../../lib/block/debug_event.ts";

/** The kinds of requests, by the names that options have for them. */
export const REQUEST_KINDS = [
  "read",
  "write",
  "write-zeroes",
  "discard",
  "flush",
  "block-status",
] as const;

/** One of them. */
export type RequestKind = typeof REQUEST_KINDS[number];

/** What every rule waits for. */
interface Condition {
  /** The event. */
  readonly event: DebugEvent;
  /** The state in which it counts, 0 for any. */
  readonly state: number;
}

/** After the event, requests fail until another rule of this kind takes over. */
export interface InjectError extends Condition {
  /** Tells it from the other kind. */
  readonly action: "inject-error";
  /** Linux's number of the error, 0 for none. */
  readonly errno: number;
  /** The requests that fail. */
  readonly kinds: ReadonlySet<RequestKind>;
  /** Only requests that touch this byte fail; `undefined`: all do. */
  readonly offset: number | undefined;
  /** Only the first one fails. */
  readonly once: boolean;
  /** It fails without giving others a turn. */
  readonly immediately: boolean;
}

/** The event changes the state. */
export interface SetState extends Condition {
  /** Tells it from the other kind. */
  readonly action: "set-state";
  /** The state from then on. */
  readonly newState: number;
}

/** A rule. */
export type Rule = InjectError | SetState;

const FIRST_STATE = 1;

/** The rules of a node and how far they have come. */
export class RuleBook {
  readonly #rules: Rule[];
  #active: readonly InjectError[] = [];
  #state = FIRST_STATE;

  /** Rules in the order in which they count. Those that wait for `none` are active from now on. */
  constructor(rules: readonly Rule[]) {
    this.#rules = [...rules];
    this.raise("none");
  }

  /** The state that the rules are in. */
  get state(): number {
    return this.#state;
  }

  /** Something is about to be done. */
  raise(event: DebugEvent): void {
    const met = this.#rules.filter((rule) =>
      rule.event === event && (rule.state === 0 || rule.state === this.#state)
    );
    const injections = met.filter((rule) => rule.action === "inject-error");
    if (injections.length > 0) this.#active = injections;
    // The reference goes through its rules from the last one, and the one that it comes to last counts.
    const change = met.find((rule) => rule.action === "set-state");
    if (change !== undefined) this.#state = change.newState;
  }

  /** The rule by which a request has to fail; one that fails only once is done with then. */
  failing(kind: RequestKind, offset: number, length: number): InjectError | undefined {
    const rule = this.#active.find(({ kinds, offset: at }) =>
      kinds.has(kind) && (at === undefined || (offset <= at && at < offset + length))
    );
    if (rule === undefined || rule.errno === 0) return undefined;
    if (rule.once) {
      this.#active = this.#active.filter((other) => other !== rule);
      this.#rules.splice(this.#rules.indexOf(rule), 1);
    }
    return rule;
  }
}
