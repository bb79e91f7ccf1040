/** Images that are served to tests, on Unix sockets in folders of their own. */

import { createImage, type NbdServer, serveImage, type ServeOptions } from "../../../lib/mod.ts";
import { type TempDir, tempDir } from "../../_temp.ts";

/** An image and its server. */
export interface Served extends AsyncDisposable {
  /** Where both are. */
  readonly dir: TempDir;
  /** The image's name. */
  readonly image: string;
  /** The socket's name. */
  readonly socket: string;
  /** The server. */
  readonly server: NbdServer;
}

/** What is served: an image of this size, made by `prepare` or empty. */
export interface ServedSettings extends ServeOptions {
  /** Format, default raw. */
  readonly format?: string;
  /** Bytes, default 1 MiB. */
  readonly size?: number;
  /** Fills the image. */
  readonly prepare?: (image: string, dir: TempDir) => Promise<void>;
}

/** Makes an image and serves it. */
export async function served(settings: ServedSettings = {}): Promise<Served> {
  const { format = "raw", size = 1 << 20, prepare, ...options } = settings;
  const dir = await tempDir();
  const [image, socket] = [dir.file("disk"), dir.file("sock")];
  try {
    await createImage({ filename: image, format, size });
    await prepare?.(image, dir);
    const server = await serveImage({ filename: image, format }, {
      address: { socket },
      ...options,
    });
    return {
      dir,
      image,
      socket,
      server,
      async [Symbol.asyncDispose]() {
        await server.stop();
        await dir[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await dir[Symbol.asyncDispose]();
    throw error;
  }
}
