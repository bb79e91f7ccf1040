import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { SparseHeader } from "./sparse_header.ts";
import { type GrainRun, grainRun, type GrainTables } from "./tables.ts";

/** A part of the disk, and the file that it lies in. */
interface ExtentPlace {
  /** First byte of the disk. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Its file: the image's own, or one that the descriptor names. */
  readonly file: BlockNode;
  /** The word of the descriptor's line, `""` for the image's own file. */
  readonly type: string;
}

/** Plain bytes. */
export interface FlatExtent extends ExtentPlace {
  readonly kind: "flat";
  /** Where they begin in the file, bytes. */
  readonly offset: number;
}

/** Grains that tables lead to. */
export interface GrainExtent extends ExtentPlace {
  readonly kind: "grains";
  /** Bytes of a grain, a multiple of 512. */
  readonly grainSize: number;
  /** Where grains lie. */
  readonly tables: GrainTables;
  /** Grains are deflated; `markers`: with their length in front. */
  readonly packed: { readonly markers: boolean } | undefined;
  /** The tables can say "zeros". */
  readonly zeroGrains: boolean;
  /** What the file's own header says, where it is of the kind that streams have. */
  readonly header: SparseHeader | undefined;
  /** Where an ESX redo log notes its first free sector, bytes. */
  readonly freeSectorAt: number | undefined;
}

/** A part of the disk. */
export type DiskExtent = FlatExtent | GrainExtent;

/** The run of grains at byte `offset` of an extent; reads tables if it must. */
export function findGrainRun(
  { tables, grainSize, file }: GrainExtent,
  offset: number,
  length: number,
): GrainRun | Promise<GrainRun> {
  const run = grainRun(tables, grainSize, offset, length);
  if (run !== undefined) return checked(run, file);
  return (async () => {
    await tables.load(Math.floor(offset / grainSize / tables.layout.tableEntries));
    // The table may have been pushed out already, but not before all others.
    for (;;) {
      const run = grainRun(tables, grainSize, offset, length);
      if (run !== undefined) return checked(run, file);
      await tables.load(Math.floor(offset / grainSize / tables.layout.tableEntries));
    }
  })();
}

function checked(run: GrainRun, file: BlockNode): GrainRun {
  if (!Number.isNaN(run.position)) return run;
  throw ImageError.fromErrno("EIO", { file: file.filename, field: "grain table" });
}
