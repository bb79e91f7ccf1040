/**
 * Scanning of a command line by the rules of GNU `getopt_long` (cli.md, 1).
 */

/** What the scanner has to know of an option; command tables are made of such. */
export interface ScanSpec {
  /** The letter of the short form. */
  readonly short?: string;
  /** The long forms, without dashes. */
  readonly long?: readonly string[];
  /** Present when the option takes a value. */
  readonly value?: string;
  /** The values that a flag accepts after an equals sign. */
  readonly attached?: readonly string[];
  /** The long forms cannot be abbreviated. */
  readonly exact?: boolean;
}

/** One thing found on a command line. */
export type ScanItem<S extends ScanSpec> =
  | { readonly kind: "option"; readonly spec: S; readonly value: string | undefined }
  | {
    readonly kind: "operand";
    readonly text: string;
    /** It stands behind `--`. */
    readonly literal: boolean;
  };

/** How operands are treated. */
export interface ScanRules {
  /** The first operand ends the scan: it and all that follows are operands. */
  readonly stopAtOperand?: boolean;
  /** A word of a dash and a digit directly behind the first operand is an operand. */
  readonly negativeOperand?: boolean;
}

/** A word that no option of the command explains. The message has no prefix. */
export class ScanError extends Error {
  /** The class as shown in a stack trace. */
  override name = "ScanError";
}

/**
 * Yields options and operands in the order in which they stand. Nothing behind
 * an item is looked at before the next one is asked for, so that whoever reads
 * the items can stop at the first one that it refuses.
 *
 * @throws {ScanError} in the words of the reference.
 */
export function* scan<S extends ScanSpec>(
  args: readonly string[],
  specs: readonly S[],
  rules: ScanRules = {},
): Generator<ScanItem<S>> {
  let firstOperand: number | undefined;
  for (let i = 0; i < args.length; i++) {
    const word = args[i]!;
    if (word === "--") {
      yield* operands(args.slice(i + 1));
      return;
    }
    const followsFirst = firstOperand !== undefined && i === firstOperand + 1;
    const negative = rules.negativeOperand === true && followsFirst && /^-[0-9]/.test(word);
    if (!word.startsWith("-") || word === "-" || negative) {
      if (rules.stopAtOperand) {
        yield* operands(args.slice(i));
        return;
      }
      firstOperand ??= i;
      yield { kind: "operand", text: word, literal: false };
    } else if (word.startsWith("--")) {
      const option = scanLong(word, args[i + 1], specs);
      if (option.usedNext) i++;
      yield option.item;
    } else {
      // Flags may share a dash; an option with a value takes the rest of the word.
      for (let at = 1; at < word.length; at++) {
        const letter = String.fromCodePoint(word.codePointAt(at)!);
        const spec = specs.find((spec) => spec.short === letter);
        if (spec === undefined) throw new ScanError(`invalid option -- '${letter}'`);
        if (spec.value === undefined) {
          yield { kind: "option", spec, value: undefined };
          continue;
        }
        const value = at + 1 < word.length ? word.slice(at + 1) : args[++i];
        if (value === undefined) {
          throw new ScanError(`option requires an argument -- '${letter}'`);
        }
        yield { kind: "option", spec, value };
        break;
      }
    }
  }
}

function* operands(words: readonly string[]): Generator<ScanItem<never>> {
  for (const text of words) yield { kind: "operand", text, literal: true };
}

function scanLong<S extends ScanSpec>(
  word: string,
  next: string | undefined,
  specs: readonly S[],
): { readonly item: ScanItem<S>; readonly usedNext: boolean } {
  const equals = word.indexOf("=");
  const typed = equals < 0 ? word.slice(2) : word.slice(2, equals);
  const attached = equals < 0 ? undefined : word.slice(equals + 1);
  const { spec, name } = findLong(typed, word, specs);
  if (spec.value === undefined) {
    if (attached !== undefined && !spec.attached?.includes(attached)) {
      throw new ScanError(`option '--${name}' doesn't allow an argument`);
    }
    return { item: { kind: "option", spec, value: attached }, usedNext: false };
  }
  const value = attached ?? next;
  if (value === undefined) throw new ScanError(`option '--${name}' requires an argument`);
  return { item: { kind: "option", spec, value }, usedNext: attached === undefined };
}

/** The option that a long name or a prefix of it selects. */
function findLong<S extends ScanSpec>(
  typed: string,
  word: string,
  specs: readonly S[],
): { readonly spec: S; readonly name: string } {
  const candidates: { spec: S; name: string }[] = [];
  for (const spec of specs) {
    for (const name of spec.long ?? []) {
      if (name === typed) return { spec, name };
      if (!spec.exact && name.startsWith(typed)) candidates.push({ spec, name });
    }
  }
  const [first, ...others] = candidates;
  if (first === undefined) throw new ScanError(`unrecognized option '${word}'`);
  // Two names of one option do not compete.
  const rivals = others.filter(({ spec }) => spec !== first.spec);
  if (rivals.length > 0) {
    const names = [first, ...rivals].map(({ name }) => `'--${name}'`).join(" ");
    throw new ScanError(`option '${word}' is ambiguous; possibilities: ${names}`);
  }
  return first;
}
