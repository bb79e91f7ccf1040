import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { alignedBytes, isAlignedBytes } from "../../lib/io/aligned_buffer.ts";
import { HostError } from "../../lib/io/errno.ts";
import { openHostFile, statHostFile } from "../../lib/io/host_file.ts";
import { forSeeds, Random } from "../_random.ts";
import { run } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

/** Whether the folder for temporary files takes O_DIRECT, which not every file system does. */
async function directWorks(): Promise<boolean> {
  await using dir = await tempDir();
  try {
    using _ = await openHostFile(dir.file("file"), { write: true, create: true, direct: true });
    return true;
  } catch (error) {
    if (error instanceof HostError && error.errno === "EINVAL") return false;
    throw error;
  }
}

const KINDS = [
  { name: "buffered", direct: false, ignore: false },
  { name: "direct", direct: true, ignore: !await directWorks() },
];

for (const { name, direct, ignore } of KINDS) {
  const test = (behaviour: string, fn: () => Promise<void>) =>
    Deno.test({
      name: `${name} file: ${behaviour}`,
      ignore,
      sanitizeResources: true,
      sanitizeOps: true,
      fn,
    });

  test("reads at offsets, and short only at the end", async () => {
    await using dir = await tempDir();
    const content = new Random(1).bytes(100_000);
    await Deno.writeFile(dir.file("file"), content);
    using file = await openHostFile(dir.file("file"), { direct });
    for (
      const [offset, length] of [
        [0, 100],
        [5000, 10_000],
        [4096, 8192],
        [99_999, 1],
        [99_000, 1000],
        [99_000, 2000],
        [98_304, 8192],
        [100_000, 10],
        [200_000, 10],
        [0, 100_000],
        [0, 200_000],
        [7, 0],
      ] as const
    ) {
      const into = new Uint8Array(length).fill(0xee);
      const expected = content.subarray(offset, offset + length);
      assertEquals(file.readAt(offset, into), expected.length, `${length} bytes at ${offset}`);
      assertEquals(into.subarray(0, expected.length), expected, `${length} bytes at ${offset}`);
      assert(into.subarray(expected.length).every((byte) => byte === 0xee), "beyond the end");
    }
  });

  test("writes at offsets, beyond the end too, and the length is that of what was written", async () => {
    await using dir = await tempDir();
    using file = await openHostFile(dir.file("file"), {
      write: true,
      createNew: true,
      direct,
    });
    assertEquals(file.size(), 0);
    file.writeAt(1000, new Uint8Array(500).fill(1));
    assertEquals(file.size(), 1500);
    file.writeAt(10_000, new Uint8Array(1).fill(2));
    assertEquals(file.size(), 10_001);
    file.writeAt(0, new Uint8Array(1200).fill(3));
    assertEquals(file.size(), 10_001);
    const expected = new Uint8Array(10_001);
    expected.fill(1, 1200, 1500).fill(3, 0, 1200).fill(2, 10_000);
    assertEquals(await Deno.readFile(dir.file("file")), expected);
  });

  test("random reads, writes and truncations agree with memory", async () => {
    await using dir = await tempDir();
    const shared = alignedBytes(40_960);
    using file = await openHostFile(dir.file("file"), { write: true, create: true, direct });
    forSeeds(10, (random) => {
      file.truncate(0);
      let model = new Uint8Array(0);
      for (let step = 0; step < 40; step++) {
        const unit = random.pick([1, 512, 4096]);
        const offset = random.below(Math.floor(60_000 / unit)) * unit;
        const length = random.below(Math.floor(30_000 / unit)) * unit;
        // Memory at the start of a page, anywhere, and in a buffer of no alignment.
        const memory = random.pick([
          shared.subarray(0, length),
          shared.subarray(random.below(4096)).subarray(0, length),
          new Uint8Array(length),
        ]);
        if (random.oneIn(8)) {
          const size = random.below(60_000);
          file.truncate(size);
          const next = new Uint8Array(size);
          next.set(model.subarray(0, size));
          model = next;
        } else if (random.oneIn(2)) {
          memory.set(random.bytes(length));
          file.writeAt(offset, memory);
          if (length > 0 && offset + length > model.length) {
            const next = new Uint8Array(offset + length);
            next.set(model);
            model = next;
          }
          if (length > 0) model.set(memory, offset);
        } else {
          const expected = model.subarray(offset, offset + length);
          assertEquals(file.readAt(offset, memory), expected.length);
          assertEquals(memory.subarray(0, expected.length), expected);
        }
        assertEquals(file.size(), model.length);
      }
    });
  });

  test("requests larger than any buffer inside are whole", async () => {
    await using dir = await tempDir();
    const content = new Random(2).bytes(3_000_001);
    using file = await openHostFile(dir.file("file"), { write: true, create: true, direct });
    file.writeAt(77, content);
    const back = new Uint8Array(content.length);
    assertEquals(file.readAt(77, back), back.length);
    assertEquals(back, content);
    assertEquals(file.size(), 77 + content.length);
  });

  test("what is written and synced another reader sees", async () => {
    await using dir = await tempDir();
    for (const sync of [false, true]) {
      using file = await openHostFile(dir.file("file"), {
        write: true,
        create: true,
        truncate: true,
        direct,
        sync,
      });
      const content = new Uint8Array(5000).fill(sync ? 1 : 2);
      file.writeAt(0, content);
      file.datasync();
      file.sync();
      assertEquals(await Deno.readFile(dir.file("file")), content);
    }
  });

  test("tells what it is, also after its name is gone", async () => {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("file"), new Uint8Array(8192).fill(1));
    using file = await openHostFile(dir.file("file"), { direct });
    const before = statHostFile(dir.file("file"));
    await Deno.remove(dir.file("file"));
    const stat = file.stat();
    assertEquals([stat.kind, stat.size], ["file", 8192]);
    assertEquals([stat.device, stat.inode], [before.device, before.inode]);
    assertEquals(stat.allocated, before.allocated);
    assertEquals(stat.modified, before.modified);
  });

  test("opening tells what is in the way", async () => {
    await using dir = await tempDir();
    await Deno.writeTextFile(dir.file("there"), "kept");
    const errno = async (name: string, options: Parameters<typeof openHostFile>[1]) => {
      const error = await assertRejects(
        () => openHostFile(dir.file(name), { direct, ...options }),
        HostError,
      );
      assertEquals([error.operation, error.path], ["open", dir.file(name)]);
      return error.errno;
    };
    assertEquals(await errno("missing", {}), "ENOENT");
    assertEquals(await errno("there", { write: true, createNew: true }), "EEXIST");
    assertEquals(await errno("there/below", {}), "ENOTDIR");
    assertEquals(await Deno.readTextFile(dir.file("there")), "kept");
  });

  test("opening for writing keeps the content unless told to cut it", async () => {
    await using dir = await tempDir();
    await Deno.writeTextFile(dir.file("file"), "kept");
    (await openHostFile(dir.file("file"), { write: true, create: true, direct })).close();
    assertEquals(await Deno.readTextFile(dir.file("file")), "kept");
    (await openHostFile(dir.file("file"), { write: true, truncate: true, direct })).close();
    assertEquals(await Deno.readTextFile(dir.file("file")), "");
  });

  test("a file open for reading cannot be written", async () => {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("file"), new Uint8Array(4096));
    using file = await openHostFile(dir.file("file"), { direct });
    assertEquals(file.writable, false);
    const error = assertThrows(() => file.writeAt(0, new Uint8Array(4096).fill(1)), HostError);
    assertEquals([error.errno, error.operation], ["EBADF", "write"]);
    assertThrows(() => file.truncate(0), HostError);
    assertEquals(await Deno.readFile(dir.file("file")), new Uint8Array(4096));
  });

  test("closing twice is closing once, and a closed file does nothing", async () => {
    await using dir = await tempDir();
    const file = await openHostFile(dir.file("file"), { write: true, create: true, direct });
    file.close();
    file.close();
    assertThrows(() => file.readAt(0, new Uint8Array(1)));
    assertThrows(() => file.writeAt(0, new Uint8Array(1)));
  });

  test("a file that shrinks underneath ends earlier", async () => {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("file"), new Uint8Array(10_000).fill(1));
    using file = await openHostFile(dir.file("file"), { direct });
    const into = new Uint8Array(10_000);
    assertEquals(file.readAt(0, into), 10_000);
    await Deno.truncate(dir.file("file"), 3000);
    assertEquals(file.readAt(0, into), 3000);
    assertEquals(file.size(), 3000);
  });
}

Deno.test({
  name: "direct file: the unit is found out, and the largest is taken where nothing tells",
  ignore: KINDS[1]!.ignore,
  async fn() {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("data"), new Uint8Array(8192).fill(1));
    using data = await openHostFile(dir.file("data"), { direct: true });
    assert([512, 1024, 2048, 4096].includes(data.alignment), `${data.alignment}`);
    using empty = await openHostFile(dir.file("empty"), {
      write: true,
      create: true,
      direct: true,
    });
    assertEquals(empty.alignment, 4096);
    using buffered = await openHostFile(dir.file("data"));
    assertEquals(buffered.alignment, 1);
  },
});

Deno.test({
  name: "new files have mode 0644 less the umask",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using dir = await tempDir();
    (await openHostFile(dir.file("file"), { write: true, create: true })).close();
    const { mode } = await Deno.stat(dir.file("file"));
    assertEquals(mode! & 0o777 & 0o133, 0);
    assertEquals(mode! & 0o600, 0o600);
  },
});

Deno.test("folders and files are told apart without opening them", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("file"), "12345");
  assertEquals(statHostFile(dir.path).kind, "directory");
  assertEquals(statHostFile(dir.file("file")).kind, "file");
  assertEquals(statHostFile(dir.file("file")).size, 5);
  assertEquals(assertThrows(() => statHostFile(dir.file("missing")), HostError).errno, "ENOENT");
});

Deno.test({
  name: "buffered and direct files keep within the permissions, and the error names the flag",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using allowed = await tempDir();
    await using other = await tempDir();
    await Deno.writeFile(allowed.file("file"), new Uint8Array(4096).fill(7));
    await Deno.writeFile(other.file("file"), new Uint8Array(4096));
    const module = new URL("../../lib/io/host_file.ts", import.meta.url).href;
    await Deno.writeTextFile(
      allowed.file("script.ts"),
      `
      const { openHostFile } = await import(${JSON.stringify(module)});
      for (const direct of [false, true]) {
        for (const [path, write] of ${
        JSON.stringify([
          [allowed.file("file"), false],
          [allowed.file("file"), true],
          [other.file("file"), false],
        ])
      }) {
          try {
            using file = await openHostFile(path, { write, direct });
            console.log(direct, write, file.readAt(0, new Uint8Array(4096)));
          } catch (error) {
            console.log(direct, write, error.errno, error.message === error.denied, error.message.replace(/".*"/, "it"));
          }
        }
      }`,
    );
    const root = new URL("../../", import.meta.url).pathname;
    const { stdout } = await run(Deno.execPath(), [
      "run",
      "--no-prompt",
      "--no-config",
      `--allow-read=${allowed.path},${root}`,
      allowed.file("script.ts"),
    ], { cwd: allowed.path });
    const lines = stdout.split("\n").slice(0, 6);
    const reading = "EACCES true Requires read access to it, run again with the --allow-read flag";
    const writing =
      "EACCES true Requires write access to it, run again with the --allow-write flag";
    const expected = [
      "false 4096",
      `true ${writing}`,
      `false ${reading}`,
    ];
    assertEquals(lines.slice(0, 3), expected.map((line) => `false ${line}`));
    // Where direct I/O works at all.
    if (!KINDS[1]!.ignore) assertEquals(lines.slice(3), expected.map((line) => `true ${line}`));
  },
});

Deno.test("aligned memory is known by its buffer and offset", () => {
  const bytes = alignedBytes(10_000);
  assertEquals(bytes.length, 10_000);
  assert(bytes.every((byte) => byte === 0));
  assertEquals(isAlignedBytes(bytes, 4096), true);
  assertEquals(isAlignedBytes(bytes.subarray(4096, 5000), 4096), true);
  assertEquals(isAlignedBytes(bytes.subarray(512), 4096), false);
  assertEquals(isAlignedBytes(bytes.subarray(512), 512), true);
  assertEquals(isAlignedBytes(new Uint8Array(8192), 512), false);
});
