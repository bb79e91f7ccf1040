/** blklogwrites: the same log, byte by byte. */
import { disk, type Given, same, sameForEach, text } from "./_cases.ts";

const M = 1024 * 1024;

const IMAGES: readonly Given[] = [
  disk("r", M, [[0, 8192, "noise"], [65536, 65536, "flat"], [262144, 4096, "noise"]]),
  disk("s", M, [[0, M, "flat"]]),
  text("log", ""),
  text("bad", "x".repeat(600)),
];

const BASE = "driver=blklogwrites,file.driver=raw,file.file.filename=s";
const LOGGED = `${BASE},log.driver=file,log.filename=log`;

sameForEach(
  "blklogwrites' options",
  [
    "driver=blklogwrites",
    BASE,
    "driver=blklogwrites,log.driver=raw,log.file.filename=log",
    `${BASE},log.filename=log`,
    `${BASE},log.file.filename=log`,
    "driver=blklogwrites,file.filename=s,log.file.filename=log",
    LOGGED,
    `${LOGGED},log-append=on`,
    `${LOGGED},log-append=zz`,
    `${LOGGED},log-append=on,log-sector-size=512`,
    `${LOGGED},log-append=off,log-sector-size=4k`,
    `${LOGGED},log-sector-size=64`,
    `${LOGGED},log-sector-size=32`,
    `${LOGGED},log-sector-size=16`,
    `${LOGGED},log-sector-size=3`,
    `${LOGGED},log-sector-size=8M`,
    `${LOGGED},log-sector-size=16M`,
    `${LOGGED},log-sector-size=x`,
    `${LOGGED},log-super-update-interval=0`,
    `${LOGGED},log-super-update-interval=1`,
    `${LOGGED},log-super-update-interval=x`,
    `${LOGGED},foo=1`,
    `${BASE},log.driver=file,log.filename=bad,log-append=on`,
    `${BASE},log.driver=file,log.filename=bad`,
    `${BASE},log.driver=file,log.filename=none`,
  ].map((list) => `info --image-opts ${list}`),
  { given: IMAGES },
);

sameForEach("blklogwrites", [
  `map --image-opts ${LOGGED}`,
  `map --output=json --image-opts ${LOGGED}`,
  `check --image-opts ${LOGGED}`,
  `measure -O qcow2 --image-opts ${LOGGED}`,
  `compare --image-opts ${LOGGED} driver=raw,file.filename=s`,
  `resize --image-opts ${LOGGED} 2M`,
  "create -f blklogwrites x 1M",
], { given: IMAGES });

for (
  const [options, command] of [
    ["", "convert -n -t writeback"],
    ["log-sector-size=4k", "convert -n -t writeback"],
    ["log-super-update-interval=1", "convert -n -t writeback"],
    ["log-append=on", "convert -n -t writeback"],
    ["discard=unmap", "convert -n -t writeback"],
  ] as const
) {
  same(`blklogwrites logs: ${command} ${options}`, {
    given: IMAGES,
    run: `${command} --target-image-opts r ${LOGGED}${options === "" ? "" : `,${options}`}`,
    code: 0,
    images: ["s", "log"].map((name) => ({ name, format: "raw" })),
  });
}
