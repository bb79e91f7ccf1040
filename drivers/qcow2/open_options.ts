import type { OptionSpec } from "../../lib/block/options.ts";
import { OVERLAP_OPTIONS } from "./overlap_options.ts";

/** Runtime options: those of `--image-opts` and `json:` (cli.md, 4.3). */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  {
    name: "encrypt.format",
    type: "str",
    help: "Format of the encryption, as a check: aes or luks",
  },
  {
    name: "encrypt.key-secret",
    type: "str",
    strong: true,
    help: "ID of the secret that holds the key or passphrase",
  },
  // The rest of the encryption's are looked at where there is any.
  { name: "encrypt.", type: "str", help: "Options of the encryption" },
  { name: "lazy-refcounts", type: "bool", help: "Let refcounts reach the file late" },
  {
    name: "pass-discard-request",
    type: "bool",
    help: "Deallocate in the file what the guest discards; by default as 'discard' says",
  },
  {
    name: "pass-discard-snapshot",
    type: "bool",
    help: "Deallocate in the file what deleted snapshots leave (on by default)",
  },
  {
    name: "pass-discard-other",
    type: "bool",
    help: "Deallocate in the file what else is freed (off by default)",
  },
  {
    name: "discard-no-unref",
    type: "bool",
    help: "Keep the clusters of what the guest discards",
  },
  ...OVERLAP_OPTIONS,
  { name: "cache-size", type: "size", help: "Bytes of both metadata caches; checked only" },
  { name: "l2-cache-size", type: "size", help: "Bytes of the cache of L2 tables; checked only" },
  {
    name: "l2-cache-entry-size",
    type: "size",
    help: "Bytes of an entry of that cache; checked only",
  },
  {
    name: "refcount-cache-size",
    type: "size",
    help: "Bytes of the cache of refcount blocks; checked only",
  },
  {
    name: "cache-clean-interval",
    type: "num",
    help: "Seconds after which unused entries are dropped; checked only",
  },
];
