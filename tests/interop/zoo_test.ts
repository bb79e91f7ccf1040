/** Images of every kind through the commands that only read, with their usual options. */
import { sameForEach } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

for (const [kind, given] of Object.entries(ZOO)) {
  sameForEach(kind, [
    "info a",
    "info --output=json a",
    "info --backing-chain a",
    "info --output=json --backing-chain a",
    "info -f raw a",
    "map a",
    "map --output=json a",
    "measure a",
    "measure -O qcow2 a",
    "measure -O qcow2 -o cluster_size=4k,extended_l2=off --output=json a",
    "check a",
    "check --output=json a",
    "compare a a",
    "compare -s -U a a",
  ], { given });
}
