import { serveImage } from "../ops/serve/mod.ts";
import {
  type Access,
  type Command,
  defineCommand,
  type ParsedOptions,
  UsageError,
} from "./_command.ts";
import {
  cacheMode,
  cacheOption,
  environmentOf,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  QUIET,
  readInteger,
  UNTRUSTED,
} from "./_options.ts";
import { readSelector, SNAPSHOT } from "./_snapshot.ts";

const OPTIONS = {
  format: FORMAT,
  imageOpts: IMAGE_OPTS,
  objects: OBJECT,
  readOnly: {
    short: "r",
    long: ["read-only"],
    help: ["clients can only read; so it is unless told"],
  },
  writable: {
    short: "w",
    long: ["writable"],
    help: ["clients can write"],
  },
  socket: {
    short: "k",
    long: ["socket"],
    value: "PATH",
    help: ["listen on a Unix socket, which is made, and removed at the end"],
  },
  port: {
    short: "p",
    long: ["port"],
    value: "N",
    help: ["listen on this TCP port, default 10809; 0 takes a free one"],
    parse: (text: string) => readInteger("port", text, { max: 65535 }),
  },
  bind: {
    short: "b",
    long: ["bind"],
    value: "ADDRESS",
    help: ["the address of that port, default 127.0.0.1: this machine alone can connect"],
  },
  exportName: {
    short: "x",
    long: ["export", "export-name"],
    value: "NAME",
    help: ["the name by which clients ask for the image, default none"],
  },
  description: {
    short: "D",
    long: ["description"],
    value: "TEXT",
    help: ["what clients are told of it"],
  },
  snapshot: { ...SNAPSHOT, help: ["serve this internal snapshot, an id or a name"] },
  bitmap: {
    short: "B",
    long: ["bitmap"],
    value: "NAME",
    help: ["let clients see this dirty bitmap; default all"],
    parse: (text: string, previous: unknown): readonly string[] => [
      ...(previous as readonly string[] | undefined ?? []),
      text,
    ],
  },
  once: {
    long: ["once"],
    help: ["stop when the last client has left"],
  },
  shared: {
    short: "e",
    long: ["shared"],
    value: "N",
    help: [
      "clients at a time, default 16, and 1 with --writable; 0 for any number",
    ],
    parse: (text: string) => readInteger("number of clients", text, { max: 2 ** 31 - 1 }),
  },
  cache: cacheOption("t", "cache", "how the host caches the image, default writeback"),
  quiet: { ...QUIET, help: ["do not print where clients find the image"] },
  untrusted: UNTRUSTED,
} as const;

/** `qimg serve`: an NBD server. Of our own; options that `qemu-nbd` has, too, have its letters. */
export const serve: Command = defineCommand({
  name: "serve",
  description: "Let others read or write an image over NBD",
  synopsis: [
    "[-f FMT | --image-opts] [--object OBJECT] [-r | -w] [-k PATH | [-p N] [-b ADDRESS]]",
    "[-x NAME] [-D TEXT] [-l SNAPSHOT] [-B BITMAP]... [-e N] [--once] [-t CACHE] [-q]",
    "[--untrusted] FILENAME",
  ],
  options: OPTIONS,
  operands: [{ name: "FILENAME", help: ["image to serve"] }],
  access(options, operands) {
    return {
      ...accessOf(options, operands),
      listens: options.socket === undefined ? "port" : "socket",
    };
  },
  async run(ctx) {
    const { options } = ctx;
    const filename = onlyImage(ctx.operands);
    if (options.readOnly && options.writable) {
      throw new UsageError("--read-only and --writable are mutually exclusive");
    }
    const { socket, port, bind: host } = options;
    if (socket !== undefined && (port !== undefined || host !== undefined)) {
      throw new UsageError("--socket cannot be used with --port or --bind");
    }
    const cache = options.cache === undefined ? undefined : cacheMode(options.cache);
    await using server = await serveImage(
      { filename, format: options.format, imageOptions: options.imageOpts },
      {
        address: socket !== undefined ? { socket } : {
          ...(port === undefined ? {} : { port }),
          ...(host === undefined ? {} : { host }),
        },
        writable: options.writable,
        exportName: options.exportName ?? "",
        description: options.description,
        snapshot: readSelector(ctx, options.snapshot),
        bitmaps: options.bitmap,
        once: options.once,
        shared: options.shared,
        cache,
      },
      environmentOf(ctx, options),
    );
    // Who listens can accept clients without.
    await ctx.restrict(accessOf(options, ctx.operands));
    if (!options.quiet) {
      ctx.out(`${server.uri}\n`);
      ctx.flush();
    }
    await server.finished;
    return 0;
  },
});

/** What the image needs. */
function accessOf(
  { writable }: ParsedOptions<typeof OPTIONS>,
  [filename]: readonly string[],
): Access {
  return writable ? { writes: [filename] } : { reads: [filename] };
}
