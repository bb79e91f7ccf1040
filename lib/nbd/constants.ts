/**
 * The numbers of the NBD protocol, which client and server share. All fields on the wire are big-endian.
 *
 * @module
 */

/** First 8 bytes that a server sends: `NBDMAGIC`. */
export const GREETING_MAGIC = 0x4e42444d41474943n;
/** Then, for haggling over options, and in front of each option: `IHAVEOPT`. */
export const NEWSTYLE_MAGIC = 0x49484156454f5054n;
/** Or, where there is nothing to haggle over. */
export const OLDSTYLE_MAGIC = 0x0000420281861253n;
/** In front of each reply to an option. */
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;

/** In front of requests and replies while data are transmitted. */
export const MAGIC = {
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;

/** Port of a server unless told. */
export const DEFAULT_PORT = 10809;

/** Flags of the greeting, and of the client's answer. */
export const HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** Options. */
export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** Types of replies to options. */
export const REPLY = { ack: 1, server: 2, info: 3, metaContext: 4 } as const;

/** Set in the types of replies that are errors. */
export const REPLY_ERROR_BIT = 0x80000000;

/** Types of replies that are errors; their data are a text. */
export const REPLY_ERROR = {
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
  blockSizeRequired: 0x80000008,
  tooBig: 0x80000009,
  extendedHeadersRequired: 0x8000000a,
} as const;

/** Kinds of information on an export. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Transmission flags: what an export can do. */
export const EXPORT_FLAG = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  flush: 1 << 2,
  fua: 1 << 3,
  rotational: 1 << 4,
  trim: 1 << 5,
  writeZeroes: 1 << 6,
  dontFragment: 1 << 7,
  multiConn: 1 << 8,
  resize: 1 << 9,
  cache: 1 << 10,
  fastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

/** Commands. */
export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** Flags of commands. */
export const COMMAND_FLAG = {
  fua: 1 << 0,
  noHole: 1 << 1,
  dontFragment: 1 << 2,
  requestOne: 1 << 3,
  fastZero: 1 << 4,
  payloadLength: 1 << 5,
} as const;

/** Set in the last chunk of a reply. */
export const CHUNK_DONE = 1;

/** Types of chunks. */
export const CHUNK = {
  none: 0,
  data: 1,
  hole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Set in the types of chunks that are errors. */
export const CHUNK_ERROR_BIT = 0x8000;

/** The context that tells what is allocated and what reads as zeros. */
export const BASE_ALLOCATION = "base:allocation";

/** Its flags. */
export const ALLOCATION = { hole: 1, zero: 2 } as const;

/** Lengths in bytes that no peer may exceed. */
export const LIMIT = {
  /** Data of a read or a write. */
  transfer: 32 * 1024 * 1024,
  /** Data of an option or of a reply to one. */
  option: 32 * 1024 * 1024,
  /** Names and texts. */
  text: 4096,
} as const;
