/**
 * The protocol of folders that are shown as disks with a FAT file system.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { OptionSet } from "../../lib/block/options.ts";
import { HostError } from "../../lib/io/errno.ts";
import { FolderDisk } from "./folder_disk.ts";
import { layoutOf, makeHead } from "./layout.ts";
import { FolderNode } from "./node.ts";
import { folderRequest, OPEN_OPTIONS } from "./options.ts";
import { scanFolder } from "./scan.ts";

/** The driver. Disks are not made: their folders are there. */
export const vvfat: ProtocolDriver = {
  name: "vvfat",
  openOptions: OPEN_OPTIONS,
  open,
};

async function open(
  filename: string,
  context: DriverContext,
  options: OptionSet = new OptionSet(OPEN_OPTIONS),
): Promise<BlockNode> {
  const request = folderRequest(filename, options);
  const { dir, fatType, floppy, label, writesBack, named } = request;
  if (fatType === 32) {
    context.warn("FAT32 has not been tested. You are welcome to do so!");
  }
  requireMode(writesBack, context);
  if (writesBack && fatType === 32) {
    throw new ImageError("Changes can be written back with FAT12 and FAT16 only", {
      errno: "ENOTSUP",
      field: "fat-type",
    });
  }
  const layout = layoutOf({ fatType, floppy });
  // What is written back is held against the folder's one name without links.
  const folder = writesBack ? realFolder(dir) : dir;
  const tree = scanFolder({ folder, layout, label, findLinks: writesBack }, context);
  const disk = new FolderDisk(layout, makeHead(layout, label), tree);
  const shown = { context, layout, address: { exact: undefined, options: named } };
  if (!writesBack) return new FolderNode(disk, shown, undefined);
  const { WriteBack } = await import("./write_back.ts");
  return new FolderNode(disk, shown, new WriteBack(disk, layout, context));
}

/** A disk is written only if its folder is. */
function requireMode(writesBack: boolean, { mode }: DriverContext): void {
  if (mode.writable === writesBack) return;
  throw writesBack
    ? new ImageError("Unable to set VVFAT to 'rw' when drive is read-only", {
      errno: "EPERM",
      field: "rw",
    })
    : new ImageError("Image is read-only", { errno: "EACCES" });
}

function realFolder(dir: string): string {
  try {
    return dir === "" ? "" : Deno.realPathSync(dir);
  } catch (error) {
    if (!(HostError.from(error, "open", dir) instanceof HostError)) throw error;
    throw new ImageError(`Could not read directory ${dir}`, {
      errno: "EIO",
      file: dir,
      field: "dir",
      cause: error,
    });
  }
}
