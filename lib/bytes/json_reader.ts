/**
 * Reading JSON as `qemu-img` does (cli.md, 3.3): strings may also stand in single quotes, integers keep all
 * their digits, and errors come in the reference's words. What is given up on is bounded like there.
 *
 * @module
 */

/**
 * What {@linkcode readJson} reads. An integer is a `bigint` if 64 bits hold it, and a `number` like all
 * others if not; an object keeps the order of its keys.
 */
export type JsonData =
  | null
  | boolean
  | bigint
  | number
  | string
  | readonly JsonData[]
  | JsonObject;

/** A JSON object. */
export type JsonObject = ReadonlyMap<string, JsonData>;

/** Levels of arrays and objects within each other. */
const MAX_NESTING = 1024;
/** Words, numbers, strings and punctuation marks. */
const MAX_TOKENS = 2 << 20;
/** Characters of a text; the reference counts bytes, which are no fewer. */
const MAX_LENGTH = 64 << 20;

interface Token {
  readonly kind: "mark" | "keyword" | "integer" | "float" | "string";
  /** As it stands in the text, quotes included. */
  readonly text: string;
}

/**
 * Reads a text that holds one value.
 *
 * @throws {SyntaxError} `JSON parse error, …`, `Expecting a JSON value`, `Expecting at most one JSON value`,
 * `JSON … limit exceeded`
 */
export function readJson(text: string): JsonData {
  if (text.length > MAX_LENGTH) throw new SyntaxError("JSON token size limit exceeded");
  const scanner = new Scanner(text);
  const tokens: Token[] = [];
  let braces = 0;
  let brackets = 0;
  // The words up to where every bracket has its partner, or has none to expect any more.
  do {
    const token = scanner.next();
    if (token === undefined) {
      if (tokens.length === 0) throw new SyntaxError("Expecting a JSON value");
      break;
    }
    if (token.kind === "mark") {
      if (token.text === "{") braces++;
      if (token.text === "}") braces--;
      if (token.text === "[") brackets++;
      if (token.text === "]") brackets--;
    }
    if (tokens.length >= MAX_TOKENS) throw new SyntaxError("JSON token count limit exceeded");
    if (braces + brackets > MAX_NESTING) throw new SyntaxError("JSON nesting depth limit exceeded");
    tokens.push(token);
  } while ((braces > 0 || brackets > 0) && braces >= 0 && brackets >= 0);
  const value = new Parser(tokens).value();
  if (!scanner.atEnd()) throw new SyntaxError("Expecting at most one JSON value");
  return value;
}

function failure(reason: string): SyntaxError {
  return new SyntaxError(`JSON parse error, ${reason}`);
}

const isDigit = (char: string | undefined) => char !== undefined && char >= "0" && char <= "9";
const isLetter = (char: string | undefined) => char !== undefined && char >= "a" && char <= "z";

/** Takes a text apart. */
class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** Whether nothing but blanks is left. */
  atEnd(): boolean {
    while (" \t\r\n".includes(this.#text[this.#at] ?? "x")) this.#at++;
    return this.#at >= this.#text.length;
  }

  /** The next token, `undefined` at the end. Throws for what none begins with. */
  next(): Token | undefined {
    if (this.atEnd()) return undefined;
    const text = this.#text;
    const start = this.#at;
    const first = text[start]!;
    if ("{}[],:".includes(first)) {
      this.#at++;
      return { kind: "mark", text: first };
    }
    if (first === '"' || first === "'") return this.#string(first);
    if (isLetter(first)) {
      while (isLetter(text[this.#at])) this.#at++;
      return { kind: "keyword", text: text.slice(start, this.#at) };
    }
    if (first === "-" || isDigit(first)) return this.#number();
    throw this.#stray(start, start + 1);
  }

  #string(quote: string): Token {
    const text = this.#text;
    const start = this.#at;
    for (let at = start + 1; at < text.length; at++) {
      if (text[at]! < " ") throw this.#stray(start, at + 1);
      if (text[at] === quote) {
        this.#at = at + 1;
        return { kind: "string", text: text.slice(start, this.#at) };
      }
      if (text[at] !== "\\") continue;
      at++;
      if (at < text.length && text[at]! < " ") throw this.#stray(start, at + 1);
    }
    throw this.#stray(start, text.length);
  }

  #number(): Token {
    const text = this.#text;
    const start = this.#at;
    let at = start;
    const digits = () => {
      if (!isDigit(text[at])) throw this.#stray(start, at + 1);
      while (isDigit(text[at])) at++;
    };
    if (text[at] === "-") at++;
    // A zero stands alone.
    if (text[at] === "0" && isDigit(text[at + 1])) throw this.#stray(start, at + 2);
    digits();
    let kind: Token["kind"] = "integer";
    if (text[at] === ".") {
      kind = "float";
      at++;
      digits();
    }
    if (text[at] === "e" || text[at] === "E") {
      kind = "float";
      at++;
      if (text[at] === "+" || text[at] === "-") at++;
      digits();
    }
    this.#at = at;
    return { kind, text: text.slice(start, at) };
  }

  #stray(start: number, end: number): SyntaxError {
    const last = this.#text.codePointAt(end - 1) ?? 0;
    return failure(`stray '${this.#text.slice(start, last > 0xffff ? end + 1 : end)}'`);
  }
}

/** Puts tokens together. Its depth is bounded by the nesting that {@linkcode readJson} lets pass. */
class Parser {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  value(): JsonData {
    const { kind, text } = this.#next();
    switch (kind) {
      case "mark":
        if (text === "{") return this.#object();
        if (text === "[") return this.#list();
        throw failure("expecting value");
      case "keyword":
        if (text === "true") return true;
        if (text === "false") return false;
        if (text === "null") return null;
        throw failure(`invalid keyword '${text}'`);
      case "integer": {
        const value = BigInt(text);
        return value >= -(2n ** 63n) && value < 2n ** 64n ? value : Number(text);
      }
      case "float":
        return Number(text);
      case "string":
        return unescaped(text);
    }
  }

  #object(): JsonObject {
    const members = new Map<string, JsonData>();
    if (this.#skips("}")) return members;
    for (;;) {
      const key = this.value();
      if (typeof key !== "string") throw failure("key is not a string in object");
      if (!this.#takes(":")) throw failure("missing : in object pair");
      const value = this.value();
      if (members.has(key)) throw failure("duplicate key");
      members.set(key, value);
      if (this.#takes("}", ",")) {
        if (this.#last === "}") return members;
      } else {
        throw failure("expected separator in dict");
      }
    }
  }

  #list(): JsonData[] {
    const items: JsonData[] = [];
    if (this.#skips("]")) return items;
    for (;;) {
      items.push(this.value());
      if (!this.#takes("]", ",")) throw failure("expected separator in list");
      if (this.#last === "]") return items;
    }
  }

  get #last(): string {
    return this.#tokens[this.#at - 1]!.text;
  }

  #next(): Token {
    const token = this.#tokens[this.#at];
    if (token === undefined) throw failure("premature EOI");
    this.#at++;
    return token;
  }

  /** Takes the next token and tells whether it is one of these marks. */
  #takes(...marks: readonly string[]): boolean {
    const { kind, text } = this.#next();
    return kind === "mark" && marks.includes(text);
  }

  /** Takes the next token if it is this mark. */
  #skips(mark: string): boolean {
    const next = this.#tokens[this.#at];
    if (next === undefined) throw failure("premature EOI");
    if (next.kind !== "mark" || next.text !== mark) return false;
    this.#at++;
    return true;
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** The text of a string token. */
function unescaped(token: string): string {
  const body = token.slice(1, -1);
  if (!/[\\\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]/.test(body)) return body;
  let text = "";
  for (let at = 0; at < body.length;) {
    if (body[at] !== "\\") {
      const code = body.codePointAt(at)!;
      if (!isCharacter(code)) throw failure("invalid UTF-8 sequence in string");
      const char = String.fromCodePoint(code);
      text += char;
      at += char.length;
      continue;
    }
    const letter = body[at + 1]!;
    if (letter !== "u") {
      const char = ESCAPES[letter];
      if (char === undefined) throw failure("invalid escape sequence in string");
      text += char;
      at += 2;
      continue;
    }
    let end = at + 6;
    let code = hexCode(body, at + 2);
    if (code >= 0xd800 && code <= 0xdbff && body.startsWith("\\u", end)) {
      const low = hexCode(body, end + 2);
      const isPair = low >= 0xdc00 && low <= 0xdfff;
      code = isPair ? 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff) : -1;
      if (isPair) end += 6;
    }
    // The closing quote is as far as the message goes.
    if (!isCharacter(code)) {
      throw failure(`${token.slice(at + 1, end + 1)} is not a valid Unicode character`);
    }
    text += String.fromCodePoint(code);
    at = end;
  }
  return text;
}

/** Four hexadecimal digits, -1 if they are not. */
function hexCode(text: string, at: number): number {
  const digits = text.slice(at, at + 4);
  return /^[0-9a-fA-F]{4}$/.test(digits) ? parseInt(digits, 16) : -1;
}

/** Whether a code point may stand in a text. */
function isCharacter(code: number): boolean {
  if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
  return (code & 0xfffe) !== 0xfffe && !(code >= 0xfdd0 && code <= 0xfdef);
}
