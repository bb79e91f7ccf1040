import { assertEquals, assertRejects } from "@std/assert";
import { Mutex } from "../../lib/block/mutex.ts";

Deno.test("sections run one at a time, in the order in which they came", async () => {
  const mutex = new Mutex();
  const log: string[] = [];
  const section = (name: string, ticks: number) =>
    mutex.run(async () => {
      log.push(`${name} begins`);
      for (let i = 0; i < ticks; i++) await Promise.resolve();
      log.push(`${name} ends`);
      return name;
    });
  assertEquals(await Promise.all([section("a", 9), section("b", 0), section("c", 3)]), [
    "a",
    "b",
    "c",
  ]);
  assertEquals(log, ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
});

Deno.test("a section that fails lets the next one run", async () => {
  const mutex = new Mutex();
  const failing = mutex.run(() => {
    throw new Error("first");
  });
  const next = mutex.run(() => "second");
  await assertRejects(() => failing, Error, "first");
  assertEquals(await next, "second");
});

Deno.test("it is busy while a section runs or waits", async () => {
  const mutex = new Mutex();
  assertEquals(mutex.busy, false);
  const running = mutex.run(() => {});
  assertEquals(mutex.busy, true);
  await running;
  assertEquals(mutex.busy, false);
});
