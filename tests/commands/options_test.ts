import { assertEquals, assertThrows } from "@std/assert";
import { CommandError } from "../../lib/commands/_command.ts";
import {
  addOptionList,
  asksForHelp,
  cacheMode,
  filesInOptions,
  readInteger,
  readSize,
} from "../../lib/commands/_options.ts";

Deno.test("addOptionList: lists are joined with a comma", () => {
  assertEquals(addOptionList("a=1", undefined), "a=1");
  assertEquals(addOptionList("b", addOptionList("a=1,,", undefined)), "a=1,,,b");
});

for (const list of ["", ",a", "a,", "a,,,", ","]) {
  Deno.test(`addOptionList: ${JSON.stringify(list)} is refused`, () => {
    const error = assertThrows(() => addOptionList(list, "a=1"), CommandError);
    assertEquals(error.message, `Invalid option list: ${list}`);
  });
}

const HELP: readonly (readonly [list: string | undefined, asked: boolean])[] = [
  [undefined, false],
  ["help", true],
  ["?", true],
  ["a=1,help", true],
  ["help,a=1", true],
  ["help,,", true],
  ["help=on", false],
  [" help", false],
  ["a=help", false],
  ["a=b,,help", false],
  ["helpme", false],
];

for (const [list, asked] of HELP) {
  Deno.test(`asksForHelp: ${list} ${asked ? "asks" : "does not ask"}`, () => {
    assertEquals(asksForHelp(list), asked);
  });
}

Deno.test("cacheMode: a name that there is not", () => {
  for (const name of ["", "Writeback", "toString"]) {
    assertEquals(
      assertThrows(() => cacheMode(name), CommandError).message,
      `Invalid cache option: ${name}`,
    );
  }
  const error = assertThrows(() => cacheMode("x", { source: true, exitCode: 2 }), CommandError);
  assertEquals([error.message, error.exitCode], ["Invalid source cache option: x", 2]);
});

Deno.test("readSize: within a range, ends included", () => {
  const range = { min: 1, max: 4096 };
  assertEquals([readSize("bs", "1", range), readSize("bs", "4k", range)], [1, 4096]);
  for (const text of ["0", "4097", "-1", "16E"]) {
    assertEquals(
      assertThrows(() => readSize("bs", text, range), CommandError).message,
      "Invalid bs specified. Must be between 1 and 4096.",
    );
  }
  assertEquals(
    assertThrows(() => readSize("bs", "1kb", range), CommandError).message,
    "Invalid bs specified: '1kb'.",
  );
});

Deno.test("readInteger: takes no suffix", () => {
  assertEquals([readInteger("count", "0x10"), readInteger("count", "010")], [16, 8]);
  assertEquals(
    assertThrows(() => readInteger("count", "1k"), CommandError).message,
    "Invalid count specified: '1k'.",
  );
  assertEquals(
    assertThrows(() => readInteger("count", "-1"), CommandError).message,
    "Invalid count specified. Must be between 0 and 9223372036854775807.",
  );
});

Deno.test("filesInOptions: backing files are read, data files written", () => {
  assertEquals(filesInOptions("size=1M,backing_file=a,,b,data_file=d,data_file_raw"), {
    reads: ["a,b"],
    writes: ["d"],
  });
  assertEquals(filesInOptions(undefined), { reads: [], writes: [] });
});
