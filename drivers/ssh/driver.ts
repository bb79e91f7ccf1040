/**
 * Files on servers that are reached by SSH: through the user's own OpenSSH client, whose keys, agents, jump
 * hosts and checks of host keys count, and the SFTP that it carries.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { requireDiskLength } from "../../lib/block/range.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import {
  describeRemoteFile,
  OPEN_OPTIONS,
  parseName,
  parseOptions,
  type RemoteFile,
} from "./address.ts";
import { SshNode } from "./node.ts";
import { OpenFile, removeRemoteFile } from "./remote_file.ts";
import { SftpSession } from "./session.ts";
import { sshDefaults, startSsh } from "./ssh_process.ts";
import { PATIENCE } from "./transport.ts";

const SECTOR = 512;

/** Lengths are exact up to here, bytes. */
const MAX_LENGTH = BigInt(Number.MAX_SAFE_INTEGER - SECTOR);

/** The protocol `ssh`. */
export const ssh: ProtocolDriver = {
  name: "ssh",
  createOptions: [{ name: "size", type: "size", help: "Virtual disk size" }],
  openOptions: OPEN_OPTIONS,
  open: (filename, context, options) => openNode(findFile(filename, options, context), context),
  create: (filename, options, context) =>
    createFile(findFile(filename, undefined, context), options),
  async remove(filename) {
    const { destination, path } = parseName(filename, () => {});
    await using session = await SftpSession.start(startSsh(destination));
    await removeRemoteFile(session, path);
  },
};

function findFile(
  filename: string,
  options: OptionSet | undefined,
  context: DriverContext,
): RemoteFile {
  const given = options?.keys("") ?? [];
  if (filename === "" && options !== undefined) return parseOptions(options);
  if (given.length > 0) {
    throw new ImageError(`Option '${given[0]}' cannot be used with a file name`, {
      errno: "EINVAL",
      field: given[0],
    });
  }
  return parseName(filename, context.warn);
}

async function openNode(remote: RemoteFile, context: DriverContext): Promise<BlockNode> {
  const { destination, path } = remote;
  const { mode, warn } = context;
  const asking = sshDefaults(destination, PATIENCE.connect);
  const session = await startSession(destination, asking);
  try {
    const file = await OpenFile.open(session, path, mode.writable ? "writing" : "reading");
    const status = await file.status();
    const shown = describeRemoteFile(remote, await asking);
    return new SshNode({ session, file, status, mode, warn, host: destination.host, ...shown });
  } catch (error) {
    await session[Symbol.asyncDispose]();
    throw error;
  }
}

async function startSession(
  destination: RemoteFile["destination"],
  asking: Promise<unknown>,
): Promise<SftpSession> {
  try {
    return await SftpSession.start(startSsh(destination));
  } catch (error) {
    // It never fails, and nobody leaves it running.
    await asking;
    throw error;
  }
}

/** Makes a file, or empties one; answers whether it was not there before. */
async function createFile({ destination, path }: RemoteFile, options: OptionSet): Promise<boolean> {
  const asked = options.exact("size") ?? 0n;
  requireDiskLength(asked);
  if (asked > MAX_LENGTH) throw ImageError.fromErrno("EFBIG", { field: "size" });
  const size = alignUp(Number(asked), SECTOR);
  await using session = await SftpSession.start(startSsh(destination));
  const [file, isNew] = await openNew(session, path);
  try {
    // Its last byte makes it as long.
    if (size > 0) await file.write(size - 1, new Uint8Array(1));
    await file.close();
  } catch (error) {
    if (isNew) await removeRemoteFile(session, path).catch(() => {});
    throw error;
  }
  return isNew;
}

/** Which of the two it was decides whether a failure later removes the file. */
async function openNew(
  session: SftpSession,
  path: string,
): Promise<[file: OpenFile, isNew: boolean]> {
  try {
    return [await OpenFile.open(session, path, "creating"), true];
  } catch {
    // This version of the protocol cannot say that the file is there already.
    return [await OpenFile.open(session, path, "emptying"), false];
  }
}
