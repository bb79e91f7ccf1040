/** LUKS volumes in memory, with random numbers that come again. */
import { createHash } from "node:crypto";
import { type LuksParameters, type LuksSources, LuksVolume } from "../../lib/crypto/luks.ts";

/** The passphrase of all volumes here. */
export const PASSPHRASE: Uint8Array = bytesOf("123456");

/** UTF-8. */
export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** SHA-256, in hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The stream of the LUKS reference's vectors, SHA256(0) || SHA256(1) || …, in place of random bytes. */
export function vectorSources(): LuksSources {
  let index = 0;
  let left = new Uint8Array(0);
  return {
    uuid: () => "00112233-4455-6677-8899-aabbccddeeff",
    // The least that there is: 1000 iterations.
    speed: () => Promise.resolve(1),
    random(bytes) {
      for (let at = 0; at < bytes.length;) {
        if (left.length === 0) {
          const counter = new Uint8Array(4);
          new DataView(counter.buffer).setUint32(0, index++);
          left = new Uint8Array(createHash("sha256").update(counter).digest());
        }
        const part = left.subarray(0, bytes.length - at);
        bytes.set(part, at);
        at += part.length;
        left = left.slice(part.length);
      }
    },
  };
}

/** One request to a store; `bytes` of a write. */
export type StoreRequest =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "barrier" };

/** A file in memory that remembers what was written. */
export class MemoryStore {
  /** All writes and barriers, in order. */
  readonly requests: StoreRequest[] = [];
  /** The content. */
  bytes: Uint8Array<ArrayBuffer>;

  /** A file with this content. */
  constructor(bytes: Uint8Array) {
    this.bytes = new Uint8Array(bytes);
  }

  /** Fills `into`. */
  read(offset: number, into: Uint8Array): Promise<void> {
    into.set(this.bytes.subarray(offset, offset + into.length));
    return Promise.resolve();
  }

  /** Writes. */
  write(offset: number, from: Uint8Array): Promise<void> {
    this.requests.push({ kind: "write", offset, bytes: from.slice() });
    this.bytes.set(from, offset);
    return Promise.resolve();
  }

  /** Nothing more than a note. */
  barrier(): Promise<void> {
    this.requests.push({ kind: "barrier" });
    return Promise.resolve();
  }
}

/** The three volumes of the LUKS reference's test vectors. */
export const VECTORS: readonly {
  readonly name: string;
  readonly parameters: LuksParameters;
  readonly size: number;
  readonly file: string;
  readonly digest: string;
  readonly material: string;
}[] = [
  {
    name: "aes-256 xts-plain64 sha256",
    parameters: {
      cipher: "aes-256",
      mode: "xts",
      ivgen: "plain64",
      hash: "sha256",
      iterTime: 0n,
    },
    size: 2068992,
    file: "e75e8718fda2c285c054254a5676c8099f46652921a0d7b8bbacac354a25e600",
    digest: "7edcf15c75f4c708edbccfa8c33b392c2489dba8",
    material: "a3a1876ef2a60ba40d2f642834663d9e543e1dfbf689ed604d3e270d88a2eb02",
  },
  {
    name: "aes-128 cbc-essiv:sha256 sha256",
    parameters: {
      cipher: "aes-128",
      mode: "cbc",
      ivgen: "essiv",
      ivgenHash: "sha256",
      hash: "sha256",
      iterTime: 0n,
    },
    size: 528896,
    file: "7f5fed863e9cf5ad59994a083d6444e5aba7fe98ef8de489904aadca31023928",
    digest: "82d747b54724242728bd0fdaddf16fa8a249ffce",
    material: "20ea1ba74a910b0edb10386127017ba6f536c3a91017aceb42b7512d7e153028",
  },
  {
    name: "aes-256 cbc-plain64 sha1",
    parameters: { cipher: "aes-256", mode: "cbc", ivgen: "plain64", hash: "sha1", iterTime: 0n },
    size: 1053184,
    file: "4fc72e2e29561245cf36fdc60bbec09b8b3e13be8b7abb02018ff0ad941a6ead",
    digest: "7ce67dbb6eeb50978d6e41417bdc5aef0b140ff9",
    material: "6ffed4e93ec9107d88549b5ae848fd01648fc143397a743546b0170b66d901f9",
  },
];

/** A new volume of aes-128 in mode cbc, the smallest that there is. */
export async function smallVolume(
  parameters: Partial<LuksParameters> = {},
): Promise<{ readonly store: MemoryStore; readonly volume: LuksVolume }> {
  const store = new MemoryStore(new Uint8Array(528384));
  const volume = await LuksVolume.create(
    store,
    { ...VECTORS[1]!.parameters, ...parameters },
    PASSPHRASE,
    vectorSources(),
  );
  return { store, volume };
}
