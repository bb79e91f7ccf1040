/**
 * The filter that lets requests through only as fast as its group allows.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { FilterNode } from "../../lib/block/filter_node.ts";
import type { BlockNode, Extent, ZeroFlags } from "../../lib/block/node.ts";
import type { PackTarget } from "../../lib/block/plan.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { groupOf, THROTTLE_GROUP, type ThrottleGroup } from "./throttle_group.ts";

const GROUP = "throttle-group";

/** The driver. */
export const throttle: FormatDriver = {
  name: "throttle",
  transparent: true,
  openOptions: [
    { name: GROUP, type: "str", help: "ID of the group whose limits count", strong: true },
  ],
  open(file, options, context) {
    try {
      return Promise.resolve(
        throttled(file, context, findGroup(options.string(GROUP), context)),
      );
    } catch (error) {
      return Promise.reject(error);
    }
  },
};

function findGroup(id: string | undefined, context: DriverContext): ThrottleGroup {
  const refuse = (message: string) =>
    new ImageError(message, { errno: "EINVAL", file: context.filename, field: GROUP });
  if (id === undefined) throw refuse("Please specify a throttle group");
  const object = context.object?.(id);
  if (object?.type !== THROTTLE_GROUP) throw refuse(`Throttle group '${id}' does not exist`);
  return groupOf(object);
}

/** A node on `file`, which is closed with it, that keeps to the limits of `group`. */
export function throttled(
  file: BlockNode,
  context: DriverContext,
  group: ThrottleGroup,
): BlockNode {
  return new ThrottleNode(file, context, group);
}

/** Nobody gets at the files below but through it, as their requests have to be counted. */
class ThrottleNode extends FilterNode {
  readonly driver = "throttle";
  readonly packs?: boolean;
  readonly packer?: PackTarget;
  readonly packsPlainly?: boolean;
  readonly #group: ThrottleGroup;

  constructor(file: BlockNode, context: DriverContext, group: ThrottleGroup) {
    super(file, context);
    this.#group = group;
    const { packs, packer, packsPlainly } = file;
    if (packs !== undefined) this.packs = packs;
    if (packsPlainly !== undefined) this.packsPlainly = packsPlainly;
    if (packer !== undefined) {
      const { writePacked, writeUnpacked } = packer;
      this.packer = {
        ...packer,
        writePacked: async (offset, packed) => {
          await group.pass("write", packer.clusterSize);
          await writePacked.call(packer, offset, packed);
        },
        ...(writeUnpacked === undefined ? {} : {
          writeUnpacked: async (offset, bytes) => {
            await group.pass("write", bytes.length);
            await writeUnpacked.call(packer, offset, bytes);
          },
        }),
      };
    }
  }

  override async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#group.pass("read", into.length);
    await super.read(offset, into);
  }

  override async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    await this.#group.pass("write", from.length);
    await super.write(offset, from);
  }

  override async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    await this.#group.pass("write", length);
    await super.writeZeroes(offset, length, flags);
  }

  override async discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    await this.#group.pass("write", length);
    await super.discard(offset, length);
  }

  /** It may be known where the bytes are, but not be read there. */
  override async extent(offset: number, length: number): Promise<Extent> {
    return { ...await super.extent(offset, length), guarded: true };
  }

  locate(offset: number, length: number): Promise<Extent> {
    return this.locateAll(offset, length);
  }
}
