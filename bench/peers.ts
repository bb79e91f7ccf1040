/**
 * qimg and qemu-img in turn on the same data, whole processes:
 * `deno task bench:peers [--rows REGEXP] [--pairs N] [--json FILE] [--dir FOLDER]
 * [--scale N] [--program FILE]`.
 *
 * qimg is what `deno task bundle` makes, made anew and run by Deno; with
 * `--program main.ts` the modules themselves, with `--program dist/qimg` the
 * compiled program. `--scale 10` makes every image ten times larger, which must
 * not change the peak memory. The exit code is 1 when a row misses its target.
 */

import { parseArgs } from "@std/cli/parse-args";
import { bold, dim, green, red } from "@std/fmt/colors";
import { join, resolve } from "@std/path";
import { bundle } from "../.ci/bundle.ts";
import { measure, median, type Run } from "./_measure.ts";
import { PeerData } from "./_peer_data.ts";

const MiB = 1 << 20;

/** Peak memory that no row may exceed, bytes. */
const MEMORY_LIMIT = 180 * MiB;

/** A target file of a row, which is gone before each run. */
const OUTPUT = "output.img";

interface Row {
  readonly name: string;
  /** Largest ratio of wall times. */
  readonly target: number;
  /** The command line for both. */
  readonly args: (data: PeerData) => Promise<readonly string[]>;
  /** The file that the job changes: it gets a copy of it, as its output, before each run. */
  readonly changes?: (data: PeerData) => Promise<string>;
  /** Makes what else the job changes, before each run. */
  readonly prepare?: (data: PeerData) => Promise<void>;
  /** What it is measured against, unless qemu-img with the same arguments. */
  readonly peer?: (data: PeerData) => Promise<readonly string[]>;
  /** Largest ratio of output sizes, where that matters. */
  readonly sizeTarget?: number;
  /** How the reference opens the output, if its name is not enough: image options. */
  readonly opens?: (file: string) => string;
  /** The same job at another size, which qimg must do in about the same time. */
  readonly elsewhere?: (data: PeerData) => Promise<readonly string[]>;
  /** Where the output says how many seconds it took: they count instead of the whole process's. */
  readonly tells?: RegExp;
  /** A file that only this row needs, removed when it is done. */
  readonly own?: (data: PeerData) => Promise<string>;
  /** Puts either command into what does the job with it. */
  readonly within?: (command: readonly string[]) => readonly string[];
}

/** A server that is told its socket, and a client of libnbd that reads all it has and tells how long it took. */
function readByNbdcopy(server: readonly string[]): readonly string[] {
  const script =
    'rm -f s; "$@" -k "$PWD/s" & until [ -S s ]; do sleep 0.005; done; TIMEFORMAT=%R; ' +
    'time nbdcopy "nbd+unix:///?socket=$PWD/s" null: && wait $!';
  return ["bash", "-c", `{ ${script}; } 2>&1`, "bash", ...server];
}

/** Rows of a server for this image: 0.6 of the reference's throughput and more. */
function serveRow(what: string, format: string, image: (data: PeerData) => Promise<string>): Row {
  return {
    name: `nbdcopy from a server of ${what}: seconds that it takes`,
    target: 1.67,
    tells: /([\d.]+)\n/,
    args: async (data) => ["serve", "-q", "--once", "-f", format, await image(data)],
    peer: async (data) => ["qemu-nbd", "-r", "-e", "16", "-f", format, await image(data)],
    within: readByNbdcopy,
  };
}

/** What a server of the reference serves. */
const NBD = "nbd:unix:nbd.sock";

/** The passphrase of encrypted images. */
const KEY = ["--object", "secret,id=key,data=passphrase"];
const encrypted = (file: string) => `driver=qcow2,encrypt.key-secret=key,file.filename=${file}`;
const luks = (file: string) => `driver=luks,key-secret=key,file.filename=${file}`;

/** What the requests of `bench` are told to take, which is all that is compared there. */
interface RequestRow {
  readonly what: string;
  readonly args: readonly string[];
  /** Smallest share of the reference's requests a second. */
  readonly rate: number;
}

const REQUESTS: readonly RequestRow[] = [
  { what: "-d 64 -s 4096", args: ["-d", "64", "-s", "4096"], rate: 0.9 },
  { what: "-d 1", args: ["-d", "1"], rate: 0.8 },
  { what: "-w -d 64", args: ["-w", "-d", "64"], rate: 0.9 },
];

function requestRow({ what, args, rate }: RequestRow): Row {
  return {
    name: `bench ${what}, raw: seconds that it tells`,
    target: 1 / rate,
    ...(args.includes("-w") ? { changes: (data) => data.mixed() } : {}),
    args: async (data) => [
      ...["bench", "-f", "raw", "-c", "200000", ...args],
      args.includes("-w") ? OUTPUT : await data.mixed(),
    ],
    tells: /Run completed in ([\d.]+) seconds/,
  };
}

/** A format that the same 1 GiB is brought into and out of. */
interface FormatRows {
  readonly format: string;
  /** Of `create -o`. */
  readonly options?: readonly string[];
  /** Largest ratios of wall times; 1.2 unless said. */
  readonly targets?: { readonly into: number; readonly outOf: number };
}

const FORMATS: readonly FormatRows[] = [
  { format: "vmdk", options: ["subformat=monolithicSparse"] },
  {
    format: "vmdk",
    options: ["subformat=streamOptimized"],
    targets: { into: 0.5, outOf: 0.7 },
  },
  { format: "vhdx" },
  { format: "vpc" },
  { format: "vdi" },
  { format: "parallels" },
  { format: "qed" },
];

function formatRows({ format, options = [], targets }: FormatRows): Row[] {
  const name = [format, ...options.map((option) => option.replace(/.*=/, ""))].join(" ");
  return [
    {
      name: `raw → ${name}, 1 GiB of mixed data`,
      target: targets?.into ?? 1.2,
      args: async (data) => [
        ...["convert", "-f", "raw", "-O", format, ...options.flatMap((option) => ["-o", option])],
        ...[await data.mixed(), OUTPUT],
      ],
    },
    {
      name: `${name} → raw, the same data`,
      target: targets?.outOf ?? 1.2,
      args: async (data) => [
        ...["convert", "-f", format, "-O", "raw", await data.mixedAs(format, options), OUTPUT],
      ],
      own: (data) => data.mixedAs(format, options),
    },
  ];
}

const ROWS: readonly Row[] = [
  {
    name: "raw → raw, 2 GiB sparse with 1.25 GiB of data",
    target: 1.0,
    args: async (data) => ["convert", "-f", "raw", "-O", "raw", await data.sparse(), OUTPUT],
  },
  {
    name: "raw → qcow2, the same data",
    target: 1.1,
    args: async (data) => ["convert", "-f", "raw", "-O", "qcow2", await data.sparse(), OUTPUT],
  },
  {
    name: "qcow2 → raw, the same data",
    target: 1.1,
    args: async (data) => ["convert", "-O", "raw", await data.sparseQcow2(), OUTPUT],
  },
  {
    name: "raw → qcow2 -c, 512 MiB of program files",
    target: 0.45,
    sizeTarget: 1.01,
    args: async (
      data,
    ) => ["convert", "-c", "-f", "raw", "-O", "qcow2", await data.programs(), OUTPUT],
  },
  {
    name: "the same with compression_type=zstd",
    target: 0.7,
    args: async (data) => [
      ...["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd"],
      ...[await data.programs(), OUTPUT],
    ],
  },
  {
    name: "compressed qcow2 → raw",
    target: 0.6,
    args: async (data) => ["convert", "-O", "raw", await data.programsCompressed(), OUTPUT],
  },
  {
    name: "dmg (zlib) → raw, 1 GiB",
    target: 0.7,
    args: async (data) => ["convert", "-O", "raw", await data.deflatedDmg(), OUTPUT],
  },
  ...FORMATS.flatMap(formatRows),
  {
    name: "compare raw with qcow2, equal content",
    target: 1.0,
    args: async (data) => ["compare", "-f", "raw", await data.sparse(), await data.sparseQcow2()],
  },
  {
    name: "compare raw with compressed qcow2, equal content",
    target: 0.6,
    args: async (
      data,
    ) => ["compare", "-f", "raw", await data.programs(), await data.programsCompressed()],
  },
  {
    name: "rebase of an image that gets 1 GiB of data",
    target: 1.2,
    changes: (data) => data.inFrontOfChanged(),
    args: async (data) => ["rebase", "-b", await data.empty("2G"), "-F", "qcow2", OUTPUT],
  },
  {
    name: "commit of 1 GiB of changes",
    target: 1.2,
    changes: (data) => data.empty("2G"),
    prepare: (data) => data.copyChangesOf(OUTPUT, "changes.img"),
    args: () => Promise.resolve(["commit", "changes.img"]),
  },
  {
    name: "check of a 1 TiB qcow2 with preallocation=metadata",
    target: 1.5,
    args: async (data) => ["check", await data.preallocated()],
  },
  {
    name: "snapshot -c, 1 TiB qcow2 with preallocation=metadata",
    target: 1.5,
    changes: (data) => data.preallocated(),
    args: () => Promise.resolve(["snapshot", "-c", "two", OUTPUT]),
  },
  {
    name: "snapshot -d, the same",
    target: 1.5,
    changes: (data) => data.withSnapshot(),
    args: () => Promise.resolve(["snapshot", "-d", "one", OUTPUT]),
  },
  {
    name: "raw → qcow2 with LUKS (aes-256-xts), 512 MiB",
    target: 1.5,
    changes: (data) => data.encryptedEmpty(),
    args: async (data) => [
      ...["convert", ...KEY, "-f", "raw", "-n", "--target-image-opts"],
      ...[await data.programs(), encrypted(OUTPUT)],
    ],
    opens: encrypted,
  },
  {
    name: "qcow2 with LUKS → raw, the same data",
    target: 1.5,
    args: async (data) => [
      ...["convert", ...KEY, "-O", "raw", "--image-opts"],
      ...[encrypted(await data.programsEncrypted()), OUTPUT],
    ],
  },
  {
    name: "raw → luks (aes-256-xts), 512 MiB",
    target: 1.5,
    changes: (data) => data.luksEmpty(),
    args: async (data) => [
      ...["convert", ...KEY, "-f", "raw", "-n", "--target-image-opts"],
      ...[await data.programs(), luks(OUTPUT)],
    ],
    opens: luks,
  },
  {
    name: "luks → raw, the same data",
    target: 1.5,
    args: async (data) => [
      ...["convert", ...KEY, "-O", "raw", "--image-opts"],
      ...[luks(await data.programsLuks()), OUTPUT],
    ],
  },
  {
    name: "create of a qcow2 with LUKS, iter-time=2000",
    target: 1.5,
    args: () =>
      Promise.resolve([
        ...["create", "-q", ...KEY, "-f", "qcow2", "-o"],
        ...["encrypt.format=luks,encrypt.iter-time=2000,encrypt.key-secret=key", OUTPUT, "1G"],
      ]),
    peer: () =>
      Promise.resolve([
        ...["qemu-img", "create", "-q", ...KEY, "-f", "qcow2", "-o"],
        ...["encrypt.format=luks,encrypt.iter-time=2000,encrypt.key-secret=key", OUTPUT, "1G"],
      ]),
  },
  {
    name: "map of a qcow2 with LUKS made with iter-time=2000",
    target: 1.5,
    args: async (data) => [
      ...["map", ...KEY, "--output=json", "--image-opts", encrypted(await data.hardToOpen())],
    ],
  },
  ...REQUESTS.map(requestRow),
  {
    name: "map as JSON, qcow2 with 100,000 alternating extents",
    target: 2,
    args: async (data) => ["map", "--output=json", await data.alternating()],
  },
  {
    name: "convert of an empty 8 TiB qcow2 to raw",
    target: 3,
    args: async (data) => ["convert", "-O", "raw", await data.empty("8T"), OUTPUT],
    elsewhere: async (data) => ["convert", "-O", "raw", await data.empty("8G"), OUTPUT],
  },
  {
    // With more than one request of its own at a time the reference waits for itself for ever here.
    name: "compressed qcow2 on a web server 10 ms away → raw, 64 MiB / qemu-img -m 1",
    target: 0.5,
    args: async (data) => [
      ...["convert", "-O", "raw", data.url(await data.fewProgramsCompressed()), OUTPUT],
    ],
    peer: async (data) => [
      ...["qemu-img", "convert", "-m", "1", "-O", "raw"],
      ...[data.url(await data.fewProgramsCompressed()), OUTPUT],
    ],
  },
  {
    name: "raw on the same server → raw, 512 MiB",
    target: 1.5,
    args: async (data) => [
      ...["convert", "-f", "raw", "-O", "raw"],
      ...[data.url(await data.programs()), OUTPUT],
    ],
  },
  {
    name: "raw of a qemu-nbd → raw, the 2 GiB sparse disk",
    target: 1.2,
    prepare: async (data) => data.serve(await data.sparse()),
    args: () => Promise.resolve(["convert", "-f", "raw", "-O", "raw", NBD, OUTPUT]),
  },
  {
    name: "raw → raw of a qemu-nbd, the same data",
    target: 1.2,
    changes: (data) => data.blank(),
    prepare: (data) => data.serve(OUTPUT),
    args: async (data) => ["convert", "-n", "-f", "raw", "-O", "raw", await data.sparse(), NBD],
  },
  serveRow("the sparse raw image", "raw", (data) => data.sparse()),
  serveRow("the same as qcow2", "qcow2", (data) => data.sparseQcow2()),
  {
    name: "info of a small image / deno run of an empty script",
    target: 2.5,
    args: async (data) => ["info", await data.empty("1G")],
    peer: async (data) => [Deno.execPath(), "run", await data.emptyScript()],
  },
];

/** What came of one row. */
interface Result {
  readonly name: string;
  readonly target: number;
  readonly ratio: number;
  readonly met: boolean;
  readonly remarks: readonly string[];
  readonly qimg: { readonly wall: number; readonly cpu: number; readonly peak: number };
  readonly peer: { readonly wall: number; readonly cpu: number; readonly peak: number };
  readonly runs: readonly { readonly qimg: Sample; readonly peer: Sample }[];
}

type Sample = Pick<Run, "wall" | "cpu" | "peak">;

const sample = ({ wall, cpu, peak }: Run): Sample => ({ wall, cpu, peak });

function medians(samples: readonly Sample[]): Sample {
  return {
    wall: median(samples.map(({ wall }) => wall)),
    cpu: median(samples.map(({ cpu }) => cpu)),
    // Memory has to suffice in every run.
    peak: Math.max(...samples.map(({ peak }) => peak)),
  };
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Copies a file and its holes, which what Deno has would fill. */
async function copySparse(from: string, to: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("cp", {
    args: ["--sparse=auto", "--reflink=auto", from, to],
  }).output();
  if (!success) throw new Error(`cp: ${new TextDecoder().decode(stderr)}`);
}

/** Runs qimg and its peer in turn and compares what they did. */
class Contest {
  readonly #dir: string;
  readonly #program: readonly string[];
  readonly #pairs: number;
  readonly #data: PeerData;

  /** In the folder that has the data; `program` is how qimg is started. */
  constructor(dir: string, program: readonly string[], pairs: number, data: PeerData) {
    this.#dir = dir;
    this.#program = program;
    this.#pairs = pairs;
    this.#data = data;
  }

  async #runAfresh(command: readonly string[], row?: Row): Promise<Run> {
    const output = join(this.#dir, OUTPUT);
    await removeIfThere(output);
    if (row?.changes !== undefined) {
      await copySparse(join(this.#dir, await row.changes(this.#data)), output);
    }
    await row?.prepare?.(this.#data);
    const run = await measure(command, { cwd: this.#dir });
    if (row?.tells === undefined) return run;
    const told = row.tells.exec(run.stdout)?.[1];
    if (told === undefined) throw new Error(`${command.join(" ")} does not tell how long it took`);
    return { ...run, wall: Number(told), stdout: run.stdout.replace(row.tells, "") };
  }

  /** The warm-up: both do the job once, and it has to be the same job. */
  async #checkEqual(
    row: Row,
    ours: readonly string[],
    peer: readonly string[],
  ): Promise<number | undefined> {
    const theirs = await this.#runAfresh(peer, row);
    const output = join(this.#dir, OUTPUT);
    const expected = join(this.#dir, "expected.img");
    const makesFile = row.changes !== undefined || ours.some((arg) => arg.includes(OUTPUT));
    if (makesFile) await Deno.rename(output, expected);
    try {
      const mine = await this.#runAfresh(ours, row);
      if (mine.stdout !== theirs.stdout) throw new Error(`different output: ${mine.stdout}`);
      if (!makesFile) return undefined;
      const { opens } = row;
      const images = opens === undefined
        ? [expected, output]
        : [...KEY, "--image-opts", opens(expected), opens(output)];
      const { code, stdout, stderr } = await new Deno.Command("qemu-img", {
        args: ["compare", "-s", ...images],
      }).output();
      if (code !== 0) throw new Error(new TextDecoder().decode(code === 1 ? stdout : stderr));
      return (await Deno.stat(output)).size / (await Deno.stat(expected)).size;
    } finally {
      await removeIfThere(expected);
    }
  }

  async run(row: Row): Promise<Result> {
    const args = await row.args(this.#data);
    const { within = (command) => command } = row;
    const ours = within([...this.#program, ...args]);
    const peer = within(await row.peer?.(this.#data) ?? ["qemu-img", ...args]);
    const remarks: string[] = [];

    let sizeRatio: number | undefined;
    if (row.peer === undefined) sizeRatio = await this.#checkEqual(row, ours, peer);
    else for (const command of [peer, ours]) await this.#runAfresh(command, row);

    const runs: { qimg: Sample; peer: Sample }[] = [];
    for (let i = 0; i < this.#pairs; i++) {
      // Neither is always the one that finds the caches as the other left them.
      if (i % 2 === 0) {
        const qimg = sample(await this.#runAfresh(ours, row));
        runs.push({ qimg, peer: sample(await this.#runAfresh(peer, row)) });
      } else {
        const other = sample(await this.#runAfresh(peer, row));
        runs.push({ qimg: sample(await this.#runAfresh(ours, row)), peer: other });
      }
    }
    const qimg = medians(runs.map(({ qimg }) => qimg));
    const theirs = medians(runs.map(({ peer }) => peer));
    const ratio = qimg.wall / theirs.wall;
    let met = ratio <= row.target;

    if (qimg.peak > MEMORY_LIMIT) {
      met = false;
      remarks.push(`peak memory above ${MEMORY_LIMIT / MiB} MiB`);
    }
    if (row.sizeTarget !== undefined && sizeRatio !== undefined) {
      met &&= sizeRatio <= row.sizeTarget;
      remarks.push(`output ${sizeRatio.toFixed(3)} of the reference's, ≤ ${row.sizeTarget}`);
    }
    if (row.elsewhere !== undefined) {
      const command = [...this.#program, ...await row.elsewhere(this.#data)];
      const samples: Sample[] = [];
      for (let i = 0; i < this.#pairs; i++) samples.push(sample(await this.#runAfresh(command)));
      const growth = qimg.wall / medians(samples).wall;
      met &&= growth <= 1.5;
      remarks.push(`${growth.toFixed(2)} of the time for a thousandth of the size, ≤ 1.5`);
    }
    await removeIfThere(join(this.#dir, OUTPUT));
    if (row.own !== undefined) await this.#data.remove(await row.own(this.#data));
    const { name, target } = row;
    return { name, target, ratio, met, remarks, qimg, peer: theirs, runs };
  }
}

function table(results: readonly Result[]): string {
  const seconds = (value: number) => value.toFixed(value < 1 ? 3 : 2);
  const lines = [
    ["job", "qimg s", "peer s", "ratio", "target", "", "cpu", "qimg MiB", "peer MiB"],
    ...results.map((result) => [
      result.name,
      seconds(result.qimg.wall),
      seconds(result.peer.wall),
      result.ratio.toFixed(2),
      `≤ ${result.target}`,
      result.met ? "ok" : "MISSED",
      (result.qimg.cpu / result.peer.cpu).toFixed(2),
      (result.qimg.peak / MiB).toFixed(0),
      (result.peer.peak / MiB).toFixed(0),
    ]),
  ];
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines.map((line, n) => {
    const text = line.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)
    ).join("  ");
    if (n === 0) return bold(text);
    return results[n - 1]!.met ? text.replace(" ok ", green(" ok ")) : red(text);
  }).join("\n");
}

/** Memory as fast as it gets, else a place on a disk. */
async function fastFolder(): Promise<string> {
  try {
    return await Deno.makeTempDir({ dir: "/dev/shm", prefix: "qimg_peers_" });
  } catch {
    return await Deno.makeTempDir({ prefix: "qimg_peers_" });
  }
}

/** How qimg is started: a module by Deno, a program by itself. Makes the bundle unless told which. */
async function programIn(dir: string, named: string | undefined): Promise<readonly string[]> {
  const path = named === undefined ? join(dir, "qimg.js") : resolve(named);
  if (named === undefined) await bundle({ output: path });
  return /\.[jt]s$/.test(path) ? [Deno.execPath(), "run", "-A", path] : [path];
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, {
    string: ["rows", "pairs", "json", "dir", "scale", "program"],
    unknown: (arg) => {
      console.error(`No such option: ${arg}`);
      Deno.exit(2);
    },
  });
  const text = (name: string) => {
    const value = options[name];
    return typeof value === "string" ? value : undefined;
  };
  const wanted = new RegExp(text("rows") ?? "");
  const pairs = Number(text("pairs") ?? 5);
  const scale = Number(text("scale") ?? 1);
  const parent = text("dir");
  const dir = parent === undefined
    ? await fastFolder()
    : await Deno.makeTempDir({ dir: parent, prefix: "qimg_peers_" });

  const results: Result[] = [];
  const failures: string[] = [];
  try {
    const program = await programIn(dir, text("program"));
    const contest = new Contest(dir, program, pairs, new PeerData(dir, scale));
    for (const row of ROWS.filter(({ name }) => wanted.test(name))) {
      console.error(dim(`${row.name} …`));
      try {
        results.push(await contest.run(row));
      } catch (error) {
        failures.push(`${row.name}: ${error instanceof Error ? error.message : error}`);
      }
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
  console.log(
    `${pairs} pairs in ${dir}, ${navigator.hardwareConcurrency} cores` +
      (scale === 1 ? "" : `, everything ${scale} times larger`) +
      `; wall and CPU are medians, memory the largest\n\n${table(results)}`,
  );
  for (const { name, remarks } of results) {
    for (const remark of remarks) console.log(`${name}: ${remark}`);
  }
  for (const failure of failures) console.log(red(failure));
  const file = text("json");
  if (file !== undefined) {
    await Deno.writeTextFile(file, JSON.stringify({ scale, results, failures }, null, 2) + "\n");
  }
  if (failures.length > 0 || results.some(({ met }) => !met)) Deno.exit(1);
}
