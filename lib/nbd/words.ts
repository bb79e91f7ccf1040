/**
 * How messages call the numbers of the protocol.
 *
 * @module
 */

const OPTIONS: Readonly<Record<number, string>> = {
  1: "export name",
  2: "abort",
  3: "list",
  4: "peek",
  5: "starttls",
  6: "info",
  7: "go",
  8: "structured reply",
  9: "list meta context",
  10: "set meta context",
  11: "extended headers",
};

const REPLIES: Readonly<Record<number, string>> = {
  1: "ack",
  2: "server",
  3: "info",
  4: "meta context",
  0x80000001: "unsupported",
  0x80000002: "denied by policy",
  0x80000003: "invalid",
  0x80000004: "platform lacks support",
  0x80000005: "TLS required",
  0x80000006: "export unknown",
  0x80000007: "server shutting down",
  0x80000008: "block size required",
  0x80000009: "option payload too big",
  0x8000000a: "extended headers required",
};

const COMMANDS: Readonly<Record<number, string>> = {
  0: "read",
  1: "write",
  2: "disconnect",
  3: "flush",
  4: "trim",
  5: "cache",
  6: "write zeroes",
  7: "block status",
};

const UNKNOWN = "<unknown>";

/** An option: `go`. */
export function optionWord(option: number): string {
  return OPTIONS[option] ?? UNKNOWN;
}

/** The type of a reply to an option: `ack`. */
export function replyWord(type: number): string {
  return REPLIES[type] ?? UNKNOWN;
}

/** A command: `write zeroes`. */
export function commandWord(command: number): string {
  return COMMANDS[command] ?? UNKNOWN;
}
