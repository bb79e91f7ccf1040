/** LUKS headers from strangers: refused or read, in bounded time and memory. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { imageBytes, open, PAYLOAD } from "../drivers/luks/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";

const SEED = Number(Deno.env.get("QIMG_HOSTILE_SEED") ?? 1);
const ROUNDS = Number(Deno.env.get("QIMG_HOSTILE_ROUNDS") ?? 60);

/** What takes as long as it says, here as in the reference: the counts of iterations. */
function isCount(at: number): boolean {
  return at >= 164 && at < 168 ||
    at >= 208 && at < 592 && (at - 208) % 48 >= 4 && (at - 208) % 48 < 8;
}

/** Opens and reads; answers whether that went well. Anything but an `ImageError` is thrown. */
async function survives(bytes: Uint8Array<ArrayBuffer>, metadataOnly: boolean): Promise<boolean> {
  try {
    await using disk = await open(
      new MemoryNode({ bytes, readOnly: true }),
      { metadataOnly },
      { secret: "s" },
    );
    if (!metadataOnly && disk.length > 0) {
      await disk.read(0, new Uint8Array(Math.min(disk.length, 512)));
    }
    await disk.details!();
    return true;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    assert(error.message.length > 0);
    return false;
  }
}

Deno.test("mutated headers are refused or read", async () => {
  const valid = await imageBytes(4096);
  const random = new Random(SEED);
  let refused = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const bytes = valid.slice();
    for (let n = random.between(1, 4); n > 0;) {
      const at = random.below(592);
      if (isCount(at)) continue;
      bytes[at] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
      n--;
    }
    try {
      if (!await survives(bytes, false)) refused++;
      await survives(bytes, true);
    } catch (error) {
      throw new Error(`QIMG_HOSTILE_SEED=${SEED}, round ${round}`, { cause: error });
    }
  }
  // A salt or a digest that was hit opens nothing either.
  assert(refused > ROUNDS / 4, `${refused} of ${ROUNDS} were refused`);
});

Deno.test("a file that ends anywhere in its header is refused", async () => {
  const valid = await imageBytes(0);
  for (
    const length of [0, 1, 6, 7, 8, 104, 208, 511, 512, 591, 592, 4095, 4096, 68095, PAYLOAD - 512]
  ) {
    assertEquals(await survives(valid.slice(0, length), false), false, `${length} bytes`);
    assertEquals(await survives(valid.slice(0, length), true), false, `${length} bytes, info`);
  }
  assertEquals(await survives(valid, false), true);
});

Deno.test("a key of 4 GiB takes no memory", async () => {
  const bytes = await imageBytes(512);
  bytes.fill(0xff, 108, 112);
  const error = await assertRejects(() => open(new MemoryNode({ bytes })), ImageError);
  assertEquals(error.message, "Keyslot 0 is overlapping with the encrypted payload");
  // Without a payload in the way the name of the cipher bounds it.
  bytes.fill(0, 104, 108);
  const detached = await assertRejects(
    () => open(new MemoryNode(), {}, { secret: "s", header: new MemoryNode({ bytes }) }),
    ImageError,
  );
  assertEquals(detached.message.startsWith("Keyslots 0 and 1 are overlapping"), true);
});
