import { formatJson, type JsonValue } from "../lib/bytes/json.ts";
import { scan } from "../lib/cli/getopt.ts";
import { convert } from "../lib/commands/convert.ts";

const LINE = [
  ...["-p", "-c", "-f", "raw", "--output-format=qcow2", "-o", "cluster_size=64k,compat=1.1"],
  ...["-S", "4k", "-m", "16", "-W", "--source-cache", "none", "disk.img", "disk.qcow2"],
];
const SPECS = Object.values(convert.options);

Deno.bench("a convert command line", { group: "options" }, () => {
  let items = 0;
  for (const _ of scan(LINE, SPECS)) items++;
  if (items !== 11) throw new Error(`${items} items`);
});

const map: JsonValue = Array.from({ length: 1000 }, (_, i) => ({
  start: i * 65536,
  length: 65536,
  depth: 0,
  present: true,
  zero: i % 2 === 0,
  data: i % 2 === 1,
  compressed: false,
  offset: (i + 5) * 65536,
}));

Deno.bench("a map of 1000 extents", { group: "JSON" }, () => {
  if (formatJson(map, "pretty").length < 100_000) throw new Error("too short");
});
