import { assertEquals, assertRejects } from "@std/assert";
import { closeAll } from "../../lib/block/close_all.ts";

Deno.test("all steps are taken in order, and the first failure is told", async () => {
  const log: number[] = [];
  const step = (number: number, error?: Error) => async () => {
    await Promise.resolve();
    log.push(number);
    if (error !== undefined) throw error;
  };
  const steps = [
    step(1),
    step(2, new Error("two")),
    () => void log.push(3),
    step(4, new Error("four")),
  ];
  await assertRejects(() => closeAll(steps), Error, "two");
  assertEquals(log, [1, 2, 3, 4]);
  await closeAll([step(5)]);
  assertEquals(log.at(-1), 5);
});
