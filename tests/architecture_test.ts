import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import {
  type Allowances,
  checkCycles,
  checkFileNames,
  checkFloors,
  checkFormatNames,
  checkImports,
  checkPackages,
  checkPlaces,
  checkStart,
  checkTopLevel,
  floorOf,
  parseModule,
  parseProject,
  type Sources,
} from "./_architecture.ts";

const ROOT = fromFileUrl(new URL("../", import.meta.url));

/** What git would keep of the top level: `.gitignore` names the rest. */
async function topLevel(): Promise<string[]> {
  const ignored = new Set(
    (await Deno.readTextFile(join(ROOT, ".gitignore"))).split("\n").map((line) =>
      line.replace(/^\/|\/$/g, "")
    ),
  );
  const names: string[] = [];
  for await (const { name } of Deno.readDir(ROOT)) {
    if (name !== ".git" && !ignored.has(name)) names.push(name);
  }
  return names;
}

async function readSources(): Promise<Sources> {
  const sources = new Map<string, string>();
  const read = async (path: string) => {
    sources.set(path, await Deno.readTextFile(join(ROOT, path)));
  };
  const walk = async (folder: string) => {
    for await (const entry of Deno.readDir(join(ROOT, folder))) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory) await walk(path);
      else if (entry.name.endsWith(".ts")) await read(path);
    }
  };
  await read("main.ts");
  for (const folder of ["lib", "drivers", "tests", "bench", ".ci"]) await walk(folder);
  return sources;
}

const project = parseProject(await readSources());

/** A project of a few lines. */
function sample(sources: Record<string, string>) {
  return parseProject(new Map(Object.entries(sources)));
}

/**
 * Where code above the drivers may name a format. The user chooses formats;
 * what is left are defaults that the command line itself defines.
 */
const FORMAT_NAMES_ALLOWED: Allowances = {
  "lib/commands/_objects.ts: raw": "how the data of a secret are written: raw or base64",
  "lib/commands/_secret.ts: raw": "the same",
};

Deno.test("the parser sees every way to name a module", () => {
  const { references } = parseModule(
    "lib/a.ts",
    `
    import type { A } from "./type.ts";
    import { type B, c } from "./static.ts";
    import "./effect.ts";
    export { d } from "./named.ts";
    export type { E } from "./named_type.ts";
    export * from "./all.ts";
    type F = import("./import_type.ts").F;
    const g = await import("./dynamic.ts");
    const h = await import(c);
    new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    import.meta.resolve("./resolved.ts");
    // import "./comment.ts";
    const text = 'import "./text.ts"';
    new URL("./elsewhere.ts", "file:///");
    `,
  );
  assertEquals(references, [
    { specifier: "./type.ts", kind: "type" },
    { specifier: "./static.ts", kind: "static" },
    { specifier: "./effect.ts", kind: "static" },
    { specifier: "./named.ts", kind: "static" },
    { specifier: "./named_type.ts", kind: "type" },
    { specifier: "./all.ts", kind: "static" },
    { specifier: "./import_type.ts", kind: "type" },
    { specifier: "./dynamic.ts", kind: "dynamic" },
    { specifier: undefined, kind: "dynamic" },
    { specifier: "./worker.ts", kind: "worker" },
    { specifier: "./resolved.ts", kind: "worker" },
  ]);
});

Deno.test("a module on no floor is found", () => {
  assertEquals(checkPlaces(sample({ "lib/util/a.ts": "", "drivers/a.ts": "", "bench/a.ts": "" })), [
    "lib/util/a.ts is on no floor",
  ]);
});

Deno.test("every module of lib and drivers is on a floor", () => {
  assertEquals(checkPlaces(project), []);
});

for (
  const [kind, source] of Object.entries({
    "import": `import { a } from "../ops/a.ts"; a();`,
    "import type": `import type { A } from "../ops/a.ts"; export type B = A;`,
    "export from": `export { a } from "../ops/a.ts";`,
    "dynamic import": `await import("../ops/a.ts");`,
    "worker": `new Worker(new URL("../ops/a.ts", import.meta.url), { type: "module" });`,
  })
) {
  Deno.test(`a reference upwards is found: ${kind}`, () => {
    const project = sample({ "lib/graph/b.ts": source, "lib/ops/a.ts": "export type A = 1;" });
    assertEquals(checkFloors(project), ["lib/graph/b.ts refers upwards to lib/ops/a.ts"]);
  });
}

Deno.test("references to the same floor and downwards are fine", () => {
  assertEquals(
    checkFloors(sample({
      "main.ts": `import "./lib/cli/run.ts";`,
      "lib/cli/run.ts": `import "../commands/info.ts"; import "../../deno.json";`,
      "lib/commands/info.ts": `import "../ops/info.ts"; import "./map.ts";`,
      "lib/commands/map.ts": "",
      "lib/ops/info.ts": `import "../../drivers/mod.ts";`,
      "drivers/mod.ts": `import "../lib/block/node.ts"; import "../lib/io/errno.ts";`,
      "lib/block/node.ts": `import "../bytes/align.ts";`,
      "lib/bytes/align.ts": "",
      "lib/io/errno.ts": `import "../bytes/align.ts";`,
    })),
    [],
  );
});

Deno.test("references out of the house and into the void are found", () => {
  assertEquals(
    checkFloors(sample({
      "lib/io/a.ts": `import "../../tests/_temp.ts"; import "./gone.ts";`,
    })),
    [
      "lib/io/a.ts refers to tests/_temp.ts, which is outside the house",
      "lib/io/a.ts refers to lib/io/gone.ts, which does not exist",
    ],
  );
});

Deno.test("references lead downwards only", () => {
  assertEquals(checkFloors(project), []);
});

Deno.test("a cycle is found, types and lazy imports included", () => {
  assertEquals(
    checkCycles(sample({
      "lib/io/a.ts": `import type { B } from "../bytes/b.ts";`,
      "lib/bytes/b.ts": `await import("../bytes/c.ts");`,
      "lib/bytes/c.ts": `export * from "../io/a.ts";`,
      "lib/bytes/d.ts": `import "../io/a.ts";`,
    })),
    ["lib/io/a.ts → lib/bytes/b.ts → lib/bytes/c.ts → lib/io/a.ts"],
  );
});

Deno.test("types of one folder may describe each other, values may not need each other", () => {
  const types = { "lib/io/a.ts": `import type { B } from "./b.ts";` };
  assertEquals(
    checkCycles(sample({ ...types, "lib/io/b.ts": `import { a } from "./a.ts"; a();` })),
    [],
  );
  assertEquals(
    checkCycles(sample({
      "lib/io/a.ts": `import { b } from "./b.ts"; b();`,
      "lib/io/b.ts": `await import("./a.ts");`,
    })),
    ["lib/io/a.ts → lib/io/b.ts → lib/io/a.ts"],
  );
});

Deno.test("there are no cycles", () => {
  assertEquals(checkCycles(project), []);
});

Deno.test("imports from outside are found where they may not be", () => {
  assertEquals(
    checkImports(sample({
      "lib/ops/a.ts": `import "@std/path"; import "node:zlib"; import "jsr:@std/path";`,
      "lib/cli/b.ts": `import "@std/fmt/colors"; import "https://example.com/x.ts";`,
      "lib/codec/c.ts": `await import("npm:bzip2@1"); import "npm:bzip2@1";`,
      "lib/io/d.ts": `await import("npm:bzip2@1");`,
      "drivers/e.ts": `const name = "./f.ts"; await import(name);`,
      "tests/g_test.ts": `import "@std/assert"; const name = "./f.ts"; await import(name);`,
    })),
    [
      "lib/ops/a.ts: static reference to @std/path",
      "lib/ops/a.ts: static reference to jsr:@std/path",
      "lib/cli/b.ts: static reference to https://example.com/x.ts",
      "lib/codec/c.ts: static reference to npm:bzip2@1",
      "lib/io/d.ts: dynamic reference to npm:bzip2@1",
      "drivers/e.ts: dynamic reference to something computed",
    ],
  );
});

Deno.test("the library imports relative modules and built-ins alone", () => {
  assertEquals(checkImports(project), []);
});

Deno.test("a node: module in the way of a quick start is found", () => {
  const project = sample({
    "main.ts": `import "./lib/cli/run.ts"; import type { Z } from "./lib/io/types.ts";`,
    "lib/cli/run.ts": `import "../bytes/a.ts"; await import("../io/lazy.ts");`,
    "lib/bytes/a.ts": `import { Buffer } from "node:buffer";`,
    "lib/io/lazy.ts": `import "node:zlib";`,
    "lib/io/types.ts": `import "node:fs";`,
  });
  assertEquals(checkStart(project, ["main.ts"]), [
    "main.ts → lib/cli/run.ts → lib/bytes/a.ts → node:buffer",
  ]);
});

Deno.test("starting a command loads no node: module", () => {
  const commands = [...project.keys()].filter((path) => path.startsWith("lib/commands/"));
  const drivers = (project.get("drivers/mod.ts")?.references ?? [])
    .filter(({ kind }) => kind === "dynamic")
    .map(({ specifier }) => join("drivers", specifier ?? ""));
  assert(commands.length > 0);
  assert(drivers.length > 0);
  assertEquals(checkStart(project, ["main.ts", ...commands, ...drivers]), []);
});

Deno.test("a package that the program would need is found, however lazily", () => {
  const project = sample({
    "main.ts": `await import("./lib/cli/run.ts");`,
    "lib/cli/run.ts": `import { bold } from "@std/fmt/colors"; import "./b.ts";`,
    "lib/cli/b.ts": `import type { A } from "@std/path";`,
    "tests/a_test.ts": `import "@std/assert";`,
  });
  assertEquals(checkPackages(project, "main.ts"), ["lib/cli/run.ts → @std/fmt/colors"]);
});

Deno.test("the program starts from anywhere: it needs no package and no import map", () => {
  assertEquals(checkPackages(project, "main.ts"), []);
});

Deno.test("format names above the drivers are found in whatever form", () => {
  assertEquals(
    checkFormatNames(
      sample({
        "lib/ops/a.ts": `if (node.driver === "qcow2") throw 0;`,
        "lib/graph/b.ts": "const t = { vmdk: 1 }; t[`vdi`];",
        "lib/commands/c.ts": "table.vhdx();",
        "lib/cli/d.ts": `const format = "raw";`,
        "lib/ops/e.ts": `/** A "qcow2" image. */ const help = "as in qcow2 images";`,
        "drivers/qcow2/f.ts": `const name = "qcow2";`,
      }),
      { "lib/cli/d.ts: raw": "a default", "lib/cli/d.ts: qed": "no longer true" },
    ),
    [
      `lib/ops/a.ts knows of "qcow2"`,
      `lib/graph/b.ts knows of "vdi"`,
      `lib/graph/b.ts knows of "vmdk"`,
      `lib/commands/c.ts knows of "vhdx"`,
      "allowance without use: lib/cli/d.ts: qed",
    ],
  );
});

Deno.test("nobody above the drivers knows a format by name", () => {
  assertEquals(checkFormatNames(project, FORMAT_NAMES_ALLOWED), []);
});

Deno.test("strangers and gaps at the top level are found", async () => {
  const names = await topLevel();
  assertEquals(checkTopLevel([...names, "package.json"]).at(0), "package.json is too much");
  assert(checkTopLevel(names.filter((name) => name !== "lib")).includes("lib is missing"));
});

Deno.test("the top level holds what it should and nothing else", async () => {
  assertEquals(checkTopLevel(await topLevel()), []);
});

Deno.test("a file name that is not in snake case is found", () => {
  assertEquals(
    checkFileNames(["lib/io/hostFile.ts", "lib/io/_a_1.ts", ".ci/compile.ts", "lib/io/a-b.ts"]),
    ["lib/io/hostFile.ts is not in snake case", "lib/io/a-b.ts is not in snake case"],
  );
});

Deno.test("file names are in snake case", () => {
  assertEquals(checkFileNames(project.keys()), []);
});

Deno.test("the floors are in the order of the design", () => {
  const floors = [
    "main.ts",
    "lib/cli/a.ts",
    "lib/commands/a.ts",
    "lib/ops/a.ts",
    "lib/graph/a.ts",
    "drivers/a.ts",
    "lib/block/a.ts",
    "lib/io/a.ts",
  ].map((path) => floorOf(path) ?? -1);
  assertEquals(floors, [...floors].sort((a, b) => b - a));
  assertEquals(new Set(floors).size, floors.length);
});
