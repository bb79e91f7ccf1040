/**
 * The protocols of the web: files on servers that hand out ranges of bytes, for reading. Command-line
 * reference, sections 4.2 and 4.3.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { HttpNode } from "./node.ts";
import { OPEN_OPTIONS, readOptions } from "./options.ts";
import { openError, RemoteFile } from "./remote_file.ts";

/** Files that are reached without encryption. */
export const http: ProtocolDriver = driver("http");

/** Files that are reached through TLS. A redirect to where they are reached without it is refused. */
export const https: ProtocolDriver = driver("https");

function driver(name: string): ProtocolDriver {
  return {
    name,
    openOptions: OPEN_OPTIONS,
    open: (filename, context, options) => openNode(name, filename, context, options),
  };
}

async function openNode(
  driver: string,
  filename: string,
  context: DriverContext,
  options: OptionSet | undefined,
): Promise<BlockNode> {
  if (context.mode.writable) {
    throw new ImageError("curl driver does not support writes", { errno: "EACCES" });
  }
  const settings = readOptions(driver, filename, options, context);
  // To verify certificates is what is done anyway.
  const isPlain = settings.verifies &&
    OPEN_OPTIONS.every(({ name, strong }) =>
      !strong || name === "url" || name === "sslverify" || !options?.has(name)
    );
  try {
    const file = await RemoteFile.open(settings);
    return new HttpNode(driver, file, settings, isPlain, context);
  } catch (error) {
    throw openError(error, settings.url);
  }
}
