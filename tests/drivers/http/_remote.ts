/** Files on the test's own servers. */
import type { HttpSettings } from "../../../drivers/http/options.ts";
import { RemoteFile } from "../../../drivers/http/remote_file.ts";

/** Opens a URL as it is, without names and passwords; a request may take long. */
export function openRemote(url: string, changes: Partial<HttpSettings> = {}): Promise<RemoteFile> {
  return RemoteFile.open({
    url,
    address: new URL(url),
    headers: {},
    readahead: 0,
    timeout: 30_000,
    verifies: true,
    ...changes,
  });
}

/** The bytes of a range. */
export async function readRange(
  file: RemoteFile,
  start: number,
  end: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start);
  let at = 0;
  await file.read(start, end, (piece) => {
    bytes.set(piece, at);
    at += piece.length;
  });
  return bytes.subarray(0, at);
}
