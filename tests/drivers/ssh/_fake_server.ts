/** An SFTP server in this process, well-behaved unless told otherwise. */
import { readU32BE } from "../../../lib/bytes/endian.ts";
import {
  encodePacket,
  type Field,
  OpenFlag,
  PacketFields,
  PacketReader,
  PacketType,
  StatusCode,
} from "../../../drivers/ssh/packets.ts";
import type { Transport } from "../../../drivers/ssh/transport.ts";

const REGULAR = 0o100644;

/** How the server differs from a good one. */
export interface Faults {
  /** What is sent in place of its version. */
  readonly greeting?: Uint8Array;
  /** Extensions that it offers; `fsync@openssh.com` unless given. */
  readonly extensions?: readonly string[];
  /** It says that it set attributes, and does not. */
  readonly ignoresAttributes?: boolean;
  /** The most bytes that one answer carries. */
  readonly shortReads?: number;
  /** What becomes of an answer on its way: nothing, others, or `"hang up"`. */
  readonly onAnswer?: (packet: Uint8Array, request: Request) => readonly Uint8Array[] | "hang up";
  /** Answers are kept until there are so many or no more come, and then sent in the other order. */
  readonly disorder?: number;
}

/** What a client asked for. */
export interface Request {
  /** Type of the packet. */
  readonly type: number;
  /** Its number. */
  readonly id: number;
}

/** A server with files, for any number of connections. */
export class FakeServer {
  /** By path. */
  readonly files = new Map<string, Uint8Array>();
  /** The types of all requests that came. */
  readonly requests: number[] = [];
  readonly #faults: Faults;

  /** A server without files. */
  constructor(faults: Faults = {}) {
    this.#faults = faults;
  }

  /** The types of requests that came, of this kind. */
  count(type: number): number {
    return this.requests.filter((other) => other === type).length;
  }

  /** A connection to it. */
  connect(): Transport {
    const up = new TransformStream<Uint8Array, Uint8Array>();
    const down = new TransformStream<Uint8Array, Uint8Array>();
    const serving = this.#serve(up.readable, down.writable.getWriter());
    return {
      readable: down.readable,
      writable: up.writable,
      peer: "fake",
      explain: () => Promise.resolve({ reason: "it was hung up" }),
      async end() {
        // Whichever side still waits learns that the other is gone.
        await Promise.allSettled([serving.hangUp()]);
      },
    };
  }

  #serve(
    readable: ReadableStream<Uint8Array>,
    writer: WritableStreamDefaultWriter<Uint8Array>,
  ): { hangUp(): Promise<void> } {
    const reader = new PacketReader(readable);
    const handles = new Map<string, string>();
    let kept: Uint8Array[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const release = () => {
      clearTimeout(timer);
      timer = undefined;
      for (const one of kept.toReversed()) send(one);
      kept = [];
    };
    const send = (bytes: Uint8Array) => void writer.write(bytes).catch(() => {});
    const hangUp = async () => {
      clearTimeout(timer);
      writer.close().catch(() => {});
      await reader.cancel();
    };
    const run = async () => {
      const init = await reader.next();
      if (init === undefined) return;
      const { greeting, extensions = ["fsync@openssh.com"], onAnswer, disorder = 1 } = this.#faults;
      const fields = [3, ...extensions.flatMap((name) => [name, "1"])];
      send(greeting ?? encodePacket(PacketType.VERSION, fields));
      for (;;) {
        const packet = await reader.next();
        if (packet === undefined) return;
        const request: Request = { type: packet[0]!, id: readU32BE(packet, 1) };
        this.requests.push(request.type);
        const answer = this.#answer(request, packet, handles);
        const sent = onAnswer?.(answer, request) ?? [answer];
        if (sent === "hang up") return await hangUp();
        kept.push(...sent);
        if (kept.length >= disorder) release();
        else timer ??= setTimeout(release, 1);
      }
    };
    run().catch(() => {});
    return { hangUp };
  }

  #answer({ type, id }: Request, packet: Uint8Array, handles: Map<string, string>): Uint8Array {
    const fields = new PacketFields(packet.subarray(5));
    const reply = (type: number, ...rest: readonly Field[]) => encodePacket(type, [id, ...rest]);
    const status = (code: number) => reply(PacketType.STATUS, code, `code ${code}`, "en");
    const file = () => {
      const path = handles.get(fields.text())!;
      return { path, bytes: this.files.get(path)! };
    };
    switch (type) {
      case PacketType.OPEN: {
        const path = fields.text();
        const flags = fields.u32();
        const old = this.files.get(path);
        if (old === undefined && !(flags & OpenFlag.CREATE)) {
          return status(StatusCode.NO_SUCH_FILE);
        }
        if (old !== undefined && flags & OpenFlag.EXCLUSIVE) return status(StatusCode.FAILURE);
        if (old === undefined || flags & OpenFlag.TRUNCATE) this.files.set(path, new Uint8Array(0));
        const handle = `handle ${handles.size}`;
        handles.set(handle, path);
        return reply(PacketType.HANDLE, handle);
      }
      case PacketType.FSTAT:
        return reply(PacketType.ATTRS, 5, BigInt(file().bytes.length), REGULAR);
      case PacketType.READ: {
        const { bytes } = file();
        const offset = Number(fields.u64());
        const length = Math.min(fields.u32(), this.#faults.shortReads ?? Infinity);
        if (offset >= bytes.length) return status(StatusCode.EOF);
        return reply(PacketType.DATA, bytes.subarray(offset, offset + length));
      }
      case PacketType.WRITE: {
        const { path, bytes } = file();
        const offset = Number(fields.u64());
        const data = fields.bytes();
        const longer = new Uint8Array(Math.max(bytes.length, offset + data.length));
        longer.set(bytes);
        longer.set(data, offset);
        this.files.set(path, longer);
        return status(StatusCode.OK);
      }
      case PacketType.FSETSTAT: {
        const { path, bytes } = file();
        fields.u32();
        if (!this.#faults.ignoresAttributes) {
          this.files.set(path, bytes.slice(0, Number(fields.u64())));
        }
        return status(StatusCode.OK);
      }
      case PacketType.REMOVE:
        return status(
          this.files.delete(fields.text()) ? StatusCode.OK : StatusCode.NO_SUCH_FILE,
        );
      case PacketType.CLOSE:
      case PacketType.EXTENDED:
        return status(StatusCode.OK);
      default:
        return status(StatusCode.OP_UNSUPPORTED);
    }
  }
}
