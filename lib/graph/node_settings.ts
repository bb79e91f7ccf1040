/**
 * What can be said of every node, whatever its driver. Command-line reference, section 4.3.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import type { OpenMode } from "../block/mode.ts";
import { OptionSet, type OptionSpec } from "../block/options.ts";
import { hashOrder } from "../bytes/json.ts";
import { type NodeOptions, valueText } from "./node_options.ts";

const DRIVER = "driver";
const NODE_NAME = "node-name";
const READ_ONLY = "read-only";
const AUTO_READ_ONLY = "auto-read-only";
const DISCARD = "discard";
const DETECT_ZEROES = "detect-zeroes";
const DIRECT = "cache.direct";
const NO_FLUSH = "cache.no-flush";
const FORCE_SHARE = "force-share";

const COMMON_OPTIONS: readonly OptionSpec[] = [
  { name: DRIVER, type: "str", help: "Driver of the node" },
  { name: NODE_NAME, type: "str", help: "Name by which other nodes refer to it" },
  { name: READ_ONLY, type: "bool", help: "Refuse to write" },
  { name: AUTO_READ_ONLY, type: "bool", help: "Open read-only unless somebody writes" },
  { name: "active", type: "bool", help: "Whether the node is active" },
  { name: DISCARD, type: "str", help: "What becomes of discards: ignore (off) or unmap (on)" },
  { name: DETECT_ZEROES, type: "str", help: "Write zeros without data: off, on or unmap" },
  { name: DIRECT, type: "bool", help: "Bypass the host's page cache" },
  { name: NO_FLUSH, type: "bool", help: "Ignore requests to flush" },
  { name: FORCE_SHARE, type: "bool", help: "Share the image with whoever uses it" },
];

/** What a node has from the one above it, or from the command. */
export interface Inherited {
  /** How it is opened where its own options do not say otherwise. */
  readonly mode: OpenMode;
  /** Somebody is going to write. */
  readonly written: boolean;
  /** Read-only as long as nobody is. */
  readonly autoReadOnly: boolean;
}

/** What becomes of data that is nothing but zeros. */
export type DetectZeroes = "off" | "on" | "unmap";

/** What the options of a node say of it. */
export interface NodeSettings extends Inherited {
  /** Its name, `undefined` if it has none. */
  readonly nodeName: string | undefined;
  /** Zeros in the data that is written. */
  readonly detectZeroes: DetectZeroes;
}

/** How a node is opened, as far as what comes below it has to know; the values are checked later. */
export function inheritedMode(
  options: NodeOptions,
  { mode, written, autoReadOnly }: Inherited,
): Inherited {
  const flag = (key: string, otherwise: boolean) =>
    options.has(key) ? options.isOn(key) : otherwise;
  const auto = flag(AUTO_READ_ONLY, autoReadOnly);
  const writable = !flag(READ_ONLY, !mode.writable) && (written || !auto);
  return {
    written,
    autoReadOnly: auto,
    mode: {
      ...mode,
      writable,
      resizing: mode.resizing && writable,
      forceShare: flag(FORCE_SHARE, mode.forceShare),
      cache: {
        ...mode.cache,
        direct: flag(DIRECT, mode.cache.direct),
        noFlush: flag(NO_FLUSH, mode.cache.noFlush),
      },
    },
  };
}

/**
 * Takes the common options out and checks them.
 *
 * @throws {ImageError} for a value that is none, and for what contradicts itself.
 */
export function takeSettings(options: NodeOptions, inherited: Inherited): NodeSettings {
  const common = takeOptions(options, COMMON_OPTIONS).settled();
  const { mode } = inherited;
  if (mode.forceShare && mode.writable) {
    throw invalid("force-share=on can only be used with read-only images", FORCE_SHARE);
  }
  const unmap = readDiscard(common.string(DISCARD), mode.unmap);
  const detectZeroes = readDetectZeroes(common.string(DETECT_ZEROES), unmap);
  return {
    ...inherited,
    mode: { ...mode, unmap },
    nodeName: common.string(NODE_NAME),
    detectZeroes,
  };
}

function readDiscard(text: string | undefined, otherwise: boolean): boolean {
  switch (text) {
    case undefined:
      return otherwise;
    case "on":
    case "unmap":
      return true;
    case "off":
    case "ignore":
      return false;
    default:
      throw invalid("Invalid discard option", DISCARD);
  }
}

function readDetectZeroes(text: string | undefined, unmap: boolean): DetectZeroes {
  const value = text ?? "off";
  if (value !== "off" && value !== "on" && value !== "unmap") {
    throw invalid(`invalid parameter value: ${value}`, DETECT_ZEROES);
  }
  if (value === "unmap" && !unmap) {
    throw invalid(
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
      DETECT_ZEROES,
    );
  }
  return value;
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

/**
 * Takes out the options that `specs` name. A spec whose name ends with a dot stands for all that begin
 * so. The values are checked when the first of them is asked for.
 */
export function takeOptions(options: NodeOptions, specs: readonly OptionSpec[]): OptionSet {
  const texts = new Map<string, string>();
  const take = (from: NodeOptions, key: string, shown: string) => {
    const value = from.get(key);
    const text = value === undefined ? undefined : valueText(value);
    if (text !== undefined) texts.set(shown, text);
    from.delete(key);
  };
  for (const { name } of specs) {
    if (!name.endsWith(".")) {
      take(options, name, name);
      continue;
    }
    const child = options.takeChild(name.slice(0, -1));
    for (const key of child.keysAsGiven) take(child, key, name + key);
  }
  const pairs = hashOrder(texts.keys()).map((key) => [key, texts.get(key)!] as const);
  return OptionSet.unchecked(specs, pairs);
}
