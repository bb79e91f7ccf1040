import { assertEquals } from "@std/assert";
import { hasLoopDevices, loopDevice } from "../../_devices.ts";
import { reference, runQimgProcess, runReference, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";

// In processes of their own: a test run with less than all permissions opens no devices.

const ignore = reference.ignore || !hasLoopDevices;

/** Command lines on a device of 2 MiB and 512 bytes, one after the other on the same device. */
const LINES = [
  "info DEVICE",
  "info --output=json DEVICE",
  "map DEVICE",
  "map --output=json DEVICE",
  "info file:DEVICE",
  "info host_device:DEVICE",
  "create DEVICE 1M",
  "create DEVICE 2097664",
  "create DEVICE 3M",
  "create -o preallocation=full DEVICE 1M",
  "create -o preallocation=some DEVICE 1M",
  "create -o nocow=on DEVICE 1M",
  "create -f qcow2 DEVICE 1M",
  "info DEVICE",
  "check DEVICE",
  "resize DEVICE 1G",
  "check DEVICE",
  "resize -f raw DEVICE 1M",
  "resize -f raw --shrink DEVICE 1M",
  "resize -f raw DEVICE 3M",
  "resize -f raw DEVICE 2097664",
  "dd if=small of=DEVICE bs=1M",
  "dd if=DEVICE of=copy bs=1M",
  "create host_device:DEVICE 1M",
];

Deno.test({
  name: "a block device is used as the reference uses it",
  ignore,
  fn: async () => {
    const outcomes = [];
    const contents = [];
    for (const tool of [runReference, runQimgProcess]) {
      await using dir = await tempDir();
      const cwd = dir.path;
      await useReference(["create", "-q", "disk", "2097664"], { cwd });
      await Deno.writeFile(`${cwd}/small`, new Uint8Array(1 << 20).fill(6));
      using device = loopDevice(dir.file("disk"));
      const answers: Record<string, unknown> = {};
      for (const [i, line] of LINES.entries()) {
        const words = line.replace("DEVICE", device.path).split(" ");
        const { code, stdout, stderr } = await tool(words, { cwd });
        const clean = (text: string) =>
          text.replaceAll(device.path, "DEVICE").replaceAll(/^(qimg|qemu-img): /gm, "NAME: ");
        answers[`${i}. ${line}`] = [code, clean(stdout), clean(stderr)];
      }
      outcomes.push(answers);
      contents.push(await Deno.readFile(dir.file("copy")));
    }
    assertEquals(outcomes[1], outcomes[0]);
    assertEquals(contents[1], contents[0]);
  },
});

Deno.test({
  name: "a device that cannot be written says so",
  ignore,
  fn: async () => {
    const outcomes = [];
    for (const tool of [runReference, runQimgProcess]) {
      await using dir = await tempDir();
      const cwd = dir.path;
      await useReference(["create", "-q", "disk", "1M"], { cwd });
      using device = loopDevice(dir.file("disk"), { readOnly: true });
      const answers: unknown[] = [];
      for (const line of ["info DEVICE", "resize -f raw DEVICE 1M", "create DEVICE 1M"]) {
        const words = line.replace("DEVICE", device.path).split(" ");
        const { code, stderr } = await tool(words, { cwd });
        const clean = stderr.replaceAll(device.path, "DEVICE").replace(/^\S+: /, "");
        answers.push([line, code, clean]);
      }
      outcomes.push(answers);
    }
    assertEquals(outcomes[1], outcomes[0]);
  },
});
