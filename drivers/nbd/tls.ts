import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { ServerAddress } from "./address.ts";
import type { HandshakeRequest } from "./handshake.ts";

/** What the options say of TLS. */
export interface TlsOptions {
  /** Id of the credentials. */
  readonly id: string;
  /** Name that the server's certificate must have, if not the host's. */
  readonly hostname: string | undefined;
}

/**
 * What encrypts a connection with the credentials that the user defined.
 *
 * @throws {ImageError} for credentials that are not there, or not fit for a client.
 */
export function tlsClient(
  _server: ServerAddress,
  { id }: TlsOptions,
  context: DriverContext,
): NonNullable<HandshakeRequest["startTls"]> {
  const object = context.object?.(id);
  if (object === undefined) {
    throw new ImageError(`No TLS credentials with id '${id}'`, { errno: "EINVAL" });
  }
  throw new ImageError("TLS is not supported", { errno: "ENOTSUP" });
}
