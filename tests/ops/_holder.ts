/** Programs that keep an image open while a test tries to. */

/** A program that has an image open until it is disposed of. */
export type Holder = AsyncDisposable;

/** `qemu-io` on an image; it has it open when this resolves. */
export async function holdWithQemuIo(
  args: readonly string[],
  cwd: string,
): Promise<Holder> {
  const child = new Deno.Command("qemu-io", {
    args: [...args],
    cwd,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const input = child.stdin.getWriter();
  // Commands are read when the image is open; the answer to one says that it is.
  await input.write(new TextEncoder().encode("length\n"));
  const output = child.stdout.getReader();
  await readUntil(output, /\d/);
  return {
    async [Symbol.asyncDispose]() {
      await input.write(new TextEncoder().encode("quit\n")).catch(() => {});
      await input.close().catch(() => {});
      while (!(await output.read()).done);
      await child.status;
    },
  };
}

/** `qemu-nbd` on an image, listening on a socket in `cwd` that nobody connects to. */
export async function holdWithQemuNbd(args: readonly string[], cwd: string): Promise<Holder> {
  const ready = `${cwd}/nbd.pid`;
  const child = new Deno.Command("qemu-nbd", {
    args: ["--persistent", `--socket=${cwd}/nbd.sock`, `--pid-file=${ready}`, ...args],
    cwd,
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  // Written when the image is open, unlike the socket.
  for (let i = 0; !exists(ready); i++) {
    if (i > 1000) throw new Error("qemu-nbd does not start");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.status;
    },
  };
}

/** This program, in a process of its own, having opened an image through the library. */
export async function holdWithLibrary(
  image: string,
  options: { readonly format?: string; readonly writable?: boolean },
  cwd: string,
): Promise<Holder> {
  const { format, writable = false } = options;
  const library = import.meta.resolve("../../lib/mod.ts");
  const code = `
    import { openImage } from ${JSON.stringify(library)};
    const reference = ${JSON.stringify({ filename: image, format })};
    await using image = await openImage(reference, { writable: ${writable} });
    console.log(image.length);
    await new Response(Deno.stdin.readable).text();
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "-A", `data:application/typescript,${encodeURIComponent(code)}`],
    cwd,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = child.stdout.getReader();
  await readUntil(output, /\n/);
  return {
    async [Symbol.asyncDispose]() {
      await child.stdin.close();
      while (!(await output.read()).done);
      await child.status;
    },
  };
}

async function readUntil(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  pattern: RegExp,
): Promise<void> {
  const decoder = new TextDecoder();
  for (let text = ""; !pattern.test(text);) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`the program ended after: ${text}`);
    text += decoder.decode(value, { stream: true });
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
