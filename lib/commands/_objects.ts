/**
 * `--object`: what the user defines beside images, which options then refer to by its id. Command-line
 * reference, section 3.6.
 *
 * @module
 */
import { ImageError, reasonText } from "../block/error.ts";
import type { SecretStore } from "../block/secret.ts";
import type { ObjectStore, UserObject } from "../block/user_object.ts";
import { hashOrder } from "../bytes/json.ts";
import { type JsonObject, readJson } from "../bytes/json_reader.ts";
import { CommandError, HelpText, type OptionSpec } from "./_command.ts";
import { KeyValues, readKeyValues } from "./_key_values.ts";
import { secretBytes, type SecretProperties } from "./_secret.ts";
import { readThrottleLimits, THROTTLE_PROPERTIES } from "./_throttle_group.ts";

/** A secret that was defined on the command line. */
export interface SecretObject {
  /** What options call it. */
  readonly id: string;
  /** Its bytes. */
  readonly bytes: Uint8Array;
}

/** What was defined on the command line. */
export type DefinedObject = SecretObject | UserObject;

/** The secrets of a command line. */
export function secretStore(objects: readonly DefinedObject[]): SecretStore {
  const secrets = new Map(
    objects.flatMap((object) => "bytes" in object ? [[object.id, object.bytes] as const] : []),
  );
  return { get: (id) => secrets.get(id) };
}

/** The other objects of a command line. */
export function objectStore(objects: readonly DefinedObject[]): ObjectStore {
  const others = new Map(
    objects.flatMap((object) => "bytes" in object ? [] : [[object.id, object] as const]),
  );
  return { get: (id) => others.get(id) };
}

/** Exit code for a wrong definition. */
interface Failing {
  readonly exitCode: number;
}

/** What {@linkcode objectOption} makes. */
export interface ObjectOption extends OptionSpec {
  /** The long form. */
  readonly long: readonly ["object"];
  /** How help calls the value. */
  readonly value: "OBJECT";
  /** Adds an object to those before. */
  parse(text: string, previous: unknown): readonly DefinedObject[];
}

/** `--object`, for a command that ends with `exitCode` when the definition is wrong. */
export function objectOption({ exitCode }: Failing): ObjectOption {
  return {
    long: ["object"],
    value: "OBJECT",
    help: [
      "define what image options refer to by its id, such as a secret: secret,id=ID,data=TEXT",
      "or secret,id=ID,file=NAME; 'help' lists the types, 'TYPE,help' a type's options",
    ],
    parse(text: string, previous: unknown): readonly DefinedObject[] {
      const objects = previous as readonly DefinedObject[] | undefined ?? [];
      return [...objects, readObject(text, objects, { exitCode })];
    },
  };
}

/** `--object`. */
export const OBJECT: ObjectOption = objectOption({ exitCode: 1 });

/** The properties of each type, and what help says of their values. */
const TYPES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  secret: {
    data: "string",
    file: "string",
    format: "QCryptoSecretFormat",
    iv: "string",
    keyid: "string",
  },
  "throttle-group": THROTTLE_PROPERTIES,
  "tls-creds-psk": {
    dir: "string",
    endpoint: "QCryptoTLSCredsEndpoint",
    priority: "string",
    username: "string",
    "verify-peer": "bool",
  },
  "tls-creds-x509": {
    dir: "string",
    endpoint: "QCryptoTLSCredsEndpoint",
    passwordid: "string",
    priority: "string",
    "sanity-check": "bool",
    "verify-peer": "bool",
  },
};

/** Checks of values by their types as {@linkcode TYPES} has them; whatever is not here is a text. */
const VALUES: Readonly<Record<string, (key: string, text: string) => string | undefined>> = {
  bool: (key, text) =>
    ["on", "yes", "true", "y", "off", "no", "false", "n"].includes(text)
      ? undefined
      : `Parameter '${key}' expects 'on' or 'off'`,
  QCryptoTLSCredsEndpoint: (key, text) =>
    ["client", "server"].includes(text)
      ? undefined
      : `Parameter '${key}' does not accept value '${text}'`,
};

/** Types of the reference that are not made here. */
const MISSING_TYPES: ReadonlySet<string> = new Set([
  "authz-list",
  "authz-list-file",
  "authz-simple",
  "main-loop",
  "pr-manager-helper",
  "secret_keyring",
  "thread-context",
  "tls-creds-anon",
]);

const ID = /^[A-Za-z][A-Za-z0-9._-]*$/;
const ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";

/** Takes a definition; `earlier` are the objects that it may refer to. */
function readObject(
  text: string,
  earlier: readonly DefinedObject[],
  failing: Failing,
): DefinedObject {
  const properties = new Properties(readProperties(text, failing), failing);
  const type = properties.required("qom-type");
  if (!Object.hasOwn(TYPES, type)) {
    throw new CommandError(
      MISSING_TYPES.has(type)
        ? `Objects of type '${type}' are not supported`
        : `Parameter 'qom-type' does not accept value '${type}'`,
      failing,
    );
  }
  const id = properties.required("id");
  const secret = type === "secret" ? secretProperties(properties, failing) : undefined;
  const others = secret === undefined ? otherProperties(type, properties, failing) : undefined;
  properties.refuseOthers();
  if (!ID.test(id)) {
    throw new CommandError("Parameter 'id' expects an identifier", { ...failing, hint: ID_HINT });
  }
  if (earlier.some((object) => object.id === id)) {
    throw new CommandError(
      `attempt to add duplicate property '${id}' to object (type 'container')`,
      failing,
    );
  }
  if (secret === undefined) {
    requireCredentials(type, others!, failing);
    return { id, type, properties: others! };
  }
  try {
    return { id, bytes: secretBytes(secret, secretStore(earlier)) };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new CommandError(error.message, { ...failing, cause: error });
  }
}

/** In the order in which the reference looks at them. */
function secretProperties(properties: Properties, failing: Failing): SecretProperties {
  const format = properties.optional("format") ?? "raw";
  if (format !== "raw" && format !== "base64") {
    throw new CommandError(`Parameter 'format' does not accept value '${format}'`, failing);
  }
  return {
    format,
    keyId: properties.optional("keyid"),
    iv: properties.optional("iv"),
    data: properties.optional("data"),
    file: properties.optional("file"),
  };
}

/** Those of a type that is nothing but its properties. */
function otherProperties(
  type: string,
  properties: Properties,
  failing: Failing,
): ReadonlyMap<string, string> {
  if (TYPES[type] === THROTTLE_PROPERTIES) {
    return readThrottleLimits((key) => properties.given(key), properties.isList, failing);
  }
  const values = new Map<string, string>();
  for (const [key, value] of Object.entries(TYPES[type]!)) {
    const text = properties.optional(key, value === "bool");
    if (text === undefined) continue;
    const complaint = VALUES[value]?.(key, text);
    if (complaint !== undefined) throw new CommandError(complaint, failing);
    values.set(key, text);
  }
  return values;
}

/** The file that a folder of TLS credentials has to have. */
const CREDENTIALS: Readonly<Record<string, string>> = {
  "tls-creds-psk": "keys.psk",
  "tls-creds-x509": "ca-cert.pem",
};

/** Credentials that are not there are an error also where nobody uses them. */
function requireCredentials(
  type: string,
  properties: ReadonlyMap<string, string>,
  failing: Failing,
): void {
  const name = CREDENTIALS[type];
  if (name === undefined) return;
  const dir = properties.get("dir");
  if (dir === undefined) throw new CommandError("Missing 'dir' property value", failing);
  try {
    Deno.statSync(`${dir}/${name}`);
  } catch (error) {
    throw new CommandError(
      `Unable to access credentials ${dir}/${name}: ${reasonText(error)}`,
      { ...failing, cause: error },
    );
  }
}

/** The properties of a definition in either of its forms. */
function readProperties(text: string, { exitCode }: Failing): JsonObject | KeyValues {
  if (text.startsWith("{")) {
    try {
      // A text that begins like an object is one, or wrong.
      return readJson(text) as JsonObject;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      // What the reference quotes of the text may be a part of a secret.
      const message = error.message.replace(/ '.*'$|, \\u.*(?= is not)/s, "");
      throw new CommandError(message, { exitCode });
    }
  }
  const { values, help } = readKeyValues(text, { implied: "qom-type", secret: "data" }, exitCode);
  if (help) throw new HelpText(objectHelp(values.get("qom-type")));
  return values;
}

function objectHelp(type: string | KeyValues | undefined): string {
  if (typeof type === "string" && Object.hasOwn(TYPES, type)) {
    const lines = Object.entries(TYPES[type]!).map(([name, value]) => `  ${name}=<${value}>\n`);
    return `${type} options:\n${lines.join("")}`;
  }
  const lines = Object.keys(TYPES).sort().map((name) => `  ${name}\n`);
  return `List of user creatable objects:\n${lines.join("")}`;
}

/** Hands out the properties of an object one by one and knows which nobody asked for. */
class Properties {
  readonly #values: JsonObject | KeyValues;
  readonly #failing: Failing;
  readonly #known = new Set<string>();

  constructor(values: JsonObject | KeyValues, failing: Failing) {
    this.#values = values;
    this.#failing = failing;
  }

  required(key: string): string {
    const value = this.optional(key);
    if (value === undefined) throw new CommandError(`Parameter '${key}' is missing`, this.#failing);
    return value;
  }

  /** `isFlag`: JSON's own truth values will do. */
  optional(key: string, isFlag = false): string | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    this.#known.add(key);
    if (typeof value === "string") return value;
    if (isFlag && typeof value === "boolean") return value ? "on" : "off";
    throw new CommandError(
      value instanceof KeyValues
        ? `Parameters '${key}.*' are unexpected`
        : `Invalid parameter type for '${key}', expected: string`,
      this.#failing,
    );
  }

  /** Whether the definition is a list: its values are texts. */
  get isList(): boolean {
    return this.#values instanceof KeyValues;
  }

  /** The value whatever it is. */
  given(key: string): unknown {
    const value = this.#values.get(key);
    if (value !== undefined) this.#known.add(key);
    return value;
  }

  /** Throws for a property that is left over: of several the one that the reference comes to first. */
  refuseOthers(): void {
    const [key] = hashOrder([...this.#values.keys()].filter((key) => !this.#known.has(key)));
    if (key === undefined) return;
    throw new CommandError(`Parameter '${key}' is unexpected`, this.#failing);
  }
}
