/**
 * Sound images of all shapes, damaged at random: `check`, `check -r leaks` and
 * `check -r all` say what the reference says, count what it counts, end as it
 * ends and leave the same bytes; and what they call repaired, it finds clean.
 *
 * Each test runs 60 seeds as they come; `QIMG_DAMAGE_SEEDS=300` runs all,
 * `QIMG_DAMAGE_SEEDS=301-1000` others, `QIMG_DAMAGE_SEEDS=17-17` one.
 */
import { assertEquals } from "@std/assert";
import { Random } from "../_random.ts";
import { assertSame, reference, runReference } from "../_reference.ts";
import { checkedImage, IMAGE_NAMES, place } from "../drivers/qcow2/_checked_images.ts";
import { damaged } from "./_damage.ts";

const WAYS = [[], ["-r", "leaks"], ["-r", "all"]];

function seeds(): number[] {
  const [from, to] = /^(?:(\d+)-)?(\d+)$/.exec(Deno.env.get("QIMG_DAMAGE_SEEDS") ?? "60")!
    .slice(1);
  const first = Number(from ?? 1);
  return Array.from({ length: Number(to) - first + 1 }, (_, i) => first + i);
}

for (const seed of seeds()) {
  Deno.test({
    name: `check of random damage: seed ${seed}`,
    ignore: reference.ignore,
    async fn() {
      const name = IMAGE_NAMES[seed % IMAGE_NAMES.length]!;
      const files = await checkedImage(name);
      const { image, log } = damaged(files.get("a.qcow2")!, new Random(seed));
      for (const way of WAYS) {
        try {
          await assertSame(
            ["check", "-f", "qcow2", "--output=json", ...way, "a.qcow2"],
            { setup: (dir) => place(dir, files, image), files: ["a.qcow2"] },
          );
        } catch (error) {
          throw new Error(`${name}, ${way}: ${log.join("; ")}`, { cause: error });
        }
      }
    },
  });
}
