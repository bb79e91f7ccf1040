import { assert, assertEquals } from "@std/assert";
import { COMMANDS } from "../../lib/commands/mod.ts";
import { commandHelp, generalHelp } from "../../lib/cli/help.ts";
import { runQimg } from "../_reference.ts";

const CWD = Deno.cwd();

Deno.test("help: the general help has the reference's layout", () => {
  const drivers = Array.from({ length: 30 }, (_, i) => `driver${i}`).toReversed();
  const commands = [{ name: "info", description: "Show it", load: () => COMMANDS[0]!.load() }];
  const help = generalHelp("qimg", commands, drivers);
  const parts = help.split("\n\n");
  assertEquals(parts.length, 6 + 1);
  assert(/^qimg version .*\n.* Usage:$/.test(parts[0]!), parts[0]);
  assertEquals(parts[1], "  qimg [standard options] COMMAND [--help | command options]");
  assert(parts[2]!.startsWith("Standard options:\n  -h, --help\n     "), parts[2]);
  assertEquals(parts[4], "  info - Show it");
  assertEquals(parts[5], "Supported image formats:");
  const lines = parts[6]!.trimEnd().split("\n");
  assert(lines.length > 1);
  for (const line of lines) {
    assert(line.startsWith("  driver") && line.length < 80, line);
  }
  const names = lines.flatMap((line) => line.trim().split(" "));
  assertEquals(names, drivers.toSorted());
});

Deno.test("help: every option is listed with its names and its value", () => {
  const help = commandHelp("qimg", {
    name: "zap",
    description: "Zap an image",
    synopsis: ["[-a]", "[-b] FILE"],
    options: {
      a: { short: "a", long: ["all", "alias"], help: ["does all", "of it"] },
      b: { short: "b", value: "N", help: ["a number"] },
      c: { long: ["cc"], value: "N", help: ["another"] },
      d: { short: "p", long: ["progress"], attached: ["bar", "json"], help: ["shows it"] },
      hidden: { long: ["hidden"] },
    },
    operands: [{ name: "FILE", help: ["the image"] }],
    access: () => ({}),
    run: () => Promise.resolve(0),
  });
  assertEquals(
    help,
    `Usage:
Zap an image.  Usage:

  qimg zap [-a]
        [-b] FILE

Arguments:
  -h, --help
     print this help and exit
  -a, --all
     does all
     of it
  -b N
     a number
  --cc N
     another
  -p, --progress[=bar|json]
     shows it
  FILE
     the image

`,
  );
});

for (const entry of COMMANDS) {
  Deno.test(`help: ${entry.name} is what the registry says`, async () => {
    const command = await entry.load();
    assertEquals(
      { name: command.name, description: command.description },
      { name: entry.name, description: entry.description },
    );
  });

  Deno.test(`help: ${entry.name} --help shows the option table`, async () => {
    const command = await entry.load();
    const expected = { code: 0, stdout: commandHelp("qimg", command), stderr: "" };
    assertEquals(await runQimg([entry.name, "--help"], { cwd: CWD }), expected);
    assertEquals(await runQimg([entry.name, "-h", "--zork", "x"], { cwd: CWD }), expected);
    assertEquals(
      await runQimg([entry.name, "a", "b", "c", "d", "-h"], { cwd: CWD }).then((o) => o.code),
      command.ordered === undefined ? 0 : 1,
    );
  });

  Deno.test(`help: the synopsis of ${entry.name} names its options`, async () => {
    const command = await entry.load();
    const synopsis = command.synopsis.join(" ");
    for (const { short, long } of Object.values(command.options)) {
      const named = (short !== undefined && synopsis.includes(`-${short}`)) ||
        (long?.some((name) => synopsis.includes(`--${name}`)) ?? false);
      assert(named, `${short ?? long} in ${synopsis}`);
    }
  });
}

Deno.test("help: commands are listed in alphabetical order, as the reference lists them", () => {
  const names = COMMANDS.map(({ name }) => name);
  assertEquals(names, names.toSorted());
});

Deno.test("help: no two options of a command share a name", async () => {
  for (const entry of COMMANDS) {
    const { options } = await entry.load();
    const names = Object.values(options).flatMap(({ short, long }) => [short, ...long ?? []])
      .filter((name) => name !== undefined);
    assertEquals(names.toSorted(), [...new Set(names)].toSorted(), entry.name);
  }
});
