/** The loop that `compare.ts` measures everything else by. */

import { CALIBRATION } from "./compare.ts";

Deno.bench(CALIBRATION, () => {
  let x = 0x2545f491;
  let sum = 0;
  for (let i = 0; i < 100_000; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    sum = (sum + x) | 0;
  }
  // Never so, but the compiler cannot know: without a use the loop would go.
  if (sum === 0x7fffffff) throw new Error("sum");
});
