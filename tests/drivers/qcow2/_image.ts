/** qcow2 images in memory, without the command line and without files. */
import type { CreateRequest, DriverContext } from "../../../lib/block/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { type OpenMode, READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { OPEN_OPTIONS } from "../../../drivers/qcow2/open_options.ts";
import { CREATE_OPTIONS } from "../../../drivers/qcow2/options.ts";
import { MemoryNode } from "../../_memory_node.ts";

/** A context that keeps what it is told, and finds other files in a map. */
export interface TestContext extends DriverContext {
  /** What `report` was told. */
  readonly reports: string[];
  /** What `warn` was told. */
  readonly warnings: string[];
  /** Files that images name. */
  readonly files: Map<string, MemoryNode>;
}

/** The secrets that there are unless told otherwise. Images that are encrypted are opened with the first. */
const SECRETS: Readonly<Record<string, string>> = { s: "123456", t: "another" };

/** A mode: read-only unless told otherwise. */
export function mode(changes: Partial<OpenMode> = {}): OpenMode {
  return { ...READ_ONLY, ...changes };
}

/** A context for one image. */
export function context(
  changes: Partial<OpenMode> = {},
  options: {
    readonly untrusted?: boolean;
    readonly files?: Map<string, MemoryNode>;
    readonly secrets?: Readonly<Record<string, string>>;
  } = {},
): TestContext {
  const reports: string[] = [];
  const warnings: string[] = [];
  const files = options.files ?? new Map();
  return {
    filename: "test.qcow2",
    mode: mode(changes),
    untrusted: options.untrusted ?? false,
    reports,
    warnings,
    files,
    secret: (id) => {
      const text = (options.secrets ?? SECRETS)[id];
      if (text === undefined) throw new ImageError(`No secret with id '${id}'`);
      return new TextEncoder().encode(text);
    },
    report: (line) => void reports.push(line),
    warn: (text) => void warnings.push(text),
    openFile: (_role, filename) => {
      const file = files.get(filename);
      if (file === undefined) {
        return Promise.reject(
          ImageError.fromErrno("ENOENT").prefixed(`Could not open '${filename}': `),
        );
      }
      return Promise.resolve(file);
    },
    createFile: (_role, filename) => {
      const file = new MemoryNode({ filename });
      files.set(filename, file);
      return Promise.resolve(file);
    },
  };
}

/** Typed create options. */
export function createOptions(options: Readonly<Record<string, string>>): OptionSet {
  return new OptionSet(CREATE_OPTIONS, Object.entries(options));
}

/** Makes an image through the driver and answers with its file, open again. */
export async function create(
  options: Readonly<Record<string, string>>,
  files: Map<string, MemoryNode> = new Map(),
): Promise<MemoryNode> {
  const { qcow2 } = await import("../../../drivers/qcow2/driver.ts");
  const file = new MemoryNode({ filename: "test.qcow2" });
  const request: CreateRequest = {
    filename: "test.qcow2",
    options: createOptions(options),
    createBase: () => Promise.resolve(file),
    context: context({ writable: true }, { files }),
  };
  await qcow2.create!(request);
  for (const [name, data] of files) files.set(name, data.copy());
  return file.copy();
}

/**
 * Opens an image through the driver, with the secret `s` unless another one or none is named. Disposing
 * of the node closes `file`.
 */
export async function open(
  file: MemoryNode,
  using: DriverContext = context(),
  secret: string | null = "s",
): Promise<BlockNode> {
  const { qcow2 } = await import("../../../drivers/qcow2/driver.ts");
  const options = new OptionSet(
    OPEN_OPTIONS,
    secret === null ? [] : [["encrypt.key-secret", secret]],
  );
  return await qcow2.open(file, options, using);
}

/** SHA-256 of bytes, in hex. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Writes big-endian fields over bytes: `[offset, width in bytes, value]`. */
export function patch(
  bytes: Uint8Array,
  ...fields: readonly (readonly [offset: number, width: 1 | 2 | 4 | 8, value: number | bigint])[]
): Uint8Array {
  for (const [offset, width, value] of fields) {
    let rest = BigInt(value);
    for (let i = width - 1; i >= 0; i--) {
      bytes[offset + i] = Number(rest & 0xffn);
      rest >>= 8n;
    }
  }
  return bytes;
}

/** Bytes of a hexadecimal dump, spaces ignored. */
export function hex(text: string): Uint8Array {
  return Uint8Array.fromHex(text.replaceAll(/\s/g, ""));
}
