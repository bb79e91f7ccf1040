import { ImageError } from "./error.ts";
import type { DriverContext } from "./driver.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits } from "./node.ts";

/**
 * Refuses to open an image of a format that cannot be written for writing.
 *
 * @throws {ImageError} `Image is read-only`
 */
export function requireReadOnly({ filename, mode }: DriverContext): void {
  if (!mode.writable) return;
  throw new ImageError("Image is read-only", { errno: "EACCES", file: filename });
}

/** What the node of a format that cannot be written has in common with all others. Lies on one file. */
export abstract class ReadOnlyNode implements BlockNode {
  abstract readonly driver: string;
  abstract readonly length: number;
  readonly readOnly = true;
  readonly limits: NodeLimits = { requestAlignment: 512, clusterSize: 0, zeroAlignment: 0 };
  readonly children: readonly NodeChild[];
  /** The file that holds the image. */
  protected readonly file: BlockNode;
  readonly #context: DriverContext;

  /** A node on `file`, which is closed with it. */
  constructor(file: BlockNode, context: DriverContext) {
    this.#context = context;
    this.file = file;
    this.children = [{ name: "file", node: file }];
  }

  /** It is known for good only once the node is open. */
  get filename(): string {
    return this.#context.filename;
  }

  abstract read(offset: number, into: Uint8Array): Promise<void>;
  abstract extent(offset: number, length: number): Promise<Extent>;

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
    return this.file.allocatedSize();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file[Symbol.asyncDispose]();
  }

  #refuse(): Promise<never> {
    return Promise.reject(ImageError.fromErrno("EPERM", { file: this.filename }));
  }
}
