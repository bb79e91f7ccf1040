/** Command lines that must have the same outcome through qimg and the reference. */
import { assertSame, reference, type SameOptions } from "../_reference.ts";

/** Registers one test a command line; words are split at spaces, `''` is an empty one. */
export function testSame(lines: readonly string[], options: SameOptions = {}): void {
  for (const line of lines) {
    Deno.test({
      name: `as the reference: ${line}`,
      ignore: reference.ignore,
      fn: async () => {
        const words = line.split(" ").map((word) => word === "''" ? "" : word);
        await assertSame(words, options);
      },
    });
  }
}
