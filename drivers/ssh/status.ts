import { type PacketFields, StatusCode } from "./packets.ts";

/** A request that a server refused. */
export class SftpStatusError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "SftpStatusError";
  /** One of {@linkcode StatusCode}, or what else the server says. */
  readonly code: number;

  /** A refusal with the server's words or, where it has none, ours. */
  constructor(code: number, words: string) {
    super(words === "" ? STATUS_WORDS[code] ?? "Unknown error" : words);
    this.code = code;
  }
}

const STATUS_WORDS = [
  "Success",
  "End of file",
  "No such file",
  "Permission denied",
  "Failure",
  "Bad message",
  "No connection",
  "Connection lost",
  "Operation unsupported",
];

/** The longest message of a server that is repeated, characters. */
const MAX_WORDS = 200;

/**
 * The refusal that a status is, `undefined` for one of success. Its words are the server's, and fit for a
 * terminal.
 *
 * @throws {SftpProtocolError} if the packet ends before.
 */
export function readRefusal(fields: PacketFields): SftpStatusError | undefined {
  const code = fields.u32();
  if (code === StatusCode.OK) return undefined;
  // Some servers leave the words away.
  const words = fields.atEnd ? "" : fields.text();
  return new SftpStatusError(code, words.replaceAll(/[\p{Cc}\p{Cf}]/gu, " ").slice(0, MAX_WORDS));
}
