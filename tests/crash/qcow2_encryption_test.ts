/** Crashes while a guest writes to an encrypted qcow2 image. */
import { crashEverywhere, type CrashScenario } from "./_crashes.ts";
import { discardAnywhere, writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";

const AES = { "encrypt.format": "aes", "encrypt.key-secret": "s" };
const LUKS = {
  "encrypt.format": "luks",
  "encrypt.key-secret": "s",
  "encrypt.cipher-alg": "aes-128",
  "encrypt.cipher-mode": "cbc",
  "encrypt.iter-time": "1",
};

/** Without a sample for the reference, which would need the key. */
function crashTest(name: string, scenario: CrashScenario): void {
  Deno.test(`crash: encrypted, ${name}`, () => crashEverywhere(scenario));
}

for (const [clusterSize, size] of [[512, "256k"], [4096, "1M"], [65536, "2M"]] as const) {
  crashTest(`writes, clusters of ${clusterSize} bytes`, {
    options: { ...AES, size, cluster_size: `${clusterSize}` },
    act: (guest, random) => writeAnywhere(guest, random, 30),
  });
}

crashTest("writes with LUKS", {
  options: { ...LUKS, size: "512k", cluster_size: "4096" },
  act: (guest, random) => writeAnywhere(guest, random, 10),
});

crashTest("copy-on-write of a backing file", {
  options: { ...AES, size: "512k", cluster_size: "4096" },
  backing: 700,
  act: (guest, random) => writeAnywhere(guest, random, 30, 12),
});

crashTest("copy-on-write by requests at the same time, extended L2", {
  options: { ...AES, size: "512k", cluster_size: "16k", extended_l2: "on" },
  backing: 1024,
  act: (guest, random) => writeTogether(guest, random, 10),
});

crashTest("zeros and discards", {
  options: { ...AES, size: "1M", cluster_size: "4096" },
  backing: 1500,
  prepare: (guest, random) => writeAnywhere(guest, random, 20),
  act: async (guest, random) => {
    await zeroAnywhere(guest, random, 15);
    await discardAnywhere(guest, random, 15);
    await writeAnywhere(guest, random, 10);
  },
});

crashTest("a data file", {
  options: { ...AES, size: "512k", cluster_size: "4096" },
  dataFile: true,
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
