/** The bytes to and from an SFTP server. */
export interface Transport {
  /** What the server says. */
  readonly readable: ReadableStream<Uint8Array>;
  /** What it is told. */
  readonly writable: WritableStream<Uint8Array>;
  /** Who is at the other end, for messages: `user@host`. */
  readonly peer: string;
  /** After the end of `readable`: why it ended, in words. Answers soon, whatever the other end does. */
  explain(): Promise<{ readonly reason: string; readonly hint?: string | undefined }>;
  /** Ends the connection; patient if all went well. Answers soon. */
  end(how: "gracefully" | "at once"): Promise<void>;
}

/** How long to wait for a server, milliseconds. */
export interface Patience {
  /** From the beginning to the server's version. */
  readonly connect: number;
  /** Without anything coming or going while a request is not answered. */
  readonly request: number;
  /** The same while data are brought to stable storage, which may be a lot. */
  readonly flush: number;
}

/** What the driver takes unless told otherwise. */
export const PATIENCE: Patience = { connect: 60_000, request: 60_000, flush: 600_000 };
