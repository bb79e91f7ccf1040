/**
 * The protocols of the local host: regular files and devices. Raw reference, sections 1 and 3 to 5.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import type { OpenMode } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { NO_OPTIONS, notDirect, OPEN_OPTIONS, readOpenOptions } from "./open_options.ts";
import { type HostFile, openHostFile, statHostFile } from "../../lib/io/host_file.ts";
import { errnoOf, HostError } from "../../lib/io/errno.ts";
import { failed } from "./_errors.ts";
import { type FileKind, FileNode } from "./node.ts";

const SECTOR = 512;

const FILE: FileKind = { driver: "file", isDevice: false };
const DEVICE: FileKind = { driver: "host_device", isDevice: true };

/** A device in every other respect. */
const CDROM: FileKind = { driver: "host_cdrom", isDevice: true };

const SIZE: OptionSpec = { name: "size", type: "size", help: "Virtual disk size" };

/** Regular files. The options are those of the command-line reference, section 11. */
export const file: ProtocolDriver = {
  name: FILE.driver,
  createOptions: [
    SIZE,
    { name: "nocow", type: "bool", help: "Overwrite blocks in place (only on btrfs)" },
    {
      name: "preallocation",
      type: "str",
      help: "How space is provided (allowed values: off, falloc, full)",
    },
    {
      name: "extent_size_hint",
      type: "size",
      help: "Unit in which the file system is asked to allocate, 0 for its own choice",
    },
  ],
  openOptions: OPEN_OPTIONS,
  open: (filename, context, options) => openNode(FILE, filename, context.mode, options),
  // What only some commands need is loaded when they do.
  async create(filename, options, context) {
    const { createFile } = await import("./create.ts");
    return await createFile(filename, options, context);
  },
  async remove(filename) {
    const { removeFile } = await import("./create.ts");
    removeFile(filename);
  },
};

/** Block and character devices. They cannot be made, but they can stand in for a new file. */
export const hostDevice: ProtocolDriver = {
  name: DEVICE.driver,
  createOptions: [
    SIZE,
    { name: "preallocation", type: "str", help: "How space is provided (allowed values: off)" },
  ],
  openOptions: OPEN_OPTIONS,
  open: (filename, context, options) => openNode(DEVICE, filename, context.mode, options),
  create: (filename, options, context) => overwriteDevice(DEVICE, filename, options, context),
};

/** Drives for discs, as devices. They can be written like these, if the disc can. */
export const hostCdrom: ProtocolDriver = {
  ...hostDevice,
  name: CDROM.driver,
  open: (filename, context, options) => openNode(CDROM, filename, context.mode, options),
  create: (filename, options, context) => overwriteDevice(CDROM, filename, options, context),
};

async function openNode(
  kind: FileKind,
  filename: string,
  mode: OpenMode,
  options: OptionSet = NO_OPTIONS,
): Promise<BlockNode> {
  if (filename === "") {
    throw new ImageError(`The '${kind.driver}' block driver requires a file name`, {
      errno: "EINVAL",
    });
  }
  const { locks, needsDirect } = readOpenOptions(options, mode);
  // Looked at before it is opened: opening a FIFO could wait for ever.
  requireKind(kind, filename, mode, () => statHostFile(filename).kind);
  const host = await openHost(kind, filename, mode);
  if (needsDirect && !mode.cache.direct) {
    host.close();
    throw notDirect();
  }
  try {
    // Once more, for the name may lead elsewhere by now.
    requireKind(kind, filename, mode, () => host.stat().kind);
    if (kind.isDevice && mode.writable) requireWritableDevice(filename);
    const growth = mode.writable ? await import("./growth.ts") : undefined;
    return new FileNode(kind, host, { mode, growth, locks });
  } catch (error) {
    host.close();
    throw failed(`Could not open '${filename}': `, error, filename);
  }
}

/** Lets pass what the driver is for, and what cannot be looked at: opening it gives the better error. */
function requireKind(
  { driver, isDevice }: FileKind,
  filename: string,
  mode: OpenMode,
  look: () => ReturnType<typeof statHostFile>["kind"],
): void {
  let kind: ReturnType<typeof look>;
  try {
    kind = look();
  } catch (error) {
    if (error instanceof HostError) return;
    throw error;
  }
  const matches = isDevice
    ? kind === "block device" || kind === "character device"
    : kind === "file" || kind === "directory" && mode.writable;
  if (matches) return;
  const wanted = isDevice ? "either a character or block device" : "a regular file";
  throw new ImageError(`'${driver}' driver requires '${filename}' to be ${wanted}`, {
    errno: "EINVAL",
    file: filename,
  });
}

async function openHost(kind: FileKind, filename: string, mode: OpenMode): Promise<HostFile> {
  const { writable, cache: { direct, writethrough } } = mode;
  try {
    return await openHostFile(filename, { write: writable, direct, sync: writethrough });
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (
      kind.isDevice && writable && error.denied === undefined &&
      (error.errno === "EACCES" || error.errno === "EROFS")
    ) {
      throw notWritable(error, filename);
    }
    if (direct && error.errno === "EINVAL") {
      throw new ImageError(
        `Could not open '${filename}': filesystem does not support O_DIRECT`,
        { errno: error.errno, file: filename, cause: error },
      );
    }
    throw failed(`Could not open '${filename}': `, error, filename);
  }
}

/** Linux opens a write-protected device for writing all the same, but does not even write nothing to it. */
function requireWritableDevice(filename: string): void {
  try {
    using device = Deno.openSync(filename, { write: true });
    device.writeSync(new Uint8Array(0));
  } catch (error) {
    if (errnoOf(error) !== "EPERM") return;
    throw notWritable(HostError.from(error, "open", filename), filename);
  }
}

function notWritable(error: unknown, filename: string): ImageError {
  return new ImageError("The device is not writable: Permission denied", {
    errno: "EACCES",
    file: filename,
    cause: error,
  });
}

/** Takes an existing device for a new image: the old content's signature goes, the size must do. */
async function overwriteDevice(
  kind: FileKind,
  filename: string,
  options: OptionSet,
  context: DriverContext,
): Promise<boolean> {
  const { growthOptions } = await import("./create.ts");
  const { size, how } = growthOptions(options);
  if (how !== "off") {
    throw new ImageError(`Unsupported preallocation mode '${how}'`, {
      errno: "ENOTSUP",
      field: "preallocation",
    });
  }
  await using node = await openForOverwriting(kind, filename, context);
  await node.lock?.({ uses: ["consistent read", "write", "resize"], unshares: [] });
  await node.resize(size, "off");
  const head = Math.min(node.length, SECTOR);
  await node.write(0, new Uint8Array(head));
  return false;
}

async function openForOverwriting(
  kind: FileKind,
  filename: string,
  context: DriverContext,
): Promise<BlockNode> {
  try {
    return await openNode(kind, filename, { ...context.mode, writable: true });
  } catch (error) {
    throw ImageError.from(error).prefixed(
      `Protocol driver '${kind.driver}' does not support creating new images, so an existing ` +
        "image must be selected as the target; however, opening the given target as an existing " +
        "image failed: ",
    );
  }
}
