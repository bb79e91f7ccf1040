/**
 * Images with random damage: the same findings, exit codes and counters as the
 * reference in every mode, and the same bytes afterwards. A failure prints its
 * seed; `QIMG_SEED` runs that one alone.
 */
import { assertSame, reference } from "../../_reference.ts";
import { Random } from "../../_random.ts";
import { checkedImage, IMAGE_NAMES, place } from "./_checked_images.ts";
import { damage } from "./_corruption.ts";

function seeds(count: number): number[] {
  const only = Deno.env.get("QIMG_SEED");
  return only === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(only)];
}

for (const name of IMAGE_NAMES) {
  // When an image with bitmaps is closed after a failed check, messages come in another order.
  if (name === "bitmaps") continue;
  Deno.test({
    name: `check of random damage: ${name}`,
    ignore: reference.ignore,
    async fn() {
      const files = await checkedImage(name);
      for (const seed of seeds(5)) {
        const image = files.get("a.qcow2")!.slice();
        const log = damage(image, new Random(seed));
        try {
          for (const options of [[], ["-r", "leaks"], ["-r", "all"]]) {
            await assertSame(
              ["check", "-f", "qcow2", "--output=json", ...options, "a.qcow2"],
              { setup: (dir) => place(dir, files, image), files: ["a.qcow2"] },
            );
          }
        } catch (error) {
          throw new Error(`with QIMG_SEED=${seed}: ${log.join("; ")}`, { cause: error });
        }
      }
    },
  });
}
