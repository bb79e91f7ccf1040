import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  applySnapshot,
  convertImage,
  createImage,
  createSnapshot,
  deleteSnapshot,
  ImageError,
  imageInfo,
  listSnapshots,
  measureImage,
  openImage,
} from "../../lib/mod.ts";
import { withTempDir } from "../_temp.ts";

const MiB = 1 << 20;

async function fill(filename: string, byte: number, length = 4096): Promise<void> {
  await using disk = await openImage(filename, { writable: true });
  await disk.write(0, new Uint8Array(length).fill(byte));
}

async function firstByte(filename: string): Promise<number> {
  await using disk = await openImage(filename);
  const bytes = new Uint8Array(1);
  await disk.read(0, bytes);
  return bytes[0]!;
}

Deno.test("snapshots are made, listed, applied, copied and deleted", async () => {
  await withTempDir(async (dir) => {
    const filename = `${dir}/a.qcow2`;
    const image = { filename };
    await createImage({ filename, format: "qcow2", size: 4 * MiB });
    await fill(filename, 1, MiB);
    await createSnapshot(image, "one", { date: 1_700_000_000_000 });
    await fill(filename, 2);
    const before = Date.now();
    await createSnapshot(image, "two");
    await fill(filename, 3);

    const [one, two] = await listSnapshots(image, { forceShare: true });
    assertEquals([one!.id, one!.name, one!.dateSeconds], ["1", "one", 1_700_000_000]);
    assertEquals([two!.id, two!.name, two!.icount], ["2", "two", 0n]);
    const made = two!.dateSeconds * 1000 + two!.dateNanoseconds / 1e6;
    assert(made >= before - 1000 && made <= Date.now() + 1000);
    assertEquals((await imageInfo(image))[0]!.snapshots, [one!, two!]);

    for (const [snapshot, byte] of [["one", 1], ["2", 2], [{ id: "1", name: "one" }, 1]] as const) {
      const target = `${dir}/copy`;
      await convertImage({ sources: [image], snapshot, target });
      assertEquals((await Deno.readFile(target))[0], byte);
    }
    const measured = await measureImage({ format: "qcow2", source: image, snapshot: "one" });
    assert(measured.required < measured.fullyAllocated);

    await applySnapshot(image, "one");
    assertEquals(await firstByte(filename), 1);
    await applySnapshot(image, "2");
    assertEquals(await firstByte(filename), 2);
    await deleteSnapshot(image, "one");
    assertEquals((await listSnapshots(image)).map(({ name }) => name), ["two"]);
  });
});

Deno.test("what is not there is not found, and a wrong image has none", async () => {
  await withTempDir(async (dir) => {
    const [filename, plain] = [`${dir}/a.qcow2`, `${dir}/a.raw`];
    await createImage({ filename, format: "qcow2", size: MiB });
    await createImage({ filename: plain, format: "raw", size: MiB });
    const raw = { filename: plain, format: "raw" };
    const target = `${dir}/copy`;
    const failures: readonly (readonly [() => Promise<unknown>, string, string])[] = [
      [
        () => applySnapshot({ filename }, "x"),
        "Could not apply snapshot 'x': Failed to load snapshot: No such file or directory",
        "ENOENT",
      ],
      [
        () => deleteSnapshot({ filename }, "x"),
        "Could not delete snapshot 'x': snapshot not found",
        "ENOENT",
      ],
      [
        () => convertImage({ sources: [{ filename }], snapshot: "x", target }),
        "Failed to load snapshot: Can't find snapshot",
        "ENOENT",
      ],
      [
        () => convertImage({ sources: [{ filename }], snapshot: {}, target }),
        "Failed to load snapshot: snapshot_id and name are both NULL",
        "EINVAL",
      ],
      [
        () => createSnapshot(raw, "x"),
        "Could not create snapshot 'x': Operation not supported",
        "ENOTSUP",
      ],
      [
        () => applySnapshot(raw, "x"),
        "Could not apply snapshot 'x': Block driver does not support snapshots",
        "ENOTSUP",
      ],
      [
        () => createSnapshot({ filename }, "x", { forceShare: true }),
        `Could not open '${filename}': force-share=on can only be used with read-only images`,
        "EINVAL",
      ],
    ];
    for (const [act, message, errno] of failures) {
      const error = await assertRejects(act, ImageError);
      assertEquals([error.message, error.errno], [message, errno]);
    }
    assertEquals(await listSnapshots(raw), []);
    assertEquals(await listSnapshots({ filename }), []);
  });
});
