/** A folder for one test that is gone afterwards, whatever happened. */

/** A new folder; disposing of it removes it with everything inside. */
export interface TempDir extends AsyncDisposable {
  /** Its absolute path, links resolved. */
  readonly path: string;
  /** The absolute path of `name` inside it. */
  file(name: string): string;
}

/** Makes a folder: `await using dir = await tempDir()`. */
export async function tempDir(): Promise<TempDir> {
  // Messages and `json:` names show resolved paths (on macOS /var is a link).
  const path = await Deno.realPath(await Deno.makeTempDir({ prefix: "qimg_test_" }));
  return {
    path,
    file: (name) => `${path}/${name}`,
    [Symbol.asyncDispose]: () => removeTree(path),
  };
}

/** Runs `body` with a new folder's path and removes the folder afterwards. */
export async function withTempDir<T>(body: (path: string) => T | Promise<T>): Promise<T> {
  await using dir = await tempDir();
  return await body(dir.path);
}

/** Removes a tree, folders that a test made read-only included. */
async function removeTree(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    await makeWritable(path);
    await Deno.remove(path, { recursive: true });
  }
}

async function makeWritable(path: string): Promise<void> {
  await Deno.chmod(path, 0o700);
  for await (const entry of Deno.readDir(path)) {
    if (entry.isDirectory) await makeWritable(`${path}/${entry.name}`);
  }
}
