import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent, NodeAddress, NodeLimits } from "../../lib/block/node.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { RequestFailure } from "./failures.ts";
import type { HttpSettings } from "./options.ts";
import { ReadAhead } from "./read_ahead.ts";
import type { RemoteFile } from "./remote_file.ts";

const SECTOR = 512;

/** Reasons that are told, for a server can have a new one each time. */
const MOST_REPORTS = 100;

/**
 * An open file on a web server.
 *
 * Formats read beyond the end of their file, which gives zeros.
 */
export class HttpNode implements BlockNode {
  readonly driver: string;
  readonly readOnly = true;
  readonly limits: NodeLimits = { requestAlignment: 1, clusterSize: 0, zeroAlignment: 0 };
  readonly children: BlockNode["children"] = [];
  readonly address: NodeAddress;
  readonly length: number;
  readonly exactLength: number;
  readonly #file: RemoteFile;
  readonly #bytes: ReadAhead;
  readonly #context: DriverContext;
  readonly #reported = new Set<string>();

  /** Takes over an open file. `isPlain`: the URL alone leads to it. */
  constructor(
    driver: string,
    file: RemoteFile,
    { url, readahead }: HttpSettings,
    isPlain: boolean,
    context: DriverContext,
  ) {
    this.driver = driver;
    this.address = { exact: isPlain ? url : undefined, options: { url } };
    this.exactLength = file.size;
    this.length = alignUp(file.size, SECTOR);
    this.#file = file;
    this.#bytes = new ReadAhead(file, readahead);
    this.#context = context;
  }

  /** The URL, or all that it takes to get there; known for good only once the node is open. */
  get filename(): string {
    return this.#context.filename;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const inside = Math.min(Math.max(this.exactLength - offset, 0), into.length);
    try {
      await this.#bytes.read(offset, into.subarray(0, inside));
    } catch (error) {
      this.#tell(error);
      throw error;
    }
    into.fill(0, inside);
  }

  /** Nobody knows of holes: all is data. */
  extent(offset: number, length: number): Promise<Extent> {
    return Promise.resolve({ length, state: "data", compressed: false, file: this, offset });
  }

  write(): Promise<void> {
    return this.#refuse();
  }

  writeZeroes(): Promise<void> {
    return this.#refuse();
  }

  discard(): Promise<void> {
    return this.#refuse();
  }

  resize(): Promise<void> {
    return this.#refuse();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  allocatedSize(): Promise<number | undefined> {
    return Promise.resolve(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }

  /** Users learn no more than that there was an error; so each reason is told once. */
  #tell(error: unknown): void {
    if (!(error instanceof RequestFailure) || this.#reported.has(error.message)) return;
    if (this.#reported.size === MOST_REPORTS) return;
    this.#reported.add(error.message);
    this.#context.report(`curl: ${error.message}`, true);
    if (this.#reported.size === MOST_REPORTS) {
      this.#context.report("curl: further errors suppressed", true);
    }
  }

  #refuse(): Promise<never> {
    return Promise.reject(ImageError.fromErrno("EPERM", { file: this.filename }));
  }
}
