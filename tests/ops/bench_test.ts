import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { CACHE_MODES } from "../../lib/block/mode.ts";
import { firstDifference } from "../../lib/bytes/equal.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { benchImage, type BenchOptions } from "../../lib/ops/bench.ts";
import { createImage } from "../../lib/ops/create.ts";
import { openImage } from "../../lib/ops/image.ts";
import { runQimg } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

const K = 1024;
const M = 1024 * K;

/** A raw image of a MiB of zeros. */
async function rawImage(dir: TempDir): Promise<string> {
  const filename = dir.file("a");
  await Deno.writeFile(filename, new Uint8Array(M));
  return filename;
}

async function contentOf(filename: string): Promise<Uint8Array> {
  await using image = await openImage(filename);
  const bytes = new Uint8Array(image.length);
  await image.read(0, bytes);
  return bytes;
}

/** All that the difference of megabytes would print is not worth waiting for. */
function assertSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  assertEquals(firstDifference(actual, expected), -1);
}

/** What requests write: offset, step and size as `bench` has them. */
function written(
  length: number,
  { count = 0, offset = 0, bufferSize = 4096, stepSize = bufferSize, pattern = 0 }: BenchOptions,
): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, at = offset; i < count; i++, at = (at + stepSize) % length) {
    bytes.fill(pattern, at, at + bufferSize);
  }
  return bytes;
}

for (const depth of [1, 2, 7, 64, 1000]) {
  Deno.test(`all requests are answered, ${depth} at a time`, async () => {
    await using dir = await tempDir();
    const filename = await rawImage(dir);
    const { count, seconds, latency } = await benchImage({ filename, format: "raw" }, {
      count: 700,
      depth,
    });
    assertEquals(count, 700);
    assert(seconds > 0);
    const values = [latency.min, ...latency.percentiles.map(([, value]) => value), latency.max];
    assertEquals(values.toSorted((a, b) => a - b), values);
  });

  for (const format of ["raw", "qcow2"]) {
    Deno.test(`writes go where they should, ${depth} at a time, ${format}`, async () => {
      await using dir = await tempDir();
      const filename = dir.file("a");
      await createImage({ filename, format, size: M });
      const options = {
        write: true,
        count: 90,
        depth,
        offset: 8 * K,
        bufferSize: 1500,
        stepSize: 4 * K,
        pattern: 0xa5,
      };
      await benchImage({ filename, format }, options);
      assertSameBytes(await contentOf(filename), written(M, options));
    });
  }
}

for (const cache of ["none", "directsync", "writethrough", "unsafe"]) {
  Deno.test(`writes go where they should with cache mode ${cache}`, async () => {
    await using dir = await tempDir();
    const filename = await rawImage(dir);
    for (const [bufferSize, pattern] of [[4096, 1], [1000, 2]] as const) {
      const options = { write: true, count: 64, depth: 8, bufferSize, pattern };
      await benchImage({ filename, format: "raw" }, { ...options, cache: CACHE_MODES[cache]! });
      const bytes = await contentOf(filename);
      const length = 64 * bufferSize;
      assertSameBytes(bytes.subarray(0, length), written(M, options).subarray(0, length));
    }
  });
}

for (const drain of [true, false]) {
  Deno.test(`flushes lose no request, ${drain ? "drained" : "on the side"}`, async () => {
    await using dir = await tempDir();
    const filename = await rawImage(dir);
    const options = { write: true, count: 101, depth: 4, flushInterval: 5, drain, pattern: 6 };
    const { count } = await benchImage({ filename, format: "raw" }, options);
    assertEquals(count, 101);
    assertSameBytes(await contentOf(filename), written(M, options));
  });
}

Deno.test("a request that begins behind the end fails and takes no memory first", async () => {
  await using dir = await tempDir();
  const filename = await rawImage(dir);
  const error = await assertRejects(
    () => benchImage({ filename, format: "raw" }, { bufferSize: 2 ** 31 - 1, depth: 1 }),
    ImageError,
  );
  assertEquals([error.message, error.errno], ["Failed request: Input/output error", "EIO"]);
});

for (const depth of [1, 2]) {
  Deno.test(`after a failed request no more are sent, ${depth} at a time, and the image is free again`, async () => {
    await using dir = await tempDir();
    const filename = dir.file("a");
    await createImage({ filename, format: "qcow2", size: M });
    for (const write of [false, true]) {
      const options = { write, offset: M - 6 * K, stepSize: 4 * K, depth, pattern: 1 };
      await assertRejects(() => benchImage({ filename }, options), ImageError, "Failed request: ");
    }
    const expected = new Uint8Array(M);
    expected.fill(1, M - 6 * K, M - 2 * K);
    assertSameBytes(await contentOf(filename), expected);
    await (await openImage(filename, { writable: true }))[Symbol.asyncDispose]();
  });
}

for (const depth of [1, 8]) {
  Deno.test(`an abort ends it, ${depth} at a time`, async () => {
    await using dir = await tempDir();
    const filename = await rawImage(dir);
    const controller = new AbortController();
    const reason = new Error("enough");
    const running = benchImage(
      { filename, format: "raw" },
      { count: 2 ** 31 - 1, depth, onStart: () => setTimeout(() => controller.abort(reason), 30) },
      { ...QUIET, signal: controller.signal },
    );
    assertEquals(await assertRejects(() => running), reason);
  });
}

Deno.test("--output=json prints one object, and nothing else", async () => {
  await using dir = await tempDir();
  await rawImage(dir);
  const args = ["bench", "-f", "raw", "-c", "100", "-d", "2", "-s", "1k", "--output=json", "a"];
  const { code, stdout, stderr } = await runQimg(args, { cwd: dir.path });
  assertEquals([code, stderr], [0, ""]);
  const { seconds, "latency-ns": latency, ...rest } = JSON.parse(stdout);
  const rates = ["requests-per-second", "bytes-per-second"].map((name) => rest[name]);
  assert([seconds, ...rates, ...Object.values(latency)].every(Number.isFinite));
  assertEquals(Object.keys(latency).sort(), [
    ...["max", "mean", "min", "p50", "p90", "p95", "p99", "p99.9", "p99.99"],
  ]);
  assertEquals([rest.operation, rest["buffer-size"], rest.depth], ["read", 1024, 2]);
  assertEquals([rest.offset, rest["step-size"]], [0, 1024]);
  assertEquals([rest.requests, rest.bytes], [100, 102400]);
});
