import { assertSame, reference } from "../_reference.ts";

/** Command lines on which both tools have to agree before any command runs. */
const COMMAND_LINES: readonly string[][] = [
  [],
  ["-z"],
  ["-zV"],
  ["--zork"],
  ["--zork=1"],
  ["--help=x"],
  ["--h=3"],
  ["-T"],
  ["--trace"],
  ["help"],
  ["zork", "-h"],
  [""],
  ["-"],
  ["--"],
  ["-T", "foo"],
  ["--trace=foo"],
  ["-T", "foo", "-Z"],
  ["-Tfoo", "info"],
  ["-T", "-foo", "info"],
  ["-T", "", "info"],
  ["-T", ",", "info"],
  ["-T", "foo*", "info"],
  ["-T", "a b", "info"],
  ["-T", "a,,b", "info"],
  ["-T", "foo,foo2", "info"],
  ["-T", "foo,nofoo2", "info"],
  ["-T", "bar=1", "info"],
  ["-T", "=x", "info"],
  ["-T", "help=on", "info"],
  ["-T", "enable=x,enable=y", "info"],
  ["-T", "enable=x", "-T", "y", "info"],
  ["-T", "enable=foo,events=none", "info"],
  ["-T", "events=events", "info"],
  ["-T", "file=trace", "info"],
  ["-T", "file=", "info"],
  ["-T", "file=none/trace", "info"],
  ["-T", "file=none/trace"],
  ["-T", "nonev,events=none,file=none/trace", "info"],
  ["--", "info"],
  ["info", "--help=x"],
];

for (const args of COMMAND_LINES) {
  Deno.test({
    name: `top level as the reference: ${JSON.stringify(args)}`,
    ignore: reference.ignore,
    fn: async () => {
      await assertSame(args, {
        setup: (dir) =>
          Deno.writeTextFile(`${dir}/events`, "foo\n# comment\n\n-bar\nblk_*\n  zed \n"),
      });
    },
  });
}
