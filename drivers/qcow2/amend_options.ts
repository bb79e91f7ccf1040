import { LUKS_AMEND_OPTIONS, prefixed } from "../../lib/block/luks_options.ts";
import type { OptionSpec } from "../../lib/block/options.ts";

/** What key slot options begin with. */
export const ENCRYPTION_PREFIX = "encrypt.";

/** What `amend -o` takes, in the order in which the reference looks at them. */
export const AMEND_OPTIONS: readonly OptionSpec[] = [
  ...prefixed(LUKS_AMEND_OPTIONS, ENCRYPTION_PREFIX),
  { name: "size", type: "size", help: "Size of the virtual disk; a smaller one cuts it" },
  { name: "compat", type: "str", help: "Format version: 0.10 (v2) or 1.1 (v3)" },
  { name: "backing_file", type: "str", help: "Cannot be changed here, but with rebase" },
  { name: "backing_fmt", type: "str", help: "Cannot be changed here, but with rebase" },
  { name: "data_file", type: "str", help: "New name of the file that holds the guest's data" },
  { name: "data_file_raw", type: "bool", help: "Keep the data file readable as a raw image" },
  {
    name: "lazy_refcounts",
    type: "bool",
    help: "Write reference counts late, repair them after a crash",
  },
  {
    name: "refcount_bits",
    type: "num",
    help: "Bits of a reference count: 1, 2, 4, 8, 16, 32 or 64",
  },
];
