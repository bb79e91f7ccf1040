/**
 * Making images: a file, and a format's structures in it.
 *
 * @module
 */
import {
  CACHE_MODES,
  childAccess,
  type NodeAccess,
  type OpenMode,
  READ_ONLY,
} from "../block/mode.ts";
import type { DriverContext, FormatDriver, ProtocolDriver } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { OptionSet, type OptionSpec } from "../block/options.ts";
import { createBelow, driverContext, openLocked, sharesFile } from "./context.ts";
import type { Environment } from "./environment.ts";
import { resolveRelative } from "./names.ts";
import { openNode } from "./open.ts";
import { findProtocol, nameFor, type ProtocolName, protocolOf } from "./registry.ts";

/** Where an image is to be made. */
export interface CreateTarget {
  /** The name as given. */
  readonly filename: string;
  /** The format. */
  readonly format: FormatDriver;
  /** The file. */
  readonly name: ProtocolName;
  /** The options that there are: the format's, then the protocol's. */
  readonly specs: readonly OptionSpec[];
}

/** How the files of a new image are opened while it is made. */
const CREATING: OpenMode = {
  ...READ_ONLY,
  writable: true,
  resizing: true,
  cache: CACHE_MODES["writeback"]!,
};

/**
 * Finds out where and with which options an image of a format can be made. Touches nothing.
 *
 * @throws {ImageError} `Unknown protocol '…'`, `Protocol driver '…' does not support image creation`
 */
export async function createTarget(format: FormatDriver, filename: string): Promise<CreateTarget> {
  const named = protocolOf(filename);
  const bare = findProtocol(format.name);
  const name = bare === undefined ? named : { protocol: bare, filename: nameFor(bare, filename) };
  const protocol = await named.protocol.load();
  if (protocol.create === undefined || protocol.createOptions === undefined) {
    throw new ImageError(`Protocol driver '${protocol.name}' does not support image creation`, {
      errno: "ENOTSUP",
      file: filename,
    });
  }
  return {
    filename,
    format,
    name,
    specs: [...format.createOptions ?? [], ...protocol.createOptions],
  };
}

/** A new image, as long as its maker can still change his mind. */
export interface Creation {
  /**
   * Removes what was made, as far as it was not there before; a file that was stays, empty. For an
   * image whose content could not be written.
   */
  undo(): Promise<void>;
}

/**
 * Makes an image. When it fails it has undone what it did.
 *
 * @throws {ImageError} what the driver throws; `EFBIG` in the words for a size that is too large.
 */
export async function createNode(
  target: CreateTarget,
  options: OptionSet,
  environment: Environment,
): Promise<Creation> {
  const { filename, format, name } = target;
  const created: { name: ProtocolName; isNew: boolean }[] = [];
  const onCreate = (name: ProtocolName, isNew: boolean) => created.push({ name, isNew });
  const undo = async () => {
    for (const { name, isNew } of created) await undoCreation(name, isNew, environment);
  };
  const context: DriverContext = {
    ...driverContext(name.filename, CREATING, environment, { onCreate }),
    openBacking: (behind) =>
      openNode(
        { filename: resolveRelative(filename, behind) },
        { ...READ_ONLY, noBacking: true },
        environment,
      ),
  };
  try {
    await format.create!({
      filename,
      options,
      context,
      async createBase() {
        const access = childAccess(CREATING, sharesFile(format));
        await requireUnused(name, access, environment);
        const below = optionsBelow(format, options);
        onCreate(name, await createBelow(name, below, CREATING, environment));
        return await openLocked(name, CREATING, access, environment);
      },
    });
    return { undo };
  } catch (error) {
    await undo();
    throw inWordsFor(format, options, error);
  }
}

/**
 * Refuses to take a file for an image that somebody uses in a way that the image will not bear: once the
 * file is emptied it would be too late.
 */
async function requireUnused(
  name: ProtocolName,
  access: NodeAccess,
  environment: Environment,
): Promise<void> {
  try {
    await using _file = await openLocked(name, CREATING, access, environment);
  } catch (error) {
    // What cannot be opened is not there yet, or cannot be made either.
    if (error instanceof ImageError && error.errno === "EAGAIN") throw error;
  }
}

/** A format's own options (its size, say) are not meant for the file, unless it is nothing but the file. */
function optionsBelow(format: FormatDriver, options: OptionSet): OptionSet {
  if (format.transparent) return options;
  const own = new Set(format.createOptions?.map((spec) => spec.name));
  return options.restrictedTo(options.specs.filter((spec) => !own.has(spec.name)));
}

/** Best effort: the error that led here is the one to know of. */
async function undoCreation(
  name: ProtocolName,
  isNew: boolean,
  environment: Environment,
): Promise<void> {
  try {
    const driver: ProtocolDriver = await name.protocol.load();
    if (isNew) await driver.remove?.(name.filename);
    else await createBelow(name, new OptionSet([]), CREATING, environment);
  } catch {
    // What cannot be removed stays.
  }
}

function inWordsFor(format: FormatDriver, options: OptionSet, error: unknown): unknown {
  if (!(error instanceof ImageError) || error.errno !== "EFBIG") return error;
  const advice = options.number("cluster_size") ? " (try using a larger cluster size)" : "";
  return new ImageError(
    `The image size is too large for file format '${format.name}'${advice}`,
    { errno: "EFBIG", field: "size", file: error.file, cause: error },
  );
}
