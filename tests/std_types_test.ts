import { assert, assertEquals } from "@std/assert";
import * as assertModule from "@std/assert";
import * as parseArgsModule from "@std/cli/parse-args";
import * as colorsModule from "@std/fmt/colors";
import * as pathModule from "@std/path";

/** `true` for `any`, which alone takes part in both branches of a check. */
type IsAny<T> = 0 extends 1 & T ? true : false;

// These lines do not type-check when a module loses its declarations.
const assertIsTyped: IsAny<typeof assertModule.assertEquals> = false;
const parseArgsIsTyped: IsAny<typeof parseArgsModule.parseArgs> = false;
const colorsIsTyped: IsAny<typeof colorsModule.bold> = false;
const pathIsTyped: IsAny<typeof pathModule.join> = false;

Deno.test("no @std module is any to the type checker", () => {
  assertEquals(
    [
      assertIsTyped,
      parseArgsIsTyped,
      colorsIsTyped,
      pathIsTyped,
    ],
    [false, false, false, false],
  );
  // @ts-expect-error: text is not a boolean; were it any, nobody would object.
  const enabled: boolean = colorsModule.bold("x");
  assertEquals(typeof enabled, "string");
});

Deno.test("every @std name that is declared exists in its module", async () => {
  const source = await Deno.readTextFile(
    new URL("./_std.d.ts", import.meta.url),
  );
  const modules: Record<string, Record<string, unknown>> = {
    "@std/assert": assertModule,
    "@std/cli/parse-args": parseArgsModule,
    "@std/fmt/colors": colorsModule,
    "@std/path": pathModule,
  };
  const declared = new Set<string>();
  for (const part of source.split(/^declare module /m).slice(1)) {
    const name = /^"([^"]+)"/.exec(part)?.[1] ?? "";
    declared.add(name);
    const module = modules[name];
    assert(module, `${name} is declared but not tested here`);
    for (
      const [, value] of part.matchAll(/export (?:function|class|const) (\w+)/g)
    ) {
      assert(value !== undefined && value in module, `${name}: no ${value}`);
    }
  }
  assertEquals(declared, new Set(Object.keys(modules)));
});
