/**
 * Types of the @std modules that tests, benchmarks and builds use; the program
 * itself does without, so that it starts from anywhere and embeds nothing.
 *
 * `deno.json` maps `@std/…` to an npm build of the Deno standard library that
 * is plain JavaScript; without these declarations every import of it would be
 * `any`, silently. The signatures are those of @std 1.x, narrowed to what is
 * used here. `tests/std_types_test.ts` holds them against the modules.
 */

declare module "@std/assert" {
  // deno-lint-ignore no-explicit-any
  type AnyConstructor = abstract new (...args: any[]) => unknown;
  // deno-lint-ignore no-explicit-any
  type ErrorConstructorOf<E extends Error> = abstract new (...args: any[]) => E;

  /** What every failed assertion throws. */
  export class AssertionError extends Error {
    constructor(message: string, options?: ErrorOptions);
  }
  export function assert(expr: unknown, msg?: string): asserts expr;
  export function assertFalse(
    expr: unknown,
    msg?: string,
  ): asserts expr is false | 0 | "" | null | undefined;
  export function assertAlmostEquals(
    actual: number,
    expected: number,
    tolerance?: number,
    msg?: string,
  ): void;
  export function assertArrayIncludes<T>(
    actual: ArrayLike<T>,
    expected: ArrayLike<T>,
    msg?: string,
  ): void;
  export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
  export function assertNotEquals<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertStrictEquals<T>(
    actual: unknown,
    expected: T,
    msg?: string,
  ): asserts actual is T;
  export function assertNotStrictEquals<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertExists<T>(
    actual: T,
    msg?: string,
  ): asserts actual is NonNullable<T>;
  export function assertGreater<T>(actual: T, expected: T, msg?: string): void;
  export function assertGreaterOrEqual<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertLess<T>(actual: T, expected: T, msg?: string): void;
  export function assertLessOrEqual<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertInstanceOf<T extends AnyConstructor>(
    actual: unknown,
    expectedType: T,
    msg?: string,
  ): asserts actual is InstanceType<T>;
  export function assertIsError<E extends Error = Error>(
    error: unknown,
    ErrorClass?: ErrorConstructorOf<E>,
    msgMatches?: string | RegExp,
    msg?: string,
  ): asserts error is E;
  export function assertMatch(
    actual: string,
    expected: RegExp,
    msg?: string,
  ): void;
  export function assertNotMatch(
    actual: string,
    expected: RegExp,
    msg?: string,
  ): void;
  export function assertObjectMatch(
    // deno-lint-ignore no-explicit-any
    actual: Record<PropertyKey, any>,
    expected: Record<PropertyKey, unknown>,
    msg?: string,
  ): void;
  export function assertStringIncludes(
    actual: string,
    expected: string,
    msg?: string,
  ): void;
  export function assertThrows(fn: () => unknown, msg?: string): unknown;
  export function assertThrows<E extends Error = Error>(
    fn: () => unknown,
    ErrorClass: ErrorConstructorOf<E>,
    msgIncludes?: string,
    msg?: string,
  ): E;
  export function assertRejects(
    fn: () => PromiseLike<unknown>,
    msg?: string,
  ): Promise<unknown>;
  export function assertRejects<E extends Error = Error>(
    fn: () => PromiseLike<unknown>,
    ErrorClass: ErrorConstructorOf<E>,
    msgIncludes?: string,
    msg?: string,
  ): Promise<E>;
  export function equal(a: unknown, b: unknown): boolean;
  export function fail(msg?: string): never;
  export function unimplemented(msg?: string): never;
  export function unreachable(reason?: string): never;
}

declare module "@std/cli/parse-args" {
  /** What to make of which option. */
  export interface ParseOptions {
    boolean?: readonly string[];
    string?: readonly string[];
    collect?: readonly string[];
    alias?: Readonly<Record<string, string | readonly string[]>>;
    default?: Readonly<Record<string, unknown>>;
    stopEarly?: boolean;
    "--"?: boolean;
    unknown?: (arg: string, key?: string, value?: unknown) => unknown;
  }
  /** `_` has the operands; every option is under its name. */
  export function parseArgs(
    args: readonly string[],
    options?: ParseOptions,
  ): { _: (string | number)[]; [option: string]: unknown };
}

declare module "@std/fmt/colors" {
  export function setColorEnabled(value: boolean): void;
  export function getColorEnabled(): boolean;
  export function bold(str: string): string;
  export function dim(str: string): string;
  export function red(str: string): string;
  export function green(str: string): string;
  export function yellow(str: string): string;
  export function blue(str: string): string;
  export function cyan(str: string): string;
  export function gray(str: string): string;
  export function stripAnsiCode(string: string): string;
}

declare module "@std/path" {
  export const SEPARATOR: "/" | "\\";
  export function basename(path: string | URL, suffix?: string): string;
  export function dirname(path: string | URL): string;
  export function extname(path: string | URL): string;
  export function fromFileUrl(url: string | URL): string;
  export function isAbsolute(path: string): boolean;
  export function join(path?: string | URL, ...paths: string[]): string;
  export function normalize(path: string | URL): string;
  export function relative(from: string, to: string): string;
  export function resolve(...pathSegments: string[]): string;
  export function toFileUrl(path: string): URL;
}
