import { assert, assertEquals } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { isZero } from "../../lib/bytes/zero_scan.ts";
import { NbdProtocolError } from "../../lib/nbd/errors.ts";
import {
  decodeContextRequest,
  decodeInfoRequest,
  encodeContextRequest,
  encodeInfoRequest,
} from "../../lib/nbd/negotiation.ts";
import { Random } from "../_random.ts";
import type { FakeServerOptions } from "../drivers/nbd/_fake_server.ts";
import { openFake } from "../drivers/nbd/_open.ts";

/** Sessions with each kind of server, some dozen messages each, half of them damaged: `QIMG_HOSTILE_NBD` for more. */
const SESSIONS = Number(Deno.env.get("QIMG_HOSTILE_NBD") ?? 200);

const SIZE = 16 * 1024;

/** Changes a few bytes of what a server says: a bit, a byte, an interesting number, the length. */
function damage(bytes: Uint8Array, random: Random): Uint8Array {
  const copy = bytes.slice();
  switch (random.below(6)) {
    case 0:
      copy[random.below(copy.length)]! ^= 1 << random.below(8);
      break;
    case 1:
      copy[random.below(copy.length)] = random.below(256);
      break;
    case 2: {
      const at = random.below(copy.length);
      copy.fill(random.pick([0, 0x7f, 0x80, 0xff]), at, at + random.pick([1, 2, 4, 8]));
      break;
    }
    case 3:
      return copy.subarray(0, random.below(copy.length));
    case 4: {
      const longer = new Uint8Array(copy.length + random.between(1, 64));
      longer.set(copy);
      return longer;
    }
    default:
      copy.set(random.bytes(Math.min(copy.length, 24)));
  }
  return copy;
}

/** What a client does with an export; each step may fail, and none may give other bytes than there are. */
async function useExport(
  open: Awaited<ReturnType<typeof openFake>>,
  bytes: Uint8Array,
): Promise<void> {
  const { node } = open;
  const attempt = async (step: () => Promise<void>) => {
    try {
      await step();
    } catch (error) {
      assert(error instanceof ImageError, String(error));
    }
  };
  await Promise.all([
    attempt(async () => {
      const into = new Uint8Array(1024);
      await node.read(512, into);
    }),
    attempt(async () => {
      const { length } = await node.extent(0, SIZE);
      assert(length >= 1 && length <= SIZE);
    }),
    attempt(() => node.write(4096, bytes.slice(4096, 8192))),
    attempt(() => node.writeZeroes(8192, 4096, { unmap: true })),
    attempt(() => node.discard(8192, 4096)),
    attempt(() => node.flush()),
  ]);
  await attempt(() => node[Symbol.asyncDispose]());
}

/** Ends connections on which nobody has anything to say any more, as servers do. */
async function withoutSilence(
  pipes: readonly { readonly isStuck: boolean; end(): void }[],
  running: Promise<void>,
): Promise<void> {
  let isOver = false;
  const end = running.finally(() => isOver = true);
  // A failure is thrown below; until then it is not one that nobody hears of.
  end.catch(() => {});
  const deadline = performance.now() + 10_000;
  while (!isOver) {
    await new Promise((resolve) => setTimeout(resolve));
    for (const line of pipes) if (line.isStuck) line.end();
    assert(isOver || performance.now() < deadline, "a client hangs");
  }
  await end;
}

const SERVERS: readonly (readonly [string, FakeServerOptions])[] = [
  ["simple", { replies: "simple" }],
  ["structured", { replies: "structured" }],
  ["extended", {}],
  ["oldstyle", { style: "oldstyle" }],
  ["without GO", { knowsGo: false, replies: "structured" }],
];

for (const [kind, options] of SERVERS) {
  Deno.test(`nbd: ${SESSIONS} damaged sessions of a server (${kind}) end in errors or well`, async () => {
    const before = Deno.memoryUsage().external;
    let failed = 0;
    for (let seed = 0; seed < SESSIONS; seed++) {
      const random = new Random(seed);
      const bytes = random.bytes(SIZE);
      bytes.fill(0, 8192, 12288);
      // Some messages in the beginning are let through, so that later ones get their share.
      let spared = random.below(16);
      const pipes: { isStuck: boolean; end(): void }[] = [];
      const running = (async () => {
        let open: Awaited<ReturnType<typeof openFake>>;
        try {
          open = await openFake(bytes, {
            ...options,
            alter: (message) => spared-- > 0 || random.oneIn(2) ? message : damage(message, random),
            onPipe: (line) => pipes.push(line),
          });
        } catch (error) {
          assert(error instanceof ImageError, String(error));
          failed++;
          return;
        }
        await useExport(open, bytes);
      })();
      try {
        await withoutSilence(pipes, running);
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
    assert(failed > 0 && failed < SESSIONS, `${failed} of ${SESSIONS} did not open`);
    const grown = Deno.memoryUsage().external - before;
    assert(grown < 256 * 1024 * 1024, `${grown} bytes more are in use`);
  });
}

Deno.test("nbd: damaged options of clients are read or refused", () => {
  const random = new Random(5);
  let refused = 0;
  for (let i = 0; i < 3000; i++) {
    const name = "x".repeat(random.below(20));
    const queries = Array.from({ length: random.below(4) }, () => "base:allocation");
    const [encoded, decode] = i % 2 === 0
      ? [encodeInfoRequest({ name, kinds: [3] }), decodeInfoRequest]
      : [
        encodeContextRequest({ name, queries }),
        (bytes: Uint8Array) => decodeContextRequest(bytes, "x"),
      ];
    try {
      decode(damage(encoded, random));
    } catch (error) {
      assert(error instanceof NbdProtocolError, String(error));
      refused++;
    }
  }
  assert(refused > 500 && refused < 3000, String(refused));
});

Deno.test("nbd: what is read of a server that says less is nothing but what it said", async () => {
  // The buffer of a read that fails is not looked at; that of one that does not is full.
  const bytes = new Random(6).bytes(SIZE).map((byte) => byte | 1);
  for (let seed = 0; seed < 100; seed++) {
    const random = new Random(seed);
    let spared = 12;
    const pipes: { isStuck: boolean; end(): void }[] = [];
    const running = (async () => {
      const { node } = await openFake(bytes, {
        // Lengths and offsets, not the data.
        alter(message) {
          if (spared-- > 0 || message.length < 32) return message;
          const copy = message.slice();
          copy[random.below(40)]! ^= 1 << random.below(8);
          return copy;
        },
        onPipe: (line) => pipes.push(line),
      });
      const into = new Uint8Array(4096);
      try {
        await node.read(2048, into);
        assertEquals(into.filter((byte) => byte === 0).length, 0, `seed ${seed}`);
        assert(!isZero(into));
      } catch (error) {
        assert(error instanceof ImageError, String(error));
      }
      await node[Symbol.asyncDispose]();
    })();
    await withoutSilence(pipes, running);
  }
});
