import { assert, assertEquals, assertRejects } from "@std/assert";
import { LeakyBucket } from "../../../drivers/filters/leaky_bucket.ts";
import { throttle, throttled } from "../../../drivers/filters/throttle.ts";
import { type Clock, groupOf, ThrottleGroup } from "../../../drivers/filters/throttle_group.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { openImage } from "../../../lib/graph/open.ts";
import { loadNative } from "../../../lib/io/native.ts";
import { convertImage } from "../../../lib/ops/convert.ts";
import { createImage } from "../../../lib/ops/create.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { tempDir } from "../../_temp.ts";

loadNative();

/** A clock that goes on only when somebody waits: whoever waits for the earliest time is woken first. */
class FakeClock implements Clock {
  #now = 0;
  readonly #sleepers: { readonly until: number; readonly wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  sleep(duration: number): Promise<void> {
    return new Promise((wake) => {
      this.#sleepers.push({ until: this.#now + duration, wake });
    });
  }

  /** Lets time pass until all is done. */
  async until(done: Promise<unknown>): Promise<number> {
    let isDone = false;
    done.finally(() => isDone = true);
    for (;;) {
      // Everything that needs no time comes first.
      for (let i = 0; i < 50; i++) await Promise.resolve();
      if (isDone) return this.#now;
      this.#sleepers.sort((a, b) => a.until - b.until);
      const next = this.#sleepers.shift();
      assert(next !== undefined, "nobody waits, and it is not done");
      this.#now = Math.max(this.#now, next.until);
      next.wake();
    }
  }
}

function group(clock: Clock, limits: Readonly<Record<string, number>>): ThrottleGroup {
  const texts = Object.entries(limits).map(([name, value]) => [name, String(value)] as const);
  return new ThrottleGroup(new Map(texts), clock);
}

/** Milliseconds that so many requests take, all of which are there at once. */
async function duration(
  limits: Readonly<Record<string, number>>,
  requests: readonly (readonly ["read" | "write", number])[],
): Promise<number> {
  const clock = new FakeClock();
  const limited = group(clock, limits);
  return await clock.until(
    Promise.all(requests.map(([direction, bytes]) => limited.pass(direction, bytes))),
  );
}

function times<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

Deno.test("a bucket lets a tenth of a second's worth pass, and then its rate", () => {
  const bucket = new LeakyBucket({ rate: 1000, burstRate: 0, burstSeconds: 1 }, 0);
  assertEquals(bucket.delay(0), 0);
  bucket.add(100);
  assertEquals(bucket.delay(0), 0);
  bucket.add(500);
  assertEquals(bucket.delay(0), 500);
  assertEquals(bucket.delay(400), 100);
  assertEquals(bucket.delay(500), 0);
  // An empty bucket does not get any emptier.
  assertEquals(bucket.delay(1e9), 0);
  bucket.add(200);
  assertEquals(bucket.delay(1e9), 100);
});

Deno.test("a bucket with a burst lets that pass before its rate counts", () => {
  const bucket = new LeakyBucket({ rate: 100, burstRate: 1000, burstSeconds: 2 }, 0);
  bucket.add(100);
  assertEquals(bucket.delay(0), 0);
  bucket.add(500);
  // Within the burst its own rate counts.
  assertEquals(bucket.delay(0), 500);
  bucket.add(1500);
  // 50 too many for the whole burst, then 1000 too many for its rate.
  assertEquals(bucket.delay(500), 500);
  assertEquals(bucket.delay(1000), 1000);
});

Deno.test("a clock that goes back fills no bucket and empties none", () => {
  const bucket = new LeakyBucket({ rate: 1000, burstRate: 0, burstSeconds: 1 }, 1000);
  bucket.add(1100);
  assertEquals(bucket.delay(0), 1000);
  assertEquals(bucket.delay(1500), 500);
});

Deno.test("requests of a group keep to its rate, of bytes and of requests", async () => {
  // The first fills the bucket beyond its brim, and the last but one has to run out for the last.
  assertEquals(await duration({ "bps-total": 1000 }, times(10, ["read", 1000])), 8900);
  assertEquals(await duration({ "iops-total": 10 }, times(22, ["write", 1])), 2000);
  assertEquals(
    await duration({ "iops-total": 10, "iops-size": 512 }, [
      ["write", 1024],
      ["write", 512],
    ]),
    100,
  );
});

Deno.test("no limit, no waiting", async () => {
  assertEquals(await duration({}, times(100, ["read", 1e9])), 0);
  assertEquals(await duration({ "bps-write": 1 }, times(100, ["read", 1e9])), 0);
});

Deno.test("reads and writes have limits of their own, or one for both", async () => {
  const requests = [...times(5, ["read", 1000]), ...times(5, ["write", 1000])] as [
    "read",
    number,
  ][];
  assertEquals(await duration({ "bps-read": 1000, "bps-write": 1000 }, requests), 3900);
  const both = await duration({ "bps-total": 1000 }, requests);
  assert(both >= 7900 && both <= 8900, `${both}`);
});

Deno.test("of several limits the strictest counts", async () => {
  const requests = times(11, ["read", 100] as const);
  const slow = await duration({ "bps-total": 100 }, requests);
  assertEquals(await duration({ "bps-total": 100, "iops-total": 1000 }, requests), slow);
  const strict = await duration({ "bps-total": 1e9, "iops-total": 1 }, requests);
  // Who has waited for a part of a millisecond too little waits for another one.
  assert(strict >= 9900 && strict < 9920, `${strict}`);
});

Deno.test("requests pass in the order in which they came", async () => {
  const clock = new FakeClock();
  const limited = group(clock, { "bps-total": 100 });
  const order: number[] = [];
  await clock.until(Promise.all(
    [500, 10, 900, 1, 20].map((bytes, i) => limited.pass("read", bytes).then(() => order.push(i))),
  ));
  assertEquals(order, [0, 1, 2, 3, 4]);
});

Deno.test("nodes of a group share its limits, whatever they do", async () => {
  const clock = new FakeClock();
  const limited = group(clock, { "bps-total": 1000 });
  const context = driverContext("x", { ...READ_ONLY, writable: true }, QUIET);
  const nodes = [1, 2].map(() =>
    throttled(new MemoryNode({ bytes: new Uint8Array(4096) }), context, limited)
  );
  const bytes = new Uint8Array(1000);
  const work = async () => {
    for (const node of nodes) {
      await node.read(0, bytes);
      await node.write(0, bytes);
      await node.writeZeroes(0, 1000, { unmap: false });
      await node.discard(0, 1000);
      await node.flush();
    }
  };
  assertEquals(await clock.until(work()), 6900);
});

Deno.test("copies cannot get around a throttled node", async () => {
  const file = new MemoryNode({ bytes: new Uint8Array(4096).fill(1) });
  const context = driverContext("x", READ_ONLY, QUIET);
  const node = throttled(file, context, group(new FakeClock(), {}));
  for (const extent of [await node.extent(512, 1000), await node.locate!(512, 1000)]) {
    const { state, length, guarded, offset } = extent;
    assertEquals({ state, length, guarded, offset }, {
      state: "data",
      length: 1000,
      guarded: true,
      offset: 512,
    });
  }
  assert(!("allocator" in node) && !("local" in node));
});

Deno.test("all that a copy reads is counted, also what is behind the image", async () => {
  await using dir = await tempDir();
  const options = { format: "qcow2", size: 1 << 20 } as const;
  await createImage({ ...options, filename: dir.file("a") });
  await createImage({ ...options, filename: dir.file("b"), backing: "a", backingFormat: "qcow2" });
  {
    await using image = await openImage(
      { filename: dir.file("a") },
      { ...READ_ONLY, writable: true },
      QUIET,
    );
    await image.write(65536, new Uint8Array(300_000).fill(1));
  }
  const object = {
    id: "g",
    type: "throttle-group",
    properties: new Map([["bps-total", "1000000000000"]]),
  };
  const counted = groupOf(object);
  let bytes = 0;
  const pass = counted.pass.bind(counted);
  counted.pass = (direction, count) => {
    bytes += count;
    return pass(direction, count);
  };
  const name = (options: unknown) => `json:${JSON.stringify(options)}`;
  const file = { driver: "qcow2", file: { driver: "file", filename: dir.file("b") } };
  await convertImage({
    sources: [{ filename: name({ driver: "throttle", "throttle-group": "g", file }) }],
    target: dir.file("t"),
    targetFormat: "raw",
  }, { ...QUIET, objects: { get: (id) => id === "g" ? object : undefined } });
  // In whole clusters; the rest of the disk is known to be zeros.
  assertEquals(bytes, 5 * 65536);
  assertEquals((await Deno.readFile(dir.file("t")))[65536], 1);
});

Deno.test("a throttled node needs its group", async () => {
  const open = (id: string | undefined, type: string) =>
    throttle.open(
      new MemoryNode(),
      new OptionSet(throttle.openOptions, id === undefined ? [] : [["throttle-group", id]]),
      driverContext("x", READ_ONLY, {
        ...QUIET,
        objects: {
          get: (name) => name === "g" ? { id: "g", type, properties: new Map() } : undefined,
        },
      }),
    );
  await using node = await open("g", "throttle-group");
  assertEquals(node.driver, "throttle");
  await assertRejects(
    () => open(undefined, "throttle-group"),
    ImageError,
    "Please specify a throttle group",
  );
  for (const [id, type] of [["h", "throttle-group"], ["g", "tls-creds-psk"]] as const) {
    await assertRejects(
      () => open(id, type),
      ImageError,
      `Throttle group '${id}' does not exist`,
    );
  }
});
