import { applySnapshot, createSnapshot, deleteSnapshot, listSnapshots } from "../ops/snapshot.ts";
import { type Command, defineCommand } from "./_command.ts";
import { snapshotTable } from "./_format.ts";
import {
  environmentOf,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  QUIET,
  UNTRUSTED,
} from "./_options.ts";

/** Of these options there may be one. */
const ACTION = { alone: "Cannot mix '-l', '-a', '-c', '-d'" } as const;

/** `qimg snapshot`: lists, makes, applies and deletes internal snapshots (cli.md, 8). */
export const snapshot: Command = defineCommand({
  name: "snapshot",
  description: "List, make, apply or delete the internal snapshots of an image",
  synopsis: [
    "[-f FMT | --image-opts] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT]",
    "[-q] [-U] [--object OBJECT] [--untrusted] FILENAME",
  ],
  options: {
    quiet: QUIET,
    format: FORMAT,
    imageOpts: IMAGE_OPTS,
    list: {
      short: "l",
      long: ["list"],
      ...ACTION,
      help: ["list the snapshots; this is what is done without another action"],
    },
    apply: {
      short: "a",
      long: ["apply"],
      ...ACTION,
      value: "SNAPSHOT",
      help: [
        "make the disk what it was at this snapshot (an id or a name);",
        "what it holds now is lost unless another snapshot has it",
      ],
    },
    create: {
      short: "c",
      long: ["create"],
      ...ACTION,
      value: "SNAPSHOT",
      help: ["make a snapshot with this name of the disk as it is"],
    },
    delete: {
      short: "d",
      long: ["delete"],
      ...ACTION,
      value: "SNAPSHOT",
      help: ["delete the first snapshot with this name"],
    },
    forceShare: FORCE_SHARE,
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image whose snapshots are meant"] }],
  access({ apply, create, delete: deleted }, [filename]) {
    const changes = apply !== undefined || create !== undefined || deleted !== undefined;
    return changes ? { writes: [filename] } : { reads: [filename] };
  },
  async run(ctx) {
    const { format, imageOpts, apply, create, delete: deleted, forceShare } = ctx.options;
    const image = { filename: onlyImage(ctx.operands), format, imageOptions: imageOpts };
    const environment = environmentOf(ctx, ctx.options);
    const options = { forceShare };
    if (apply !== undefined) await applySnapshot(image, apply, options, environment);
    else if (create !== undefined) await createSnapshot(image, create, options, environment);
    else if (deleted !== undefined) await deleteSnapshot(image, deleted, options, environment);
    else ctx.out(snapshotTable(await listSnapshots(image, options, environment)));
    return 0;
  },
});
