import { ImageError } from "../../lib/block/error.ts";
import { Autoclear, MAX_BACKING_NAME } from "./_layout.ts";
import { type HeaderOwner, writeHeader } from "./header_writer.ts";

/**
 * Stores another backing file name (`""`: none) and format in the header,
 * which `write` brings into the file. A crash leaves the old ones or the new.
 *
 * @throws {ImageError} `EINVAL` for a name above 1023 bytes and for an image whose data file is a
 * raw image, `ENOSPC` if the name does not fit into the header cluster; nothing is changed then.
 */
export async function changeBacking(
  image: HeaderOwner,
  name: string,
  format: string | undefined,
  write: (image: HeaderOwner) => Promise<void> = writeHeader,
): Promise<void> {
  const { header } = image;
  const raw = (header.autoclear & BigInt(Autoclear.dataFileRaw)) !== 0n;
  const length = new TextEncoder().encode(name).length;
  if ((raw && name !== "") || length > MAX_BACKING_NAME) {
    throw ImageError.fromErrno("EINVAL", { field: "backing_file" });
  }
  const { backingFile, backingFormat } = header;
  header.backingFile = name;
  header.backingFormat = format;
  try {
    await write(image);
  } catch (error) {
    header.backingFile = backingFile;
    header.backingFormat = backingFormat;
    throw error;
  }
}
