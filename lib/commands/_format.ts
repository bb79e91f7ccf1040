/**
 * Pieces of the human-readable output of several commands.
 */

import type { SnapshotInfo } from "../block/capabilities.ts";
import type { OptionSpec } from "../block/options.ts";
import { humanSize } from "../bytes/size.ts";

/** C's `%#x`: hexadecimal with `0x`, but a plain `0`. */
export function hexNumber(value: number): string {
  return value === 0 ? "0" : `0x${value.toString(16)}`;
}

/** The table of `snapshot -l` and `info`, with its heading; "" if there are none (cli.md, 8). */
export function snapshotTable(snapshots: readonly SnapshotInfo[]): string {
  if (snapshots.length === 0) return "";
  const rows = [
    ["ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"],
    ...snapshots.map((snapshot) => [
      snapshot.id,
      snapshot.name,
      humanSize(snapshot.vmStateSize),
      dateText(snapshot.dateSeconds),
      clockText(snapshot.vmClock),
      snapshot.icount === undefined ? "--" : String(snapshot.icount),
    ]),
  ];
  const lines = rows.map(([id = "", tag = "", size = "", date = "", clock = "", icount = ""]) =>
    `${id.padEnd(7)} ${tag.padEnd(16)} ${size.padStart(8)} ${date.padStart(19)} ` +
    `${clock.padStart(15)} ${icount.padStart(10)}\n`
  );
  return `Snapshot list:\n${lines.join("")}`;
}

const two = (value: number) => String(value).padStart(2, "0");

/** Local time as `YYYY-MM-DD HH:MM:SS`. */
function dateText(seconds: number): string {
  const date = new Date(seconds * 1000);
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":")}`;
}

/** Nanoseconds as `HHHH:MM:SS.mmm`. */
function clockText(nanoseconds: bigint): string {
  const milliseconds = Number(nanoseconds / 1_000_000n);
  const seconds = Math.floor(milliseconds / 1000);
  const hours = String(Math.floor(seconds / 3600)).padStart(4, "0");
  const rest = String(milliseconds % 1000).padStart(3, "0");
  return `${hours}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${rest}`;
}

const TYPE_TEXT = { str: "str", bool: "bool (on/off)", num: "num", size: "size" } as const;

/** Column of the descriptions in a list of options. */
const HELP_COLUMN = 24;

/** What `-o help` prints; `filename` is that of the image, if there is one (cli.md, 3.1). */
export function optionHelp(
  specs: readonly OptionSpec[],
  format: string,
  filename: string | undefined,
): string {
  return [
    filename === undefined ? `Supported ${format} options:\n` : "Supported options:\n",
    ...specs.map(optionLine),
    filename === undefined
      ? "\nThe protocol level may support further options.\n" +
        "Specify the target filename to include those options.\n"
      : "",
  ].join("");
}

/** What `amend -o help` prints of the options that images of a format can be given later. */
export function amendOptionHelp(
  { format, options }: { readonly format: string; readonly options: readonly OptionSpec[] },
): string {
  return [`Amend options for '${format}':\n`, ...options.map(optionLine)].join("");
}

function optionLine({ name, type, help }: OptionSpec): string {
  return `${`  ${name}=<${TYPE_TEXT[type]}>`.padEnd(HELP_COLUMN)} - ${help}\n`;
}

/** A number below 2^53 / 100 with two decimals as C prints it: of two equally near ones the even one. */
export function twoDecimals(value: number): string {
  // Only multiples of an eighth lie exactly between two numbers with two decimals.
  const tie = Number.isInteger(value * 8) && !Number.isInteger(value * 4);
  return tie && value * 8 % 4 === 1 ? (value - 0.005).toFixed(2) : value.toFixed(2);
}
