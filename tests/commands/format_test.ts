import { assertEquals } from "@std/assert";
import { hexNumber, optionHelp, snapshotTable, twoDecimals } from "../../lib/commands/_format.ts";

Deno.test("hexNumber: as C's %#x", () => {
  assertEquals([0, 1, 255, 2 ** 40].map(hexNumber), ["0", "0x1", "0xff", "0x10000000000"]);
});

Deno.test("twoDecimals: as C's %.2f, which takes the even one of two equally near numbers", () => {
  assertEquals(
    [0, 12.5, 3.125, 3.375, 3.625, 3.875, 100 / 3, 200 / 3, 100].map(twoDecimals),
    ["0.00", "12.50", "3.12", "3.38", "3.62", "3.88", "33.33", "66.67", "100.00"],
  );
});

Deno.test("snapshotTable: nothing without snapshots", () => {
  assertEquals(snapshotTable([]), "");
});

Deno.test("snapshotTable: columns, local time, and clocks of any length", () => {
  const date = new Date(2026, 0, 2, 3, 4, 5);
  const snapshot = {
    id: "1",
    name: "a name that is longer than its column",
    dateSeconds: date.getTime() / 1000,
    dateNanoseconds: 0,
    vmStateSize: 0,
    vmClock: 12345n * 3_600_000_000_000n + 62_007_999_999n,
  };
  assertEquals(
    snapshotTable([
      { ...snapshot, name: "snap1", vmClock: 0n, icount: 0n },
      snapshot,
    ]),
    `Snapshot list:
ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
1       snap1                 0 B 2026-01-02 03:04:05  0000:00:00.000          0
1       a name that is longer than its column      0 B 2026-01-02 03:04:05 12345:01:02.007         --
`,
  );
});

Deno.test("optionHelp: descriptions begin in one column where they can", () => {
  const specs = [
    { name: "a", type: "str", help: "one" },
    { name: "data_file_raw", type: "bool", help: "two" },
  ] as const;
  const list = `  a=<str>                - one\n  data_file_raw=<bool (on/off)> - two\n`;
  assertEquals(optionHelp(specs, "zap", "x"), `Supported options:\n${list}`);
  assertEquals(
    optionHelp(specs, "zap", undefined),
    `Supported zap options:\n${list}
The protocol level may support further options.
Specify the target filename to include those options.
`,
  );
});
