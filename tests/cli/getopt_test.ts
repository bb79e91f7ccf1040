import { assertEquals, assertThrows } from "@std/assert";
import { scan, ScanError, type ScanRules, type ScanSpec } from "../../lib/cli/getopt.ts";

const SPECS: readonly ScanSpec[] = [
  { short: "h", long: ["help"] },
  { short: "f", long: ["format"], value: "FMT" },
  { short: "q", long: ["quiet"] },
  { short: "b", long: ["backing"], value: "FILE" },
  { short: "F", long: ["backing-format"], value: "FMT" },
  { short: "u", long: ["backing-unsafe"] },
  { long: ["a-source", "alias-source"], value: "FMT" },
  { short: "p", long: ["progress"], attached: ["bar", "json"] },
  { long: ["private"], exact: true },
];

/** Options as `-f=value` or `--long=value`, operands as they are, those behind `--` in brackets. */
function items(args: readonly string[], rules?: ScanRules): string[] {
  return Array.from(scan(args, SPECS, rules), (item) => {
    if (item.kind === "operand") return item.literal ? `[${item.text}]` : item.text;
    const name = item.spec.short === undefined ? `--${item.spec.long![0]}` : `-${item.spec.short}`;
    return item.value === undefined ? name : `${name}=${item.value}`;
  });
}

const ACCEPTED: readonly (readonly [what: string, args: string[], expected: string[]])[] = [
  ["an option's value may be the next word", ["-f", "raw"], ["-f=raw"]],
  ["an option's value may share its word", ["-fraw"], ["-f=raw"]],
  ["a shared word's equals sign belongs to the value", ["-f=raw"], ["-f==raw"]],
  ["flags may share a dash", ["-qu"], ["-q", "-u"]],
  ["a value may follow flags in one word", ["-quf", "raw"], ["-q", "-u", "-f=raw"]],
  ["the rest of the word is the value", ["-qfu"], ["-q", "-f=u"]],
  ["a long option's value may be the next word", ["--format", "raw"], ["-f=raw"]],
  ["a long option's value may follow an equals sign", ["--format=raw"], ["-f=raw"]],
  ["a value may be empty", ["--format=", "-f", ""], ["-f=", "-f="]],
  ["a value may look like an option", ["-f", "-q", "--format", "--"], ["-f=-q", "-f=--"]],
  ["a value may hold an equals sign", ["--format=a=b"], ["-f=a=b"]],
  ["a unique prefix selects a long option", ["--for", "raw"], ["-f=raw"]],
  ["an exact name wins over longer ones", ["--backing=x"], ["-b=x"]],
  ["two names of one option do not compete", ["--a=x"], ["--a-source=x"]],
  ["operands may stand anywhere", ["a", "-q", "b", "-f", "raw", "c"], [
    "a",
    "-q",
    "b",
    "-f=raw",
    "c",
  ]],
  ["a dash alone is an operand", ["-", "-q"], ["-", "-q"]],
  ["an empty word is an operand", [""], [""]],
  ["two dashes end the options", ["-q", "--", "-f", "--"], ["-q", "[-f]", "[--]"]],
  ["a flag takes its attached values", ["--progress=bar", "-p"], ["-p=bar", "-p"]],
  ["an attached value needs no full name", ["--prog=json"], ["-p=json"]],
  ["an exact option in full", ["--private"], ["--private"]],
  ["an exact option never competes", ["--p"], ["-p"]],
];

for (const [what, args, expected] of ACCEPTED) {
  Deno.test(`scan: ${what}`, () => assertEquals(items(args), expected));
}

const REFUSED: readonly (readonly [args: string[], message: string])[] = [
  [["-z"], "invalid option -- 'z'"],
  [["-qz"], "invalid option -- 'z'"],
  [["-é"], "invalid option -- 'é'"],
  [["-1M"], "invalid option -- '1'"],
  [["--zork"], "unrecognized option '--zork'"],
  [["--zork=1"], "unrecognized option '--zork=1'"],
  [["--formats"], "unrecognized option '--formats'"],
  [["--privat"], "unrecognized option '--privat'"],
  [["-f"], "option requires an argument -- 'f'"],
  [["-qf"], "option requires an argument -- 'f'"],
  [["--format"], "option '--format' requires an argument"],
  [["--for"], "option '--format' requires an argument"],
  [["--help=x"], "option '--help' doesn't allow an argument"],
  [["--he="], "option '--help' doesn't allow an argument"],
  [["--progress=fast"], "option '--progress' doesn't allow an argument"],
  [
    ["--back"],
    "option '--back' is ambiguous; possibilities: '--backing' '--backing-format' '--backing-unsafe'",
  ],
  [
    ["--back=x"],
    "option '--back=x' is ambiguous; possibilities: '--backing' '--backing-format' '--backing-unsafe'",
  ],
];

for (const [args, message] of REFUSED) {
  Deno.test(`scan: ${args.join(" ")} is refused`, () => {
    assertEquals(assertThrows(() => items(args), ScanError).message, message);
  });
}

Deno.test("scan: what stands behind an error's cause is not looked at", () => {
  const scanner = scan(["-q", "-z"], SPECS);
  assertEquals(scanner.next().value, { kind: "option", spec: SPECS[2]!, value: undefined });
  assertThrows(() => scanner.next(), ScanError);
});

Deno.test("scan: the first operand ends the options when told so", () => {
  assertEquals(items(["-q", "info", "-z", "--"], { stopAtOperand: true }), [
    "-q",
    "[info]",
    "[-z]",
    "[--]",
  ]);
});

const NEGATIVE: readonly (readonly [args: string[], expected: string[] | string])[] = [
  [["a", "-1M", "-q"], ["a", "-1M", "-q"]],
  [["-q", "a", "-1M"], ["-q", "a", "-1M"]],
  [["--", "a", "-1M"], ["[a]", "[-1M]"]],
  [["a", "--", "-1M"], ["a", "[-1M]"]],
  [["a", "-q", "-1M"], "invalid option -- '1'"],
  [["a", "+1", "-1M"], "invalid option -- '1'"],
  [["a", "-1M", "-2M"], "invalid option -- '2'"],
  [["-1M", "a"], "invalid option -- '1'"],
  [["a", "-M"], "invalid option -- 'M'"],
];

for (const [args, expected] of NEGATIVE) {
  Deno.test(`scan: a negative operand, ${args.join(" ")}`, () => {
    const rules = { negativeOperand: true };
    if (typeof expected === "string") {
      assertEquals(assertThrows(() => items(args, rules), ScanError).message, expected);
    } else {
      assertEquals(items(args, rules), expected);
    }
  });
}
