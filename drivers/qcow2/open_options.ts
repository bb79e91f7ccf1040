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
    help: "ID of the secret that holds the key or passphrase",
  },
  ...OVERLAP_OPTIONS,
];
