import { LUKS_CREATE_OPTIONS } from "../../lib/block/luks_options.ts";
import type { OptionSpec } from "../../lib/block/options.ts";

/** What `create -o` takes. */
export const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  { name: "key-secret", type: "str", help: "Id of the secret that holds the passphrase" },
  ...LUKS_CREATE_OPTIONS,
  {
    name: "detached-header",
    type: "bool",
    help: "The header is a file of its own; such images are opened, but not made here",
  },
];

/** Runtime options: those of `--image-opts` and `json:`. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  {
    name: "key-secret",
    type: "str",
    strong: true,
    help: "Id of the secret that holds the passphrase",
  },
];
