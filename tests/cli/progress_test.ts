import { assert, assertEquals, assertFalse } from "@std/assert";
import type { ProgressSettings } from "../../lib/commands/_command.ts";
import type { Output } from "../../lib/cli/output.ts";
import { barLine, startProgress } from "../../lib/cli/progress.ts";

class FakeOutput implements Output {
  text = "";
  readonly columns = 80;
  readonly failure = undefined;
  constructor(readonly isTerminal: boolean) {}
  write(text: string): void {
    this.text += text;
  }
  writeLast(text: string): void {
    this.write(text);
  }
  flush(): void {}
}

/** What the streams hold after the fractions were reported, `"signal"` being a request for the state. */
function show(
  settings: ProgressSettings,
  reports: readonly (number | "signal")[],
  { terminal = false, totalBytes }: { terminal?: boolean; totalBytes?: number } = {},
): { stdout: string; stderr: string } {
  const stdout = new FakeOutput(terminal);
  const stderr = new FakeOutput(terminal);
  let requested = false;
  let time = 0;
  const takeStatusRequest = () => {
    const taken = requested;
    requested = false;
    return taken;
  };
  {
    using progress = startProgress(settings, {
      stdout,
      stderr,
      takeStatusRequest,
      now: () => time,
    });
    for (const report of reports) {
      time += 1000;
      if (report === "signal") requested = true;
      else progress.report(report, totalBytes);
    }
  }
  return { stdout: stdout.text, stderr: stderr.text };
}

Deno.test("progress: -p prints a percentage over the one before, and a newline at the end", () => {
  assertEquals(show({ style: true, step: 1 }, [0, 0.1234, 1, 1]), {
    stdout: "    (0.00/100%)\r    (12.34/100%)\r    (100.00/100%)\r    (100.00/100%)\r\n",
    stderr: "",
  });
});

Deno.test("progress: what did not move by more than the step is not printed", () => {
  const fractions = [0, 0.02, 0.0201, 0.03, 0.05];
  assertEquals(
    show({ style: true, step: 2 }, fractions).stdout,
    "    (0.00/100%)\r    (2.01/100%)\r    (5.00/100%)\r\n",
  );
});

Deno.test("progress: the newline comes without any report", () => {
  assertEquals(show({ style: true, step: 1 }, []).stdout, "\n");
});

Deno.test("progress: -q silences -p, and signals are answered", () => {
  assertEquals(show({ style: true, step: 1, quiet: true }, [0, "signal", 0.5, 1]), {
    stdout: "",
    stderr: "    (50.00/100%)\n",
  });
});

Deno.test("progress: a signal is answered once, at the next report", () => {
  assertEquals(
    show({ style: false, step: 1 }, [0.1, "signal", "signal", 0.2, 0.3]).stderr,
    "    (20.00/100%)\n",
  );
});

Deno.test("progress: with -p a signal is not answered", () => {
  assertEquals(show({ style: true, step: 1 }, ["signal", 0.5]).stderr, "");
});

Deno.test("progress: json is one object a line on standard error", () => {
  const { stdout, stderr } = show({ style: "json", step: 1 }, [0, 0.5, 0.501, 1, 1], {
    totalBytes: 10,
  });
  assertEquals(stdout, "");
  assertEquals(stderr.trimEnd().split("\n").map((line) => JSON.parse(line)), [
    { percent: 0, elapsed: 1, bytes: 0, "total-bytes": 10 },
    { percent: 50, elapsed: 2, bytes: 5, "total-bytes": 10 },
    { percent: 100, elapsed: 4, bytes: 10, "total-bytes": 10 },
  ]);
});

Deno.test("progress: a bar needs a terminal, elsewhere the percentage is shown", () => {
  assertEquals(show({ style: "bar", step: 1 }, [1]), {
    stdout: "    (100.00/100%)\r\n",
    stderr: "",
  });
});

Deno.test("progress: the bar is drawn on standard error and stays", () => {
  const { stdout, stderr } = show({ style: "bar", step: 1 }, [0, 0.5, 1], { terminal: true });
  assertEquals(stdout, "");
  const lines = stderr.split("\r");
  assert(lines[2]!.includes(" 50%  2s left"), lines[2]);
  assert(lines.at(-1)!.includes("100%  in 3s"), lines.at(-1));
  assert(lines.at(-1)!.endsWith("\n"), lines.at(-1));
});

Deno.test("barLine: never as wide as the terminal", () => {
  for (let columns = 8; columns < 120; columns++) {
    for (const percent of [0, 33.3, 100]) {
      const line = barLine(percent, 2 ** 40, 5_000, columns);
      assert(line.length < columns, `${columns}: ${line}`);
    }
  }
});

Deno.test("barLine: shows the rate only where the bytes are known", () => {
  assert(barLine(50, 100 * 1024 * 1024, 1000, 80).includes("50 MiB/s"));
  assertFalse(barLine(50, undefined, 1000, 80).includes("/s"));
});
