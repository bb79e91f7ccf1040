import type { BlockNode } from "../block/node.ts";
import type { Environment } from "./environment.ts";
import type { BackingTrail } from "./identity.ts";
import type { NodeNames } from "./node_names.ts";
import type { NodeOptions } from "./node_options.ts";
import type { Inherited } from "./node_settings.ts";

/** A node that is to be opened. */
export interface Request {
  /** Name of the file, whose prefix counts; without it the options say what there is. */
  readonly filename?: string | undefined;
  /** What opens the node takes out what it knows. */
  readonly options: NodeOptions;
  /** An image, whose format is probed if nobody names it, or a file below one. */
  readonly as: "image" | "file";
  /** How many nodes it is below. */
  readonly depth: number;
}

/** What opening needs all the way down. */
export interface Surroundings {
  /** Diagnostics, secrets, trust. */
  readonly environment: Environment;
  /** The images that the node is behind. */
  readonly trail: BackingTrail;
  /** The nodes that options can refer to. */
  readonly nodes: NodeNames;
}

/** Opens a child that options name: by what they say of it, or as a reference to a node that is there. */
export type OpenChild = (
  reference: string | undefined,
  request: Request,
  inherited: Inherited,
  around: Surroundings,
) => Promise<BlockNode>;
