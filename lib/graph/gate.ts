/**
 * The one place that decides whether a file is opened because an image says so.
 *
 * @module
 */
import type { ChildRole } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import type { Environment } from "./environment.ts";

/** A reference stored in an image. */
export interface GateRequest {
  /** What the file is for. */
  readonly role: ChildRole;
  /** The name as it is stored. */
  readonly filename: string;
  /** The image that refers to it, as messages show it. */
  readonly image: string;
}

/** Decides about references stored in images. */
export interface OpenGate {
  /**
   * Lets a file be opened, or throws.
   *
   * @throws {ImageError} for a reference that is refused; it names the image, the role and the file.
   */
  pass(request: GateRequest): void;
  /** Whether a protocol named within a reference of this role counts. */
  allowsProtocol(role: ChildRole): boolean;
}

/** As the reference tool does: only a backing file's name, which `info` shows, may select a protocol. */
const OPEN: OpenGate = {
  pass() {},
  allowsProtocol: (role) => role === "backing",
};

const ROLES: Readonly<Record<ChildRole, string>> = {
  backing: "backing file",
  "data-file": "data file",
  extent: "extent",
  header: "header",
  log: "log file",
};

/** For images from strangers: no file but the one that the user named. */
const CLOSED: OpenGate = {
  pass({ role, filename, image }) {
    throw new ImageError(
      `'${image}' refers to '${filename}' as its ${ROLES[role]}, ` +
        "which is not opened for an untrusted image",
      { errno: "EACCES", file: image, field: role },
    );
  },
  allowsProtocol: () => false,
};

/** The gate that an environment asks for. */
export function gateOf(environment: Environment): OpenGate {
  return environment.untrusted ? CLOSED : OPEN;
}
