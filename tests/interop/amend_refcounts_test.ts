/** `amend` of the width of refcounts: every width to every other, with equal bytes afterwards. */
import { type Case, type Given, img, io, patch, sameForEach } from "./_cases.ts";

const M = 1024 * 1024;

/** Both tools leave the same bytes. */
function amends(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  more: Partial<Case> = {},
): void {
  sameForEach(`amend, ${about}`, lines.map((line) => `amend ${line}`), {
    given,
    files: ["a"],
    code: 0,
    ...more,
  });
}

/** Fails and, with `files`, changes nothing. */
function refuses(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  more: Partial<Case> = {},
): void {
  sameForEach(`amend refuses ${about}`, lines.map((line) => `amend ${line}`), {
    given,
    files: ["a"],
    code: 1,
    ...more,
  });
}

const make = (options: string, size = "1M") =>
  img(`create -f qcow2 ${options === "" ? "" : `-o ${options} `}a ${size}`);

const WIDTHS = [1, 2, 4, 8, 16, 32, 64];
for (const size of ["512", "4096"]) {
  for (const from of WIDTHS) {
    amends(
      `refcounts of ${from} bits, clusters of ${size}`,
      WIDTHS.map((to) => `-p -o refcount_bits=${to} a`),
      [
        make(`refcount_bits=${from},cluster_size=${size}`, "4M"),
        io("a", "write -P 1 0 300k", "write -P 2 2M 100k", "discard 64k 100k"),
      ],
    );
  }
}

const SHARED: readonly Given[] = [
  make("cluster_size=4k"),
  io("a", "write -P 1 0 64k"),
  img("snapshot -c one a"),
  img("snapshot -c two a"),
  img("snapshot -c three a"),
];
amends("refcounts of 4", ["-o refcount_bits=4 a", "-o refcount_bits=64 a"], SHARED);
refuses(
  "refcounts that are too small",
  ["-o refcount_bits=1 a", "-p -o refcount_bits=2 a"],
  SHARED,
);
refuses("refcounts that are too small for what a wide one holds", ["-o refcount_bits=8 a"], [
  make("refcount_bits=64,cluster_size=4k"),
  patch("a", [0x2000 + 8 * 9, 8, 0xfedcba9876543210n]),
]);

/** A refcount table of several clusters, most of whose blocks are missing. */
const SCATTERED: readonly Given[] = [
  make("cluster_size=512,refcount_bits=64", "64M"),
  io("a", "write -P 1 0 5M", "discard 1M 2M"),
];
amends("a large refcount table", WIDTHS.map((to) => `-p -o refcount_bits=${to} a`), SCATTERED, {
  slack: M,
});
