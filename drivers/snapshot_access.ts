/**
 * The disk of a node as it was when somebody began to keep what is overwritten. Nobody here keeps it, so
 * there is nothing to be read; what the node is can be told.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../lib/block/driver.ts";
import { ImageError } from "../lib/block/error.ts";
import type { ImageDetails } from "../lib/block/capabilities.ts";
import type { NodeAccess } from "../lib/block/mode.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits } from "../lib/block/node.ts";
import { refuseResize } from "../lib/block/refuse_resize.ts";

/** The driver. */
export const snapshotAccess: FormatDriver = {
  name: "snapshot-access",
  transparent: true,
  openOptions: [],
  open: (file, _options, context) => Promise.resolve(new SnapshotAccessNode(file, context)),
};

class SnapshotAccessNode implements BlockNode {
  readonly driver = "snapshot-access";
  readonly limits: NodeLimits = { requestAlignment: 1, clusterSize: 0, zeroAlignment: 0 };
  readonly readOnly: boolean;
  readonly children: readonly NodeChild[];
  readonly fixedLength = true;
  readonly lock?: (access: NodeAccess) => Promise<void>;
  readonly #file: BlockNode;
  readonly #context: DriverContext;

  /** A node on `file`, which is closed with it. */
  constructor(file: BlockNode, context: DriverContext) {
    this.#file = file;
    this.#context = context;
    this.readOnly = !context.mode.writable;
    this.children = [{ name: "file", node: file }];
    if (file.lock !== undefined) this.lock = (access) => file.lock!(access);
  }

  get filename(): string {
    return this.#context.filename;
  }

  get length(): number {
    return this.#file.length;
  }

  read(): Promise<void> {
    return this.#refuse();
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

  extent(): Promise<Extent> {
    return this.#refuse();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#file.allocatedSize();
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve({});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }

  #refuse(): Promise<never> {
    return Promise.reject(ImageError.fromErrno("ENOTSUP", { file: this.filename }));
  }
}
