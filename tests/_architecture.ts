/**
 * The rules of the house as functions from source texts to complaints, so that
 * a test can show each of them finding fault before they are let loose on the
 * project itself.
 */

import { dirname, join } from "@std/path";

/** Source texts by path within the project (`lib/io/errno.ts`). */
export type Sources = ReadonlyMap<string, string>;

/** One place where a module names another. */
export interface Reference {
  /** The module named, as written; `undefined` where it is not a plain string. */
  readonly specifier: string | undefined;
  /**
   * `static` is loaded with the module, `type` never, `dynamic` when the code
   * gets there, `worker` (`new URL("./x.ts", import.meta.url)` and
   * `import.meta.resolve`) by whoever uses the address.
   */
  readonly kind: "static" | "type" | "dynamic" | "worker";
}

/** What the rules need to know of one module. */
export interface Module {
  /** Path within the project. */
  readonly path: string;
  /** Every reference to another module. */
  readonly references: readonly Reference[];
  /** Every string that the code can compare or look up with: literals, names of properties. */
  readonly words: ReadonlySet<string>;
}

/** The modules of a project by path. */
export type Project = ReadonlyMap<string, Module>;

/** Parses all sources. */
export function parseProject(sources: Sources): Project {
  return new Map([...sources].map(([path, source]) => [path, parseModule(path, source)]));
}

/** Reads one module with Deno's own parser. */
export function parseModule(path: string, source: string): Module {
  const references: Reference[] = [];
  const words = new Set<string>();
  const refer = (kind: Reference["kind"], node: { type: string; value?: unknown } | undefined) => {
    const specifier = typeof node?.value === "string" ? node.value : undefined;
    references.push({ specifier, kind });
  };
  const declaration = (kind: "value" | "type") => kind === "type" ? "type" : "static";
  const visitor: Deno.lint.LintVisitor = {
    ImportDeclaration(node) {
      // `import { type A, type B }` loads the module, unlike `import type { A, B }`.
      refer(declaration(node.importKind), node.source);
    },
    ExportAllDeclaration(node) {
      refer(declaration(node.exportKind), node.source);
    },
    ExportNamedDeclaration(node) {
      if (node.source !== null) refer(declaration(node.exportKind), node.source);
    },
    ImportExpression(node) {
      refer("dynamic", node.source);
    },
    TSImportType(node) {
      const argument = node.argument;
      refer("type", argument.type === "TSLiteralType" ? argument.literal : argument);
    },
    NewExpression(node) {
      const [name, base] = node.arguments;
      if (isName(node.callee, "URL") && base !== undefined && isImportMeta(base, "url")) {
        refer("worker", name);
      }
    },
    CallExpression(node) {
      if (isImportMeta(node.callee, "resolve")) refer("worker", node.arguments[0]);
    },
    Literal(node) {
      if (typeof node.value === "string") words.add(node.value);
    },
    TemplateElement(node) {
      words.add(node.cooked);
    },
    Property(node) {
      if (!node.computed && node.key.type === "Identifier") words.add(node.key.name);
    },
    MemberExpression(node) {
      if (!node.computed && node.property.type === "Identifier") words.add(node.property.name);
    },
  };
  const plugin: Deno.lint.Plugin = {
    name: "architecture",
    rules: { read: { create: () => visitor } },
  };
  Deno.lint.runPlugin(plugin, path, source);
  return { path, references, words };
}

function isName(node: { type: string }, name: string): boolean {
  return node.type === "Identifier" && (node as Deno.lint.Identifier).name === name;
}

function isImportMeta(node: { type: string }, property: string): boolean {
  if (node.type !== "MemberExpression") return false;
  const member = node as Deno.lint.MemberExpression;
  return member.object.type === "MetaProperty" && isName(member.property, property);
}

/** The floors from the top down; a module may refer to its own floor and to those below. */
const FLOORS: readonly (readonly string[])[] = [
  ["main.ts"],
  ["lib/cli/"],
  ["lib/commands/"],
  ["lib/mod.ts"],
  ["lib/ops/"],
  ["lib/graph/"],
  ["drivers/"],
  ["lib/block/"],
  ["lib/io/", "lib/codec/", "lib/crypto/", "lib/bytes/", "lib/nbd/"],
  // Not code: name and version.
  ["deno.json"],
];

/** 0 for the ground, more the higher, `undefined` outside the house. */
export function floorOf(path: string): number | undefined {
  const index = FLOORS.findIndex((rooms) =>
    rooms.some((room) => room.endsWith("/") ? path.startsWith(room) : path === room)
  );
  return index < 0 ? undefined : FLOORS.length - 1 - index;
}

const DRIVERS_FLOOR = floorOf("drivers/")!;

/** The path within the project that a relative specifier leads to. */
function resolve(from: string, specifier: string): string {
  return join(dirname(from), specifier).replaceAll("\\", "/");
}

const isRelative = (specifier: string) => /^\.\.?\//.test(specifier);

/** Program modules that lie on no floor. */
export function checkPlaces(project: Project): string[] {
  return [...project.keys()]
    .filter((path) => /^(lib|drivers)\//.test(path) && floorOf(path) === undefined)
    .map((path) => `${path} is on no floor`);
}

/** References that lead upwards, out of the house, or to a file that is not there. */
export function checkFloors(project: Project): string[] {
  const complaints: string[] = [];
  for (const { path, references } of project.values()) {
    const floor = floorOf(path);
    if (floor === undefined) continue;
    for (const { specifier } of references) {
      if (specifier === undefined || !isRelative(specifier)) continue;
      const target = resolve(path, specifier);
      const targetFloor = floorOf(target);
      if (targetFloor === undefined) {
        complaints.push(`${path} refers to ${target}, which is outside the house`);
      } else if (targetFloor > floor) {
        complaints.push(`${path} refers upwards to ${target}`);
      } else if (target.endsWith(".ts") && !project.has(target)) {
        complaints.push(`${path} refers to ${target}, which does not exist`);
      }
    }
  }
  return complaints;
}

/**
 * Modules that reach themselves, one complaint a cycle found. Types that
 * describe each other may do so within a folder, for no program ever runs in
 * that circle; between folders they may not either.
 */
export function checkCycles(project: Project): string[] {
  const complaints: string[] = [];
  const done = new Set<string>();
  const trail: string[] = [];
  const visit = (path: string) => {
    const start = trail.indexOf(path);
    if (start >= 0) {
      complaints.push([...trail.slice(start), path].join(" → "));
      return;
    }
    if (done.has(path)) return;
    trail.push(path);
    for (const { specifier, kind } of project.get(path)?.references ?? []) {
      if (specifier === undefined || !isRelative(specifier)) continue;
      const target = resolve(path, specifier);
      if (kind !== "type" || dirname(target) !== dirname(path)) visit(target);
    }
    trail.pop();
    done.add(path);
  };
  for (const path of project.keys()) visit(path);
  return complaints;
}

/** Who may import what beside relative modules. */
function mayImport(path: string, { specifier, kind }: Reference): boolean {
  if (specifier === undefined) return false;
  if (isRelative(specifier) || specifier.startsWith("node:")) return true;
  if (specifier.startsWith("npm:")) return path.startsWith("lib/codec/") && kind === "dynamic";
  if (specifier.startsWith("@std/")) {
    return !/^(lib|drivers)\//.test(path) || /^lib\/(cli|commands)\//.test(path);
  }
  return false;
}

/** Imports of anything but what a folder may import; specifiers that cannot be read count too. */
export function checkImports(project: Project): string[] {
  const complaints: string[] = [];
  for (const { path, references } of project.values()) {
    for (const reference of references) {
      // Tests and benchmarks load files that they have made, and read some.
      const computed = reference.specifier === undefined || reference.kind === "worker";
      if (computed && floorOf(path) === undefined) continue;
      if (mayImport(path, reference)) continue;
      const { specifier = "something computed", kind } = reference;
      complaints.push(`${path}: ${kind} reference to ${specifier}`);
    }
  }
  return complaints;
}

/** `node:` modules that are loaded together with one of `roots`, by the way that leads there. */
export function checkStart(project: Project, roots: readonly string[]): string[] {
  const complaints: string[] = [];
  for (const root of roots) {
    const seen = new Set<string>();
    const visit = (path: string, trail: readonly string[]) => {
      if (seen.has(path)) return;
      seen.add(path);
      for (const { specifier, kind } of project.get(path)?.references ?? []) {
        if (specifier === undefined || kind !== "static") continue;
        if (specifier.startsWith("node:")) {
          complaints.push([...trail, path, specifier].join(" → "));
        } else if (isRelative(specifier)) {
          visit(resolve(path, specifier), [...trail, path]);
        }
      }
    };
    visit(root, []);
  }
  return complaints;
}

/**
 * Modules reached from `root`, at once or later, that need the import map or a
 * package registry: the program could not be run by its address, nor offline,
 * and a compiled one would carry the whole package.
 */
export function checkPackages(project: Project, root: string): string[] {
  const complaints: string[] = [];
  const seen = new Set<string>();
  const visit = (path: string) => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const { specifier, kind } of project.get(path)?.references ?? []) {
      if (specifier === undefined || kind === "type") continue;
      if (isRelative(specifier)) visit(resolve(path, specifier));
      else if (!specifier.startsWith("node:")) complaints.push(`${path} → ${specifier}`);
    }
  };
  visit(root);
  return complaints;
}

/** The names of image formats, which nobody above the drivers may know. */
export const FORMAT_NAMES: readonly string[] = [
  "bochs",
  "cloop",
  "dmg",
  "luks",
  "parallels",
  "qcow",
  "qcow2",
  "qed",
  "raw",
  "vdi",
  "vhdx",
  "vmdk",
  "vpc",
];

/** Where a format's name may stand above the drivers: `path: name` and the reason. */
export type Allowances = Readonly<Record<string, string>>;

/** Format names in code above the drivers, and allowances that nothing needs any more. */
export function checkFormatNames(project: Project, allowed: Allowances): string[] {
  const complaints: string[] = [];
  const used = new Set<string>();
  for (const { path, words } of project.values()) {
    if ((floorOf(path) ?? 0) <= DRIVERS_FLOOR) continue;
    for (const name of FORMAT_NAMES) {
      if (!words.has(name)) continue;
      const place = `${path}: ${name}`;
      if (Object.hasOwn(allowed, place)) used.add(place);
      else complaints.push(`${path} knows of "${name}"`);
    }
  }
  for (const place of Object.keys(allowed)) {
    if (!used.has(place)) complaints.push(`allowance without use: ${place}`);
  }
  return complaints;
}

/** What the top level consists of. */
const TOP_LEVEL: readonly string[] = [
  ".ci",
  ".github",
  ".gitignore",
  "LICENSE",
  "README.md",
  "bench",
  "deno.json",
  "deno.lock",
  "drivers",
  "lib",
  "main.ts",
  "tests",
];

/** Names at the top level that do not belong there, and those that are missing. */
export function checkTopLevel(names: Iterable<string>): string[] {
  const present = new Set(names);
  return [
    ...[...present].filter((name) => !TOP_LEVEL.includes(name)).map((name) =>
      `${name} is too much`
    ),
    ...TOP_LEVEL.filter((name) => !present.has(name)).map((name) => `${name} is missing`),
  ];
}

/** Modules whose names are not in snake case. */
export function checkFileNames(paths: Iterable<string>): string[] {
  return [...paths]
    .filter((path) => !/^([._]?[a-z0-9_]+\/)*_?[a-z0-9][a-z0-9_]*(\.d)?\.ts$/.test(path))
    .map((path) => `${path} is not in snake case`);
}
