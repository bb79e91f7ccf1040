import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";

/** Structures that the overlap guard knows, by their names in messages. */
export type Structure =
  | "qcow2_header"
  | "active L1 table"
  | "refcount table"
  | "snapshot table"
  | "inactive L1 table"
  | "active L2 table"
  | "refcount block"
  | "inactive L2 table"
  | "bitmap directory";

const CONSTANT: readonly Structure[] = [
  "qcow2_header",
  "active L1 table",
  "refcount table",
  "snapshot table",
  "bitmap directory",
];
const CACHED: readonly Structure[] = [
  ...CONSTANT,
  "inactive L1 table",
  "active L2 table",
  "refcount block",
];

/**
 * The levels of `overlap-check`: nothing; what never moves; what is in memory
 * anyway (the default); and the L2 tables of snapshots, too, which are looked
 * up in the file for each write.
 */
export const OVERLAP_LEVELS: Readonly<Record<string, ReadonlySet<Structure>>> = {
  none: new Set(),
  constant: new Set(CONSTANT),
  cached: new Set(CACHED),
  all: new Set([...CACHED, "inactive L2 table"]),
};

/** Options for one structure each. */
const SINGLE: readonly (readonly [name: string, structure: Structure])[] = [
  ["overlap-check.main-header", "qcow2_header"],
  ["overlap-check.active-l1", "active L1 table"],
  ["overlap-check.active-l2", "active L2 table"],
  ["overlap-check.refcount-table", "refcount table"],
  ["overlap-check.refcount-block", "refcount block"],
  ["overlap-check.snapshot-table", "snapshot table"],
  ["overlap-check.inactive-l1", "inactive L1 table"],
  ["overlap-check.inactive-l2", "inactive L2 table"],
  ["overlap-check.bitmap-directory", "bitmap directory"],
];

const LEVEL = "overlap-check";
const TEMPLATE = "overlap-check.template";

/** Runtime options that say what the guard looks at. */
export const OVERLAP_OPTIONS: readonly OptionSpec[] = [
  {
    name: LEVEL,
    type: "str",
    help: "Which metadata writes are kept off: none, constant, cached (default), all",
  },
  { name: TEMPLATE, type: "str", help: "The same, for single structures to be added or taken out" },
  ...SINGLE.map(([name, structure]): OptionSpec => ({
    name,
    type: "bool",
    help: `Writes are kept off the ${structure === "qcow2_header" ? "header" : structure}`,
  })),
];

/**
 * The structures that options choose.
 *
 * @throws {ImageError} `EINVAL` for a level that does not exist, and for two that differ.
 */
export function overlapStructures(options: OptionSet): ReadonlySet<Structure> {
  const [level, template] = [options.string(LEVEL), options.string(TEMPLATE)];
  const refuse = (message: string) => new ImageError(message, { errno: "EINVAL", field: LEVEL });
  if (level !== undefined && template !== undefined && level !== template) {
    throw refuse(
      `Conflicting values for qcow2 options '${LEVEL}' ('${level}') and '${TEMPLATE}' ('${template}')`,
    );
  }
  const name = level ?? template ?? "cached";
  const structures = Object.hasOwn(OVERLAP_LEVELS, name) ? OVERLAP_LEVELS[name] : undefined;
  if (structures === undefined) {
    throw refuse(
      `Unsupported value '${name}' for qcow2 option '${LEVEL}'. Allowed are any of the following: ` +
        Object.keys(OVERLAP_LEVELS).join(", "),
    );
  }
  const chosen = new Set(structures);
  for (const [option, structure] of SINGLE) {
    if (!options.has(option)) continue;
    if (options.flag(option)) chosen.add(structure);
    else chosen.delete(structure);
  }
  return chosen;
}
