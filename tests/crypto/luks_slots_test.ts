/** Requests to change key slots, and what a crash leaves of them. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { CryptoError } from "../../lib/crypto/error.ts";
import { LuksVolume } from "../../lib/crypto/luks.ts";
import { amendKeySlots, type KeySlotRequest } from "../../lib/crypto/luks_amend.ts";
import { Random } from "../_random.ts";
import {
  bytesOf,
  MemoryStore,
  PASSPHRASE,
  sha256,
  smallVolume,
  type StoreRequest,
} from "./_luks.ts";

const NOTHING: KeySlotRequest = {
  state: undefined,
  keyslot: undefined,
  newSecret: undefined,
  oldSecret: undefined,
  iterTime: undefined,
  force: false,
};
const secret = (text: string) => () => bytesOf(text);

function activate(text: string, more: Partial<KeySlotRequest> = {}): KeySlotRequest {
  return { ...NOTHING, state: "active", newSecret: secret(text), iterTime: 0n, ...more };
}

function erase(more: Partial<KeySlotRequest>): KeySlotRequest {
  return { ...NOTHING, state: "inactive", ...more };
}

function activeSlots(volume: LuksVolume): number[] {
  return [...volume.header.slots.keys()].filter((index) => volume.header.slots[index]!.active);
}

Deno.test("a passphrase goes into the first free slot, or the one that was named", async () => {
  const { volume } = await smallVolume();
  await amendKeySlots(volume, activate("a"));
  await amendKeySlots(volume, activate("b", { keyslot: 7 }));
  await amendKeySlots(volume, activate("c"));
  assertEquals(activeSlots(volume), [0, 1, 2, 7]);
  assert(await volume.slotOpens(7, bytesOf("b")));
});

Deno.test("all slots of a passphrase are erased", async () => {
  const { store, volume } = await smallVolume();
  await amendKeySlots(volume, activate("a"));
  await amendKeySlots(volume, activate("a"));
  await amendKeySlots(volume, erase({ oldSecret: secret("a") }));
  assertEquals(activeSlots(volume), [0]);
  assertEquals(activeSlots(await LuksVolume.open(store, PASSPHRASE)), [0]);
});

Deno.test("by force an active slot gets another passphrase, and the last one is erased", async () => {
  const { store, volume } = await smallVolume();
  await amendKeySlots(volume, activate("a", { keyslot: 0, force: true }));
  assertEquals(activeSlots(await LuksVolume.open(store, bytesOf("a"))), [0]);
  await amendKeySlots(volume, erase({ keyslot: 0, force: true }));
  assertEquals(activeSlots(volume), []);
  await assertRejects(() => LuksVolume.open(store, bytesOf("a")), CryptoError);
});

/** Slot 0 has the usual passphrase, slot 1 `a`. */
const REFUSED: readonly (readonly [request: KeySlotRequest, text: string])[] = [
  [NOTHING, "Parameter 'state' is missing"],
  [{ ...NOTHING, state: "up" }, "Parameter 'state' does not accept value 'up'"],
  [{ ...NOTHING, state: "active" }, "'new-secret' is required to activate a keyslot"],
  [
    activate("x", { oldSecret: secret("a") }),
    "'old-secret' must not be given when activating keyslots",
  ],
  [activate("x", { keyslot: 8 }), "Invalid keyslot 8 specified, must be between 0 and 7"],
  [activate("x", { keyslot: -1 }), "Invalid keyslot 4294967295 specified, must be between 0 and 7"],
  [
    activate("x", { keyslot: 1 }),
    "Refusing to overwrite active keyslot 1 - please erase it first",
  ],
  [
    erase({ keyslot: 1, newSecret: secret("x") }),
    "'new-secret' must not be given when erasing keyslots",
  ],
  [erase({ keyslot: 1, iterTime: 5n }), "'iter-time' must not be given when erasing keyslots"],
  [
    erase({}),
    "To erase keyslot(s), either explicit keyslot index or the password currently contained in " +
    "them must be given",
  ],
  [erase({ keyslot: 8 }), "Invalid keyslot 8 specified, must be between 0 and 7"],
  [erase({ keyslot: 2 }), "Given keyslot 2 is already erased (inactive) "],
  [
    erase({ keyslot: 0, oldSecret: secret("a") }),
    "Given keyslot 0 doesn't contain the given old password for erase operation",
  ],
  [
    erase({ oldSecret: secret("x") }),
    "No keyslots match given (old) password for erase operation",
  ],
];

for (const [request, text] of REFUSED) {
  Deno.test(`a request is refused and nothing written: ${text}`, async () => {
    const { store, volume } = await smallVolume();
    await amendKeySlots(volume, activate("a"));
    store.requests.length = 0;
    const error = await assertRejects(() => amendKeySlots(volume, request), CryptoError);
    assertEquals(error.message, text);
    assertEquals(store.requests, []);
  });
}

Deno.test("the last passphrase is kept", async () => {
  const { store, volume } = await smallVolume();
  store.requests.length = 0;
  const byIndex = await assertRejects(() => amendKeySlots(volume, erase({ keyslot: 0 })));
  assertEquals(
    (byIndex as Error).message,
    "Attempt to erase the only active keyslot 0 which will erase all the data in the image " +
      "irreversibly - refusing operation",
  );
  const bySecret = await assertRejects(() =>
    amendKeySlots(volume, erase({ oldSecret: () => PASSPHRASE }))
  );
  assertEquals(
    (bySecret as Error).message,
    "All the active keyslots match the (old) password that was given and erasing them will erase " +
      "all the data in the image irreversibly - refusing operation",
  );
  assertEquals(store.requests, []);
});

Deno.test("a ninth passphrase is refused", async () => {
  const { volume } = await smallVolume();
  for (let slot = 1; slot < 8; slot++) await amendKeySlots(volume, activate("a"));
  await assertRejects(
    () => amendKeySlots(volume, activate("a")),
    CryptoError,
    "Can't add a keyslot - all keyslots are in use",
  );
});

const SECTOR = 512;

/** States that a crash may leave: up to some request, with some sectors since the last barrier lost. */
function* crashes(
  before: Uint8Array,
  requests: readonly StoreRequest[],
  random: Random,
): Generator<Uint8Array> {
  const settled = new Uint8Array(before);
  let open: StoreRequest[] = [];
  for (let moment = 0; moment <= requests.length; moment++) {
    // The forty passes over key material look alike.
    const boring = moment > 6 && moment < requests.length - 4 && moment % 20 !== 0;
    for (let variant = 0; variant < (boring ? 0 : 3); variant++) {
      const state = settled.slice();
      for (const request of open) {
        if (request.kind === "barrier") continue;
        const { offset, bytes } = request;
        for (let at = 0; at < bytes.length;) {
          const next = Math.min(bytes.length, SECTOR - (offset + at) % SECTOR + at);
          // All of it, as when the process was killed; or what the disk had time for.
          if (variant === 0 || random.oneIn(2)) state.set(bytes.subarray(at, next), offset + at);
          at = next;
        }
      }
      yield state;
    }
    const request = requests[moment];
    if (request === undefined) return;
    if (request.kind === "write") open.push(request);
    else {
      for (const done of open) if (done.kind === "write") settled.set(done.bytes, done.offset);
      open = [];
    }
  }
}

const opened = new Map<string, string[]>();

/** Which of the passphrases open a state. States that are alike are opened once. */
async function opening(state: Uint8Array, passphrases: readonly string[]): Promise<string[]> {
  const key = `${sha256(state)} ${passphrases}`;
  const known = opened.get(key);
  if (known !== undefined) return known;
  const found: string[] = [];
  opened.set(key, found);
  for (const text of passphrases) {
    try {
      await LuksVolume.open(new MemoryStore(state), bytesOf(text));
      found.push(text);
    } catch (error) {
      assert(error instanceof CryptoError, String(error));
      assertEquals(error.message, "Invalid password, cannot unlock any keyslot");
    }
  }
  return found;
}

/** Crashes of requests on a volume with the passphrases 123456 in slot 0 and `a` in slot 6. */
const CRASHES: readonly (readonly [
  name: string,
  request: KeySlotRequest,
  allowed: readonly string[],
])[] = [
  ["filling a slot", activate("new", { keyslot: 3 }), ["123456 a", "123456 a new"]],
  // It lies in two sectors of the header.
  ["erasing slot 6", erase({ keyslot: 6 }), ["123456 a", "123456"]],
  ["erasing slot 0", erase({ keyslot: 0 }), ["123456 a", "a"]],
  [
    "replacing a passphrase by force",
    activate("new", { keyslot: 0, force: true }),
    ["123456 a", "123456 a new", "a new"],
  ],
];

for (const [name, request, allowed] of CRASHES) {
  Deno.test(`a crash leaves every slot as it was or as it is to be: ${name}`, async () => {
    const { store, volume } = await smallVolume();
    await amendKeySlots(volume, activate("a", { keyslot: 6 }));
    const before = store.bytes.slice();
    store.requests.length = 0;
    await amendKeySlots(volume, request);
    const seen = new Set<string>();
    for (const state of crashes(before, store.requests, new Random(1))) {
      const found = (await opening(state, ["123456", "a", "new"])).join(" ");
      assert(allowed.includes(found), `a state opens with: ${found || "nothing"}`);
      seen.add(found);
    }
    assertEquals([...seen].sort(), [...allowed].sort());
  });
}

Deno.test("a crash while slot 6 is filled leaves it as it was or as it is to be", async () => {
  const { store, volume } = await smallVolume();
  const before = store.bytes.slice();
  store.requests.length = 0;
  await amendKeySlots(volume, activate("new", { keyslot: 6 }));
  const seen = new Set<string>();
  for (const state of crashes(before, store.requests, new Random(2))) {
    seen.add((await opening(state, ["123456", "new"])).join(" "));
  }
  assertEquals([...seen].sort(), ["123456", "123456 new"]);
});

Deno.test("a crash never loses the only key when its passphrase is replaced by force", async () => {
  const { store, volume } = await smallVolume();
  const before = store.bytes.slice();
  store.requests.length = 0;
  await amendKeySlots(volume, activate("new", { keyslot: 0, force: true }));
  for (const state of crashes(before, store.requests, new Random(3))) {
    const found = await opening(state, ["123456", "new"]);
    assert(found.length > 0, "no passphrase opens a state");
  }
});
