import { assertEquals, assertRejects } from "@std/assert";
import { encryptionDetails } from "../../../drivers/qcow2/encryption.ts";
import type { Qcow2Header } from "../../../drivers/qcow2/header.ts";
import { readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, runReference, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { context, patch } from "./_image.ts";

const LUKS_AT = 0x50000;
const SECRET = ["--object", "secret,id=s,data=123456"];

/** The header of test vector L1 of the LUKS reference, salts and digests left out. */
function luksHeader(): Uint8Array {
  const bytes = patch(
    new Uint8Array(592),
    [0, 4, 0x4c554b53],
    [4, 4, 0xbabe0001],
    [104, 4, 0xfc8],
    [108, 4, 64],
    [164, 4, 1000],
  );
  const text = (at: number, value: string) => bytes.set(new TextEncoder().encode(value), at);
  text(8, "aes");
  text(40, "xts-plain64");
  text(72, "sha256");
  text(168, "00112233-4455-6677-8899-aabbccddeeff");
  for (let slot = 0; slot < 8; slot++) {
    patch(
      bytes,
      [208 + slot * 48, 4, slot === 0 ? 0x00ac71f3 : 0x0000dead],
      [208 + slot * 48 + 4, 4, slot === 0 ? 1000 : 0],
      [208 + slot * 48 + 40, 4, 8 + slot * 504],
      [208 + slot * 48 + 44, 4, 4000],
    );
  }
  return bytes;
}

/** An image header that says LUKS, or another method. */
async function imageHeader(cryptMethod: number): Promise<Qcow2Header> {
  const head = patch(
    new Uint8Array(144),
    [0, 4, 0x514649fb],
    [4, 4, 3],
    [20, 4, 16],
    [32, 4, cryptMethod],
    [36, 4, 1],
    [40, 8, 0x30000],
    [48, 8, 0x10000],
    [56, 4, 1],
    [96, 4, 4],
    [100, 4, 112],
  );
  if (cryptMethod === 2) {
    patch(head, [112, 4, 0x0537be77], [116, 4, 16], [120, 8, LUKS_AT], [128, 8, 2068480]);
  }
  return await readHeader(new MemoryNode({ bytes: head }), context());
}

async function details(luks: Uint8Array) {
  const file = new MemoryNode();
  await file.write(LUKS_AT, luks);
  return await encryptionDetails(file, await imageHeader(2), context());
}

Deno.test("an image without encryption has no details of it", async () => {
  assertEquals(
    await encryptionDetails(new MemoryNode(), await imageHeader(0), context()),
    undefined,
  );
});

Deno.test("an AES image tells its format alone", async () => {
  assertEquals(await encryptionDetails(new MemoryNode(), await imageHeader(1), context()), {
    format: "aes",
  });
});

Deno.test("a LUKS image tells what its header says", async () => {
  assertEquals(await details(luksHeader()), {
    "ivgen-alg": "plain64",
    "detached-header": false,
    "hash-alg": "sha256",
    "cipher-alg": "aes-256",
    uuid: "00112233-4455-6677-8899-aabbccddeeff",
    format: "luks",
    "cipher-mode": "xts",
    slots: [
      { active: true, iters: 1000, "key-offset": 4096, stripes: 4000 },
      ...[1, 2, 3, 4, 5, 6, 7].map((slot) => ({
        active: false,
        "key-offset": 4096 + slot * 258048,
      })),
    ],
    "payload-offset": 2068480,
    "master-key-iters": 1000,
  });
});

Deno.test("a key for CBC is not halved, and ESSIV names its hash", async () => {
  const luks = luksHeader();
  luks.fill(0, 40, 72);
  luks.set(new TextEncoder().encode("cbc-essiv:sha256"), 40);
  const shown = await details(patch(luks, [108, 4, 32]));
  assertEquals([shown!["cipher-alg"], shown!["cipher-mode"]], ["aes-256", "cbc"]);
  assertEquals([shown!["ivgen-alg"], shown!["ivgen-hash-alg"]], ["essiv", "sha256"]);
});

/** Writes a NUL-terminated name. */
function name(luks: Uint8Array, at: number, value: string): void {
  luks.set(new TextEncoder().encode(`${value}\0`), at);
}

/** Ways to damage a LUKS header, and what is said. */
const DAMAGES: readonly (readonly [
  name: string,
  damage: (luks: Uint8Array) => void,
  text: string,
])[] = [
  ["magic", (luks) => patch(luks, [0, 4, 0]), "Volume is not in LUKS format"],
  ["version 2", (luks) => patch(luks, [6, 2, 2]), "LUKS version 2 is not supported"],
  [
    "cipher name without end",
    (luks) => luks.fill(0x61, 8, 40),
    "LUKS header cipher name is not NUL terminated",
  ],
  [
    "cipher mode without end",
    (luks) => luks.fill(0x61, 40, 72),
    "LUKS header cipher mode is not NUL terminated",
  ],
  [
    "hash without end",
    (luks) => luks.fill(0x61, 72, 104),
    "LUKS header hash spec is not NUL terminated",
  ],
  [
    "payload in the header",
    (luks) => patch(luks, [104, 4, 7]),
    "LUKS payload is overlapping with the header",
  ],
  ["no iterations", (luks) => patch(luks, [164, 4, 0]), "LUKS key iteration count is zero"],
  [
    "stripes of slot 3",
    (luks) => patch(luks, [208 + 3 * 48 + 44, 4, 3999]),
    "Keyslot 3 is corrupted (stripes 3999 != 4000)",
  ],
  [
    "state of slot 7",
    (luks) => patch(luks, [208 + 7 * 48, 4, 1]),
    "Keyslot 7 state (active/disable) is corrupted",
  ],
  [
    "iterations of slot 0",
    (luks) => patch(luks, [208 + 4, 4, 0]),
    "Keyslot 0 iteration count is zero",
  ],
  [
    "slot 0 in the header",
    (luks) => patch(luks, [208 + 40, 4, 4]),
    "Keyslot 0 is overlapping with the LUKS header",
  ],
  [
    "slot 7 in the payload",
    (luks) => patch(luks, [208 + 7 * 48 + 40, 4, 0xfc8 - 503]),
    "Keyslot 7 is overlapping with the encrypted payload",
  ],
  [
    "slots in each other",
    (luks) => patch(luks, [208 + 2 * 48 + 40, 4, 8 + 511]),
    "Keyslots 1 and 2 are overlapping in the header",
  ],
  [
    "mode without a dash",
    (luks) => luks.set(new TextEncoder().encode("xts\0"), 40),
    "Unexpected cipher mode string format 'xts'",
  ],
  [
    "unknown hash of the IVs",
    (luks) => name(luks, 40, "cbc-essiv:rot13"),
    "Hash algorithm 'rot13' not supported",
  ],
  ["unknown mode", (luks) => name(luks, 40, "rot13-plain64"), "Cipher mode 'rot13' not supported"],
  [
    "unknown cipher",
    (luks) => name(luks, 8, "rot13"),
    "Algorithm 'rot13' with key size 32 bytes not supported",
  ],
  [
    "odd key",
    (luks) => patch(luks, [108, 4, 60]),
    "Algorithm 'aes' with key size 30 bytes not supported",
  ],
  ["unknown hash", (luks) => name(luks, 72, "rot13"), "Hash algorithm 'rot13' not supported"],
  [
    "unknown IV generator",
    (luks) => name(luks, 40, "xts-plain65"),
    "IV generator 'plain65' not supported",
  ],
  [
    "ESSIV without hash",
    (luks) => name(luks, 40, "xts-essiv"),
    "Missing IV generator hash specification",
  ],
];

for (const [name, damage, text] of DAMAGES) {
  Deno.test(`a damaged LUKS header is refused: ${name}`, async () => {
    const luks = luksHeader();
    damage(luks);
    const error = await assertRejects(() => details(luks), ImageError);
    assertEquals(error.message, text);
  });
}

Deno.test({
  name: "LUKS headers of the reference are shown and refused as there",
  ignore: reference.ignore,
  fn: async (t) => {
    await using dir = await tempDir();
    const at = { cwd: dir.path };
    const create = (options: string) =>
      useReference([
        "create",
        "-q",
        ...SECRET,
        "-f",
        "qcow2",
        "-o",
        `encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,${options}`,
        "x",
        "1M",
      ], at);
    const ours = async () => {
      const file = new MemoryNode({ bytes: await Deno.readFile(dir.file("x")) });
      const using = context({ metadataOnly: true });
      return encryptionDetails(file, await readHeader(file, using), using);
    };
    for (
      const options of [
        "encrypt.cipher-alg=aes-256",
        "encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
      ]
    ) {
      await t.step(options, async () => {
        await create(options);
        const info = JSON.parse(await useReference(["info", "--output=json", "x"], at));
        assertEquals(await ours(), info["format-specific"].data.encrypt);
      });
    }
    await create("cluster_size=64k");
    const whole = await Deno.readFile(dir.file("x"));
    const offset = Number(new DataView(whole.buffer).getBigUint64(0x78));
    for (const [name, damage, text] of DAMAGES) {
      await t.step(name, async () => {
        const damaged = whole.slice();
        damage(damaged.subarray(offset, offset + 592));
        await Deno.writeFile(dir.file("x"), damaged);
        const { stderr } = await runReference(["info", "x"], at);
        assertEquals(stderr, `qemu-img: Could not open 'x': ${text}\n`);
      });
    }
  },
});
