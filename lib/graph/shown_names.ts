/**
 * The names that open nodes are shown by. Command-line reference, section 3.4.
 *
 * @module
 */
import type { BlockNode } from "../block/node.ts";
import type { OptionSpec } from "../block/options.ts";
import { formatJson, type JsonValue } from "../bytes/json.ts";
import type { JsonData } from "../bytes/json_reader.ts";
import { JSON_PREFIX, type NodeOptions } from "./node_options.ts";

/** The longest name, bytes; what is cut off gives way to three dots. */
const MAX_NAME = 4095;

/** A name that is known for good only when its image is open. */
export interface ShownName {
  /** As it is now. */
  text: string;
}

/** How to get at the node again. */
interface Description {
  /** Its options and those of all below it, as far as they change what the disk holds. */
  readonly options: { readonly [key: string]: JsonValue };
  /** The name that alone gives this very node, if there is one. */
  readonly exact: string | undefined;
  /** The node is at the bottom. */
  readonly isProtocol: boolean;
}

const descriptions = new WeakMap<BlockNode, Description>();

/** Options of a node that its name has to repeat. */
export function strongOptions(
  options: NodeOptions,
  specs: readonly OptionSpec[],
): ReadonlyMap<string, JsonValue> {
  const strong = new Map<string, JsonValue>();
  const copy = (from: NodeOptions, key: string, shown: string) => {
    const value = from.get(key);
    if (value !== undefined) strong.set(shown, plainValue(value));
  };
  for (const { name, strong: isStrong } of specs) {
    if (!isStrong) continue;
    if (!name.endsWith(".")) {
      copy(options, name, name);
      continue;
    }
    const below = options.copy().takeChild(name.slice(0, -1));
    for (const key of below.keys) copy(below, key, name + key);
  }
  return strong;
}

/** Only containers of nothing are left in flat options. */
function plainValue(value: JsonData): JsonValue {
  if (typeof value !== "object" || value === null) return value;
  return Array.isArray(value) ? [] : {};
}

/** Describes a protocol node and answers with its name. */
export function describeProtocol(node: BlockNode, strong: ReadonlyMap<string, JsonValue>): string {
  const { address } = node;
  const exact = address === undefined ? node.filename : address.exact;
  const options = {
    driver: node.driver,
    ...address?.options ?? { filename: node.filename },
    ...Object.fromEntries(strong),
    ...childDescriptions(node),
  };
  descriptions.set(node, { options, exact, isProtocol: true });
  return exact ?? bounded(JSON_PREFIX + formatJson(options, "compact"));
}

/** What a format node's name depends on beside the nodes below it. */
export interface Circumstances {
  /** Its options that count. */
  readonly strong: ReadonlyMap<string, JsonValue>;
  /**
   * The backing file is not what the image says: another node, or `null` for none. `undefined` if it is
   * the stored one.
   */
  readonly backing: BlockNode | null | undefined;
}

/** Describes a format node and answers with its name. */
export function describeFormat(node: BlockNode, { strong, backing }: Circumstances): string {
  const children = childDescriptions(node);
  if (backing !== undefined) {
    children["backing"] = backing === null ? null : descriptionOf(backing).options;
  }
  const options = { ...Object.fromEntries(strong), driver: node.driver, ...children };
  const file = node.children.find((child) => child.name === "file");
  const below = file === undefined ? undefined : descriptionOf(file.node);
  const isPlain = strong.size === 0 && backing === undefined && node.filtered === undefined &&
    below?.isProtocol;
  const exact = isPlain ? below?.exact : undefined;
  descriptions.set(node, { options, exact, isProtocol: false });
  return exact ?? bounded(JSON_PREFIX + formatJson(options, "compact"));
}

/** Those of the children that options can name; numbered ones are a list. */
function childDescriptions(node: BlockNode): Record<string, JsonValue> {
  const children: Record<string, JsonValue> = {};
  const lists = new Map<string, JsonValue[]>();
  // The one that was attached first comes first.
  for (const child of node.children.toReversed()) {
    if (child.stored) continue;
    const { options } = descriptionOf(child.node);
    const [, list] = /^(.+)\.\d+$/.exec(child.name) ?? [];
    if (list === undefined) {
      children[child.name] = options;
      continue;
    }
    let items = lists.get(list);
    if (items === undefined) lists.set(list, children[list] = items = []);
    items.push(options);
  }
  return children;
}

/** JSON texts here are ASCII. */
function bounded(name: string): string {
  return name.length > MAX_NAME ? `${name.slice(0, MAX_NAME - 3)}...` : name;
}

/** What is known of a node; one that was opened without options is its driver and its name. */
function descriptionOf(node: BlockNode): Description {
  return descriptions.get(node) ?? {
    options: { driver: node.driver, filename: node.filename },
    exact: node.filename,
    isProtocol: node.children.length === 0,
  };
}

/** Says of a node that stands for another what is known of that one. */
export function describeAs(node: BlockNode, original: BlockNode): void {
  const description = descriptions.get(original);
  if (description !== undefined) descriptions.set(node, description);
}

/**
 * The file at the bottom of an image: what it is told apart from others by, and what names in the image
 * are relative to.
 */
export function lowestFile(node: BlockNode): BlockNode {
  const below = node.children.find((child) => child.name === "file")?.node ?? node.filtered;
  return below === undefined ? node : lowestFile(below);
}
