import { assertEquals } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { type CommandContext, CommandError, UsageError } from "../../lib/commands/_command.ts";
import { runCli } from "../../lib/cli/run.ts";
import { Interruption } from "../../lib/cli/signals.ts";
import { HostError } from "../../lib/io/errno.ts";
import { tempDir } from "../_temp.ts";
import { fakeCommand } from "./_fake_command.ts";

/** Collects what is written, both streams in one place as on a terminal. */
class Streams {
  both = "";
  readonly stdout = { writeSync: (bytes: Uint8Array) => this.#take("1> ", bytes) };
  readonly stderr = { writeSync: (bytes: Uint8Array) => this.#take("2> ", bytes) };

  #take(mark: string, bytes: Uint8Array): number {
    this.both += mark + new TextDecoder().decode(bytes);
    return bytes.length;
  }
}

async function runFake(
  args: readonly string[],
  run: (ctx: CommandContext) => number | Promise<number>,
  argv0?: string,
): Promise<[code: number, output: string]> {
  const streams = new Streams();
  const io = { program: "qimg", ...streams, ...(argv0 === undefined ? {} : { argv0 }) };
  const code = await runCli(["fake", ...args], io, fakeCommand(run));
  return [code, streams.both];
}

function failing(error: unknown): () => never {
  return () => {
    throw error;
  };
}

Deno.test("run: flags are false and values undefined when not given", async () => {
  let options: unknown;
  await runFake([], (ctx) => {
    options = ctx.options;
    return 0;
  });
  assertEquals(options, { quiet: false, number: undefined, text: undefined, progress: false });
});

Deno.test("run: a command can see in which order its options stand", async () => {
  let given: unknown;
  await runFake(["-q", "x", "--text=a", "-n1", "-q", "--number", "2", "--", "-q"], (ctx) => {
    given = ctx.given;
    return 0;
  });
  assertEquals(given, ["quiet", "text", "number", "quiet", "number"]);
});

Deno.test("run: of repeated options the last counts, unless they add up", async () => {
  let options: unknown;
  const args = [
    "-n1",
    "--text=a",
    "-q",
    "--number",
    "2",
    "--text",
    "b",
    "-q",
    "-p",
    "--progress=bar",
  ];
  await runFake(args, (ctx) => {
    options = ctx.options;
    return 0;
  });
  assertEquals(options, { quiet: true, number: 3, text: "b", progress: "bar" });
});

Deno.test("run: the command's exit code is the program's", async () => {
  assertEquals(await runFake([], () => 63), [63, ""]);
});

Deno.test("run: both streams keep their order", async () => {
  const [, output] = await runFake([], (ctx) => {
    ctx.out("a\n");
    ctx.out("b\n");
    ctx.err("c\n");
    ctx.out("d\n");
    return 0;
  });
  assertEquals(output, "1> a\nb\n2> c\n1> d\n");
});

Deno.test("run: messages, warnings and hints", async () => {
  const [, output] = await runFake([], (ctx) => {
    ctx.error("bad", "do this\nor that");
    ctx.warn("odd");
    ctx.warn("odder", "look\n");
    return 0;
  });
  assertEquals(
    output,
    "2> qimg: bad\ndo this\nor that\n2> qimg: warning: odd\n2> qimg: warning: odder\nlook\n",
  );
});

Deno.test("run: usage advice names the program as it was called", async () => {
  assertEquals(await runFake(["a"], failing(new UsageError("Too much")), "bin/qimg"), [
    1,
    "2> qimg: Too much\nTry 'bin/qimg fake --help' for more info\n",
  ]);
  assertEquals(await runFake(["-z"], () => 0, "bin/qimg"), [
    1,
    "2> bin/qimg fake: invalid option -- 'z'\nTry 'bin/qimg fake --help' for more info\n",
  ]);
});

const DENIED = 'Requires read access to "a", run again with the --allow-read flag';

const FAILURES: readonly (readonly [what: string, error: unknown, code: number, text: string])[] = [
  ["a command's error", new CommandError("No", { exitCode: 3, hint: "h" }), 3, "No\nh\n"],
  ["an image's error", new ImageError("No", { errno: "EIO" }), 1, "No\n"],
  ["an image's error with a hint", new ImageError("No", { hint: "h\ni" }), 1, "No\nh\ni\n"],
  ["a host's error", new HostError("ENOENT", "open", "a"), 1, "No such file or directory\n"],
  ["a missing permission", new Deno.errors.NotCapable(DENIED), 1, `${DENIED}\n`],
  [
    "a missing permission below an image's error",
    new ImageError("Could not open 'a': Permission denied", {
      cause: new HostError("EACCES", "open", "a", { denied: DENIED }),
    }),
    1,
    `Could not open 'a': Permission denied\n${DENIED}\n`,
  ],
  [
    "a missing permission that the message names",
    new ImageError(`Could not open 'a': ${DENIED}`, {
      cause: new HostError("EACCES", "open", "a", { denied: DENIED }),
    }),
    1,
    `Could not open 'a': ${DENIED}\n`,
  ],
  ["a mistake in the program", new TypeError("x is y"), 1, "internal error: TypeError: x is y\n"],
  ["anything else that was thrown", "text", 1, "internal error: text\n"],
];

for (const [what, error, code, text] of FAILURES) {
  Deno.test(`run: ${what} is one message and no stack trace`, async () => {
    assertEquals(await runFake([], failing(error)), [code, `2> qimg: ${text}`]);
  });
}

Deno.test("run: a guarded file behind an image is explained where permissions were given up", async () => {
  const denied = 'Requires all access to "/dev/x", run again with the --allow-all flag';
  const error = new ImageError("Could not open '/dev/x': Permission denied", {
    cause: new Deno.errors.NotCapable(denied),
  });
  const streams = new Streams();
  const io = { program: "qimg", ...streams, restrict: () => Promise.resolve(["net"]) };
  await runCli(["fake"], io, fakeCommand(failing(error)));
  assertEquals(
    streams.both,
    "2> qimg: Could not open '/dev/x': Permission denied\n" +
      "Deno opens files below /dev, /proc and /sys for a process with all permissions only;\n" +
      "this one keeps them when such a file is named on the command line.\n",
  );
});

Deno.test("run: a reported error is printed like a thrown one", async () => {
  const [code, output] = await runFake([], (ctx) => {
    ctx.report(new ImageError("No", { hint: "h" }));
    return 2;
  });
  assertEquals([code, output], [2, "2> qimg: No\nh\n"]);
});

Deno.test("run: an interruption is not an error message", async () => {
  assertEquals(await runFake([], failing(new Interruption(2))), [130, ""]);
  const [code, output] = await runFake([], (ctx) => {
    ctx.report(new Interruption(15));
    return 2;
  });
  assertEquals([code, output], [143, ""]);
});

/** A stream whose every write fails. */
function broken(error: Error): { writeSync(): never } {
  return {
    writeSync() {
      throw error;
    },
  };
}

Deno.test("run: a closed pipe is a silent failure, and the command gets to its end", async () => {
  const { stderr } = new Streams();
  const stdout = broken(new Deno.errors.BrokenPipe("gone"));
  let ended = false;
  const commands = fakeCommand((ctx) => {
    for (let i = 0; i < 10_000; i++) ctx.out("many words\n");
    ended = true;
    return 0;
  });
  const code = await runCli(["fake"], { program: "qimg", stdout, stderr }, commands);
  assertEquals([code, ended], [1, true]);
});

Deno.test("run: output that cannot be written is an error", async () => {
  const streams = new Streams();
  const stdout = broken(new HostError("ENOSPC", "write", "stdout"));
  const code = await runCli(["--version"], { program: "qimg", stdout, stderr: streams.stderr });
  assertEquals([code, streams.both], [
    1,
    "2> qimg: Could not write to standard output: No space left on device\n",
  ]);
});

Deno.test("run: a closed pipe does not hide a worse exit code", async () => {
  const { stderr } = new Streams();
  const stdout = broken(new Deno.errors.BrokenPipe("gone"));
  const commands = fakeCommand((ctx) => {
    ctx.out("x");
    return 2;
  });
  assertEquals(await runCli(["fake"], { program: "qimg", stdout, stderr }, commands), 2);
});

Deno.test("run: an error that nobody caught is one message too", async () => {
  await using dir = await tempDir();
  const run = new URL("../../lib/cli/run.ts", import.meta.url).href;
  for (const mistake of ["Promise.reject(new TypeError('x'))", "throw new TypeError('x')"]) {
    const script = dir.file("script.ts");
    await Deno.writeTextFile(
      script,
      `import { processIo } from "${run}"; processIo();
       setTimeout(() => { ${mistake} }); setTimeout(() => {}, 60_000);`,
    );
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", script],
    }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [
      1,
      "qimg: internal error: TypeError: x\n",
    ]);
  }
});
