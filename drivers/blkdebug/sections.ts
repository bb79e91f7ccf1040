/**
 * Where rules come from: options of the node and sections of a file. What both have is checked here.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { DEBUG_EVENTS } from "../../lib/block/debug_event.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { hashOrder } from "../../lib/bytes/json.ts";
import { type InjectError, REQUEST_KINDS, type RequestKind, type Rule } from "./rules.ts";

const SECTOR = 512n;
const EIO = 5;
const NO_SECTOR = 2n ** 64n - 1n;

const INJECT_ERROR: readonly OptionSpec[] = [
  { name: "event", type: "str", help: "What has to happen" },
  { name: "state", type: "num", help: "State in which it counts, 0 for any" },
  { name: "iotype", type: "str", help: "Kind of requests that fail" },
  { name: "errno", type: "num", help: "Number of the error" },
  { name: "sector", type: "num", help: "Sector of 512 bytes that requests which fail touch" },
  { name: "once", type: "bool", help: "Only the first request fails" },
  { name: "immediately", type: "bool", help: "It fails without giving others a turn" },
];

const SET_STATE: readonly OptionSpec[] = [
  { name: "event", type: "str", help: "What has to happen" },
  { name: "state", type: "num", help: "State in which it counts, 0 for any" },
  { name: "new_state", type: "num", help: "State from then on" },
];

/** The kinds of sections, in the order in which they are read. */
export const GROUPS: Readonly<Record<Rule["action"], readonly OptionSpec[]>> = {
  "inject-error": INJECT_ERROR,
  "set-state": SET_STATE,
};

/** Settings of one rule. */
export interface Section {
  /** Its kind. */
  readonly group: Rule["action"];
  /** Its settings, checked for their types. */
  readonly settings: OptionSet;
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

/**
 * The sections of a node's own options: `inject-error.event`, `inject-error.0.event` and the like.
 *
 * @throws {ImageError} for numbers with gaps, settings that there are not, values that their types refuse.
 */
export function sectionsOfOptions(options: OptionSet): Section[] {
  return (Object.keys(GROUPS) as Rule["action"][]).flatMap((group) => {
    const prefix = `${group}.`;
    const values = new Map(
      options.keys(prefix).map((key) => [key.slice(prefix.length), options.text(key)!]),
    );
    return sectionsOfGroup(group, values);
  });
}

function sectionsOfGroup(group: Rule["action"], values: ReadonlyMap<string, string>): Section[] {
  if (values.size === 0) return [];
  const single = new Map(values);
  const section = takeSection(group, single);
  if (single.size < values.size) {
    const [unknown] = hashOrder(single.keys());
    if (unknown === undefined) return [section];
    throw invalid(`Unknown option '${unknown}' for [${group}]`, unknown);
  }
  const items: Map<string, string>[] = [];
  const rest = new Map(values);
  for (let i = 0;; i++) {
    const begin = `${i}.`;
    const keys = [...rest.keys()].filter((key) => key.startsWith(begin));
    const isBare = rest.has(String(i));
    if (isBare === keys.length > 0) break;
    items.push(new Map(keys.map((key) => [key.slice(begin.length), rest.get(key)!])));
    for (const key of [...keys, String(i)]) rest.delete(key);
  }
  const [unused] = hashOrder(rest.keys());
  if (unused !== undefined) throw invalid(`Unused option '${unused}' for [${group}]`, unused);
  return items.map((item, index) => {
    if (item.size === 0) {
      throw invalid(`[${group}] section (index ${index}) does not consist of keys`, group);
    }
    const numbered = takeSection(group, item);
    const [unknown] = hashOrder(item.keys());
    if (unknown === undefined) return numbered;
    throw invalid(`[${group}] section doesn't support the option '${unknown}'`, unknown);
  });
}

/** Takes out what sections of this kind have. */
function takeSection(group: Rule["action"], values: Map<string, string>): Section {
  const settings = new OptionSet(GROUPS[group]);
  for (const key of hashOrder(values.keys())) {
    if (!GROUPS[group].some(({ name }) => name === key)) continue;
    settings.set(key, values.get(key)!);
    values.delete(key);
  }
  return { group, settings };
}

/**
 * What sections say, the errors first as the reference has it.
 *
 * @throws {ImageError} for an event or a kind of requests that there is not.
 */
export function rulesOf(sections: readonly Section[]): Rule[] {
  return (Object.keys(GROUPS) as Rule["action"][]).flatMap((group) =>
    sections.filter((section) => section.group === group).map(ruleOf)
  );
}

function ruleOf({ group, settings }: Section): Rule {
  const event = settings.string("event");
  if (event === undefined) throw invalid("Missing event name for rule", "event");
  const condition = {
    event: oneOf(DEBUG_EVENTS, event, "event"),
    state: int32(settings, "state") ?? 0,
  };
  if (group === "set-state") {
    return { ...condition, action: group, newState: int32(settings, "new_state") ?? 0 };
  }
  const sector = settings.exact("sector") ?? NO_SECTOR;
  const rule: InjectError = {
    ...condition,
    action: group,
    errno: int32(settings, "errno") ?? EIO,
    kinds: kindsOf(settings.string("iotype")),
    // Disks end long before an offset is not exact any more.
    offset: sector === NO_SECTOR ? undefined : Number(sector * SECTOR),
    once: settings.flag("once") ?? false,
    immediately: settings.flag("immediately") ?? false,
  };
  return rule;
}

/** Looking at the state of a disk fails only for those who ask for it. */
function kindsOf(name: string | undefined): ReadonlySet<RequestKind> {
  if (name !== undefined) return new Set([oneOf(REQUEST_KINDS, name, "iotype")]);
  return new Set(REQUEST_KINDS.filter((kind) => kind !== "block-status"));
}

function oneOf<T extends string>(values: readonly T[], value: string, field: string): T {
  const found = values.find((name) => name === value);
  if (found === undefined) throw invalid(`invalid parameter value: ${value}`, field);
  return found;
}

/** The low half counts, as in the reference. */
function int32(settings: OptionSet, key: string): number | undefined {
  const value = settings.exact(key);
  return value === undefined ? undefined : Number(BigInt.asIntN(32, value));
}
