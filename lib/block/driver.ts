import type { BlockNode } from "./node.ts";
import type { OpenMode } from "./mode.ts";
import type { OptionSet, OptionSpec } from "./options.ts";
import type { UserObject } from "./user_object.ts";

/** What a file that an image names is for. */
export type ChildRole = "backing" | "data-file" | "extent" | "header" | "log";

/** Asks for a child that a node cannot do without. */
export interface ChildRequest {
  /** As options call it: `log`, `children.0`. */
  readonly name: string;
  /** What it is where no option names a driver: an image, whose format is probed, or a file. */
  readonly as: "image" | "file";
  /** What to open where no option says so, from the name of the node itself. */
  readonly filename?: string | undefined;
  /** Not even a node that is written writes to it. */
  readonly readOnly?: boolean;
}

/** What a driver gets from whoever opens or creates an image. */
export interface DriverContext {
  /** The image's name as messages show it. */
  readonly filename: string;
  /** How it is opened. */
  readonly mode: OpenMode;
  /** Refuse what only a hostile image has (huge tables, implicit references). */
  readonly untrusted: boolean;
  /**
   * The bytes of a secret.
   *
   * @throws {ImageError} `No secret with id '<id>'`
   */
  secret(id: string): Uint8Array;
  /** Aborted when the user has had enough: what waits for somebody else then ends with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** What the user defined under this id beside images, secrets apart; `undefined` if there is nothing. */
  object?(id: string): UserObject | undefined;
  /** Prints one diagnostic line, complete; the program's name comes before it only if `fromProgram` says so. */
  report(line: string, fromProgram?: boolean): void;
  /** Prints `warning: <text>` after the program's name. */
  warn(text: string): void;
  /**
   * Opens a file that the image names, as a protocol node without a format,
   * through the open gate. `filename` is a path: no protocol prefix in it
   * counts, and a relative one is not changed (images whose references are
   * relative to themselves resolve them first). Locks are taken as for a file
   * of this image.
   */
  openFile(role: ChildRole, filename: string): Promise<BlockNode>;
  /**
   * Opens a child of the driver's `optionalChildren` if the options of the image name one; locks as in
   * `openFile`. Absent where there are no options.
   */
  openChild?(name: ChildRole): Promise<BlockNode | undefined>;
  /**
   * Opens a child that a node cannot do without (a filter's log, the members of a quorum), as the options
   * of the node say or, where they do not, under the name that `request` has for it. Locked as for a mere
   * user of its data; a node whose `lock` goes on to its children asks for more when it has to.
   *
   * @throws {ImageError} `A block device must be specified for "<name>"`, and what opening it throws.
   */
  requireChild?(request: ChildRequest): Promise<BlockNode>;
  /** How many children `name.0`, `name.1` … the options name; `undefined` if their numbers have gaps. */
  countChildren?(name: string): number | undefined;
  /**
   * Creates a file that belongs to the image being created and opens it for
   * writing. Images store the `filename` of the node, whose protocol prefix is
   * gone.
   */
  createFile(role: ChildRole, filename: string, options: OptionSet): Promise<BlockNode>;
  /**
   * While an image is created: opens the one that will be behind it for reading, without what is behind
   * that. `filename` is the name as it will be stored; the format is probed.
   */
  openBacking?(filename: string): Promise<BlockNode>;
  /**
   * Present when nobody named the format and probing chose it: whether probing
   * would take a file with these first 512 bytes for another one.
   */
  readonly looksForeign?: (head: Uint8Array) => boolean;
}

/** What all drivers have. */
interface DriverBase {
  /** As `-f` takes it and `info` shows it. */
  readonly name: string;
  /** Options of `create -o`; absent if it cannot create. */
  readonly createOptions?: readonly OptionSpec[];
}

/** Reaches bytes by a name: local files, devices, servers. */
export interface ProtocolDriver extends DriverBase {
  /** Runtime options (`--image-opts`) beside `filename`, without the common ones. */
  readonly openOptions?: readonly OptionSpec[];
  /**
   * Opens `filename` (prefix already stripped, unless the entry keeps it); `""` if options alone say what
   * is meant. Takes no locks: see `BlockNode.lock`. `options` are those
   * of `openOptions`, none where absent.
   */
  open(filename: string, context: DriverContext, options?: OptionSet): Promise<BlockNode>;
  /**
   * Makes (or empties) a file. `options` are typed values of `createOptions`.
   * Answers whether the file was not there before, so that a creation that
   * fails later knows whether to remove it.
   */
  create?(filename: string, options: OptionSet, context: DriverContext): Promise<boolean>;
  /** Removes a file that `create` made. */
  remove?(filename: string): Promise<void>;
}

/** Request to make an image. */
export interface CreateRequest {
  /** The target's name as given. */
  readonly filename: string;
  /** The format's and the protocol's options, typed. */
  readonly options: OptionSet;
  /** Makes the file below (with the protocol's options out of `options`) and opens it for writing. */
  createBase(): Promise<BlockNode>;
  /** Services. */
  readonly context: DriverContext;
}

/** Sizes that an image would take, bytes. */
export interface MeasureResult {
  /** With the source's data (or none). */
  readonly required: number;
  /** With every byte of the disk stored. */
  readonly fullyAllocated: number;
  /** For the source's bitmaps; absent where source or target have none. */
  readonly bitmaps?: number;
}

/** A format: puts a disk into a file. */
export interface FormatDriver extends DriverBase {
  /** The node above passes through: no metadata of its own, needs only what its user needs (raw). */
  readonly transparent: boolean;
  /**
   * What others write to the file meanwhile is the guest's business: the metadata in it do not change in
   * normal use. Locks are taken as for a transparent format.
   */
  readonly sharesFile?: boolean;
  /** Its nodes take compressed clusters (`BlockNode.packer`) if their options do not forbid it. */
  readonly packs?: boolean;
  /** Runtime options (`--image-opts`), without the common ones. */
  readonly openOptions: readonly OptionSpec[];
  /** Children beside `file` and `backing` that options can name. */
  readonly optionalChildren?: readonly ChildRole[];
  /**
   * Opens the image in `file`, which is then closed with the node; on failure
   * the caller closes `file`. Backing files are opened and attached by the
   * caller afterwards.
   */
  open(file: BlockNode, options: OptionSet, context: DriverContext): Promise<BlockNode>;
  /** Options of `amend -o`; absent if its images cannot be amended (`BlockNode.amender`). */
  readonly amendOptions?: readonly OptionSpec[];
  /** Makes an image. Whatever it opened is closed on every path. */
  create?(request: CreateRequest): Promise<void>;
  /** Whether a failed `create` leaves nothing behind (the caller removes the file). */
  readonly removesFailedCreate?: boolean;
  /**
   * Says how large an image would be. `source` is an open node, `undefined` with
   * a mere size; `secret` is that of {@linkcode DriverContext}.
   */
  measure?(
    options: OptionSet,
    source: BlockNode | undefined,
    secret: DriverContext["secret"],
  ): Promise<MeasureResult>;
}

/** Entry of the registry: what is known of a driver before it is loaded. */
export interface DriverEntry<D> {
  /** The driver's name. */
  readonly name: string;
  /** Loads it. */
  load(): Promise<D>;
}

/** Entry of a format. */
export interface FormatEntry extends DriverEntry<FormatDriver> {
  /** Score of the first 512 bytes (zero-filled) for this format, 0 = not it, 100 = surely. */
  probe(head: Uint8Array, filename: string): number;
  /**
   * It is no format: its nodes show what is below them (`BlockNode.filtered`), which is opened as they
   * are.
   */
  readonly isFilter?: boolean;
}

/** A Deno permission that a protocol may need. What is read needs none that could be given up. */
export type ProtocolPermission = "net" | "run" | "write";

/** Entry of a protocol. */
export interface ProtocolEntry extends DriverEntry<ProtocolDriver> {
  /** Names before the colon that select it. */
  readonly prefixes: readonly string[];
  /** The driver takes names as they are, prefix and all: `nbd://host/export`. */
  readonly keepsPrefix?: boolean;
  /**
   * What a command needs beside what it needs for local files, for a word of its command line that names
   * this protocol: a file name, a `json:` name or a list of options. Nothing where absent.
   */
  permissions?(word: string): readonly ProtocolPermission[];
  /** How well an existing device suits a name without prefix, 0 = not at all. */
  probeDevice?(filename: string): number;
}
