/**
 * The filter that stores everything that is written in compressed clusters.
 *
 * @module
 */
import type { FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { FilterNode } from "../../lib/block/filter_node.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { PackTarget } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import type { Codec } from "../../lib/codec/mod.ts";

/** The driver. It has no options. */
export const compress: FormatDriver = {
  name: "compress",
  transparent: true,
  openOptions: [],
  open(file, _options, context) {
    if (!file.packs) {
      return Promise.reject(
        new ImageError(`Compression is not supported for underlying format: ${file.driver}`, {
          errno: "ENOTSUP",
          file: context.filename,
        }),
      );
    }
    return Promise.resolve(new CompressNode(file, context));
  },
};

/**
 * Writes whole clusters: of those that a request covers in part the rest is read first. As the format below
 * has it, a cluster that is stored already can be replaced only by one that does not shrink.
 */
class CompressNode extends FilterNode {
  readonly driver = "compress";
  readonly packer?: PackTarget;
  /** Parts of clusters are put together by one writer at a time. */
  readonly #lock = new Mutex();
  #codec: Codec | undefined;
  #packed: Uint8Array | undefined;
  #isStarted = false;

  constructor(...parts: ConstructorParameters<typeof FilterNode>) {
    super(...parts);
    const { packer } = this.filtered;
    // Copies need not put clusters together here: they come with whole ones.
    if (packer !== undefined && !this.readOnly) {
      this.packer = {
        codec: packer.codec,
        clusterSize: packer.clusterSize,
        always: true,
        writePacked: (offset, packed) => packer.writePacked(offset, packed),
        finish: () => packer.finish(),
        ...(packer.writeUnpacked === undefined
          ? {}
          : { writeUnpacked: (offset, bytes) => packer.writeUnpacked!(offset, bytes) }),
      };
    }
  }

  override async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    const { packer } = this;
    // Formats of which not all images compress take compressed writes for plain ones.
    if (packer === undefined) return await this.filtered.write(offset, from);
    await this.#lock.run(async () => {
      for (let done = 0; done < from.length;) {
        const at = offset + done;
        const start = at - at % packer.clusterSize;
        const end = Math.min(start + packer.clusterSize, this.length);
        const part = from.subarray(done, done + end - at);
        await this.#writeCluster(packer, start, await this.#completed(at, part, start, end));
        done += part.length;
      }
    });
  }

  override async flush(): Promise<void> {
    await this.#finish();
    await super.flush();
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#finish();
    } finally {
      await super[Symbol.asyncDispose]();
    }
  }

  /** The cluster from `start` to `end` with `part` at `at`. */
  async #completed(
    at: number,
    part: Uint8Array,
    start: number,
    end: number,
  ): Promise<Uint8Array> {
    if (part.length === end - start) return part;
    const cluster = new Uint8Array(end - start);
    await this.filtered.read(start, cluster);
    cluster.set(part, at - start);
    return cluster;
  }

  async #writeCluster(packer: PackTarget, offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#codec === undefined) {
      const { loadCodec } = await import("../../lib/codec/mod.ts");
      this.#codec = await loadCodec(packer.codec);
    }
    let cluster = bytes;
    if (bytes.length < packer.clusterSize) {
      // The disk ends in the middle of its last cluster.
      cluster = new Uint8Array(packer.clusterSize);
      cluster.set(bytes);
    }
    // What is as long as the cluster is not worth it.
    const packed = this.#packed ??= new Uint8Array(packer.clusterSize - 1);
    const length = this.#codec.pack(cluster, packed);
    this.#isStarted = true;
    if (length !== null) await packer.writePacked(offset, packed.subarray(0, length));
    else if (packer.writeUnpacked !== undefined) await packer.writeUnpacked(offset, bytes);
    else await this.filtered.write(offset, bytes);
  }

  async #finish(): Promise<void> {
    if (!this.#isStarted) return;
    this.#isStarted = false;
    await this.packer!.finish();
  }
}
