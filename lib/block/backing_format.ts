import { ImageError } from "./error.ts";
import type { OptionSet } from "./options.ts";

/** Names that a stored backing format may have: every driver of the reference, whether it is here or not. */
const BACKING_FORMATS = new Set(
  ("blkdebug blklogwrites blkverify bochs cloop compress copy-before-write copy-on-read dmg file " +
    "ftp ftps gluster host_cdrom host_device http https iscsi iser luks nbd nfs null-aio null-co " +
    "nvme parallels preallocate qcow qcow2 qed quorum raw rbd replication snapshot-access ssh " +
    "throttle vdi vhdx vmdk vpc vvfat").split(" "),
);

/** Whether the reference has a driver of this name. */
export function isBackingFormat(name: string): boolean {
  return BACKING_FORMATS.has(name);
}

/**
 * The option `backing_fmt` of an image that stores the format of its backing file.
 *
 * @throws {ImageError} `Parameter 'backing-fmt' does not accept value '…'`
 */
export function backingFormatOf(options: OptionSet): string | undefined {
  const format = options.string("backing_fmt") || undefined;
  if (format === undefined || isBackingFormat(format)) return format;
  throw new ImageError(`Parameter 'backing-fmt' does not accept value '${format}'`, {
    errno: "EINVAL",
    field: "backing_fmt",
  });
}
