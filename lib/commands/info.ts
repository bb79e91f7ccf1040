import type { InfoValue, SnapshotInfo } from "../block/capabilities.ts";
import { hashOrder, type JsonValue } from "../bytes/json.ts";
import { humanSize } from "../bytes/size.ts";
import { type ImageInfo, imageInfo } from "../ops/info.ts";
import { type Command, defineCommand } from "./_command.ts";
import { snapshotTable } from "./_format.ts";
import {
  environmentOf,
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  onlyImage,
  OUTPUT,
  UNTRUSTED,
} from "./_options.ts";

const NANOSECONDS = 1_000_000_000n;

/** `qimg info`: shows what an image is (cli.md, 7). */
export const info: Command = defineCommand({
  name: "info",
  description: "Show what an image is",
  synopsis: [
    "[--image-opts | -f FMT] [-b] [-U] [--output human|json] [--object OBJECT] [--untrusted] FILENAME",
  ],
  options: {
    format: FORMAT,
    output: OUTPUT,
    chain: {
      short: "b",
      long: ["backing-chain"],
      help: ["show the image and all its backing files"],
    },
    forceShare: FORCE_SHARE,
    imageOpts: IMAGE_OPTS,
    objects: OBJECT,
    untrusted: UNTRUSTED,
  },
  operands: [{ name: "FILENAME", help: ["image to look at"] }],
  access: (_, [filename]) => ({ reads: [filename] }),
  async run(ctx) {
    const { format, output = "human", chain, forceShare } = ctx.options;
    const filename = onlyImage(ctx.operands);
    const images = await imageInfo(
      { filename, format, imageOptions: ctx.options.imageOpts },
      { chain, forceShare },
      environmentOf(ctx, ctx.options),
    );
    if (output === "human") {
      ctx.out(images.map((image) => imageLines(image, "").join("")).join("\n"));
    } else {
      const [top, ...below] = images.map(imageJson);
      ctx.json(chain ? [top!, ...below] : top!);
    }
    return 0;
  },
});

function imageJson(image: ImageInfo): JsonValue {
  const { details } = image;
  return {
    // Keys that share a place in the printed order come out last one first, so
    // the order here matters only for those.
    "virtual-size": image.virtualSize,
    filename: image.filename,
    "cluster-size": details?.clusterSize,
    format: image.format,
    "actual-size": image.actualSize,
    encrypted: details?.encrypted === true ? true : undefined,
    "dirty-flag": details?.dirty,
    "backing-filename": image.backingFilename,
    "full-backing-filename": image.fullBackingFilename,
    "backing-filename-format": image.backingFormat,
    snapshots: image.snapshots?.map(snapshotJson),
    "format-specific": details?.specific === undefined ? undefined : { ...details.specific },
    children: image.children.map(({ name, info }) => ({ name, info: imageJson(info) })),
  };
}

function snapshotJson(snapshot: SnapshotInfo): JsonValue {
  return {
    "vm-state-size": snapshot.vmStateSize,
    id: snapshot.id,
    name: snapshot.name,
    "date-sec": snapshot.dateSeconds,
    "date-nsec": snapshot.dateNanoseconds,
    "vm-clock-sec": snapshot.vmClock / NANOSECONDS,
    "vm-clock-nsec": snapshot.vmClock % NANOSECONDS,
    icount: snapshot.icount,
  };
}

const INDENT = "    ";

/** The lines of one image or node, each with its newline. `path` is that of a child node. */
function imageLines(image: ImageInfo, indent: string, path = ""): string[] {
  const { details, actualSize, backingFilename, backingFormat } = image;
  // A node at the bottom of a tree is a file rather than an image.
  const isProtocol = path !== "" && image.children.length === 0;
  const facts: (readonly [label: string, value: string | undefined])[] = [
    [isProtocol ? "filename" : "image", image.filename],
    [isProtocol ? "protocol type" : "file format", image.format],
    [
      isProtocol ? "file length" : "virtual size",
      `${humanSize(image.virtualSize)} (${image.virtualSize} bytes)`,
    ],
    ["disk size", actualSize === undefined ? "unavailable" : humanSize(actualSize)],
    ["encrypted", details?.encrypted === true ? "yes" : undefined],
    ["cluster_size", details?.clusterSize?.toString()],
    ["cleanly shut down", details?.dirty === true ? "no" : undefined],
    [
      "backing file",
      backingFilename === undefined
        ? undefined
        : backingFilename + actualPathNote(backingFilename, image.fullBackingFilename),
    ],
    ["backing file format", backingFormat],
  ];
  const lines = facts
    .filter(([, value]) => value !== undefined)
    .map(([label, value]) => `${indent}${label}: ${value}\n`);
  for (const line of snapshotTable(image.snapshots ?? []).match(/.*\n/g) ?? []) {
    lines.push(indent + line);
  }
  const specific = dictionaryLines(details?.specific?.data ?? {}, indent + INDENT);
  if (specific.length > 0) lines.push(`${indent}Format specific information:\n`, ...specific);
  for (const { name, info } of image.children) {
    const childPath = `${path}/${name}`;
    lines.push(`${indent}Child node '${childPath}':\n`);
    lines.push(...imageLines(info, indent + INDENT, childPath));
  }
  return lines;
}

function actualPathNote(stored: string, resolved: string | undefined): string {
  if (resolved === undefined) return " (cannot determine actual path)";
  return resolved === stored ? "" : ` (actual path: ${resolved})`;
}

function dictionaryLines(data: { readonly [key: string]: InfoValue }, indent: string): string[] {
  return hashOrder(Object.keys(data)).flatMap((key) =>
    valueLines(key.replaceAll("-", " "), data[key]!, indent)
  );
}

function valueLines(label: string, value: InfoValue, indent: string): string[] {
  if (typeof value !== "object") return [`${indent}${label}: ${value}\n`];
  const inner = indent + INDENT;
  const lines = isList(value)
    ? value.flatMap((item, i) => valueLines(`[${i}]`, item, inner))
    : dictionaryLines(value, inner);
  return [`${indent}${label}:\n`, ...lines];
}

// `Array.isArray` does not narrow a readonly array out of a union.
function isList(value: object): value is readonly InfoValue[] {
  return Array.isArray(value);
}
