import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { parseConfig } from "../../../drivers/blkdebug/config_file.ts";
import {
  type InjectError,
  REQUEST_KINDS,
  RuleBook,
  type SetState,
} from "../../../drivers/blkdebug/rules.ts";
import { rulesOf } from "../../../drivers/blkdebug/sections.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { Random } from "../../_random.ts";

const READ_FAILS: InjectError = {
  action: "inject-error",
  event: "none",
  state: 0,
  errno: 5,
  kinds: new Set(["read"]),
  offset: undefined,
  once: false,
  immediately: false,
};
const TO_STATE_2: SetState = {
  action: "set-state",
  event: "write_aio",
  state: 1,
  newState: 2,
};

Deno.test("a rule that waits for none is active at once, for its requests only", () => {
  const rules = new RuleBook([READ_FAILS]);
  assertStrictEquals(rules.failing("read", 0, 512), READ_FAILS);
  assertEquals(rules.failing("write", 0, 512), undefined);
});

Deno.test("a rule is active from its event on, until another one takes over", () => {
  const first: InjectError = { ...READ_FAILS, event: "read_aio" };
  const second: InjectError = { ...READ_FAILS, event: "write_aio", errno: 28 };
  const rules = new RuleBook([first, second]);
  assertEquals(rules.failing("read", 0, 1), undefined);
  rules.raise("read_aio");
  assertStrictEquals(rules.failing("read", 0, 1), first);
  rules.raise("flush_to_disk");
  assertStrictEquals(rules.failing("read", 0, 1), first);
  rules.raise("write_aio");
  assertStrictEquals(rules.failing("read", 0, 1), second);
});

Deno.test("a rule that fails once is gone afterwards, its event notwithstanding", () => {
  const rules = new RuleBook([{ ...READ_FAILS, event: "read_aio", once: true }]);
  rules.raise("read_aio");
  assertEquals(rules.failing("read", 0, 1)?.errno, 5);
  assertEquals(rules.failing("read", 0, 1), undefined);
  rules.raise("read_aio");
  assertEquals(rules.failing("read", 0, 1), undefined);
});

Deno.test("a rule for a sector counts for requests that touch its first byte", () => {
  const rules = new RuleBook([{ ...READ_FAILS, offset: 1024 }]);
  assertEquals(rules.failing("read", 0, 1024), undefined);
  assertEquals(rules.failing("read", 0, 1025)?.errno, 5);
  assertEquals(rules.failing("read", 1024, 0), undefined);
  assertEquals(rules.failing("read", 1025, 4096), undefined);
});

Deno.test("a rule of a state counts in that state only", () => {
  const rules = new RuleBook([TO_STATE_2, { ...READ_FAILS, event: "read_aio", state: 2 }]);
  rules.raise("read_aio");
  assertEquals(rules.failing("read", 0, 1), undefined);
  rules.raise("write_aio");
  assertEquals(rules.state, 2);
  rules.raise("read_aio");
  assertEquals(rules.failing("read", 0, 1)?.errno, 5);
});

Deno.test("of two changes of the state by one event the first counts", () => {
  const rules = new RuleBook([TO_STATE_2, { ...TO_STATE_2, newState: 3 }]);
  rules.raise("write_aio");
  assertEquals(rules.state, 2);
});

Deno.test("a rule without an error lets requests pass that later rules would fail", () => {
  const rules = new RuleBook([{ ...READ_FAILS, errno: 0 }, READ_FAILS]);
  assertEquals(rules.failing("read", 0, 1), undefined);
});

Deno.test("a file's sections become rules, errors first", () => {
  const rules = rulesOf(parseConfig(
    '# a comment\n[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "2"\n\n' +
      '[inject-error "one"]\nevent = "none"\niotype = "read"\n',
  ));
  assertEquals(rules, [READ_FAILS, TO_STATE_2]);
});

Deno.test("without a kind of requests all fail but those for the state of the disk", () => {
  const [rule] = rulesOf(parseConfig('[inject-error]\nevent = "none"\nsector = "3"\n'));
  assertEquals(
    [...(rule as InjectError).kinds],
    REQUEST_KINDS.filter((kind) => kind !== "block-status"),
  );
  assertEquals((rule as InjectError).offset, 1536);
});

Deno.test("a sector behind every disk is no error", () => {
  const [rule] = rulesOf(
    parseConfig(`[inject-error]\nevent = "none"\nsector = "${2n ** 64n - 2n}"\n`),
  );
  assertEquals(new RuleBook([rule!]).failing("read", 0, Number.MAX_SAFE_INTEGER), undefined);
});

Deno.test("any text is rules or an error in time that its length bounds", () => {
  const seed = 7;
  const random = new Random(seed);
  const words = [
    "[",
    "]",
    '"',
    "=",
    " ",
    "\n",
    "\0",
    "#",
    "inject-error",
    "set-state",
    "event",
    "none",
    "id",
    "errno",
    "é",
    "x".repeat(2000),
  ];
  let errors = 0;
  for (let i = 0; i < 2000; i++) {
    let text = random.pick(["", "[inject-error]\n", "[set-state]\n"]);
    for (let n = random.below(30); n > 0; n--) text += random.pick(words);
    try {
      rulesOf(parseConfig(text));
    } catch (error) {
      if (!(error instanceof ImageError)) throw new Error(`seed ${seed}, ${i}`, { cause: error });
      errors++;
    }
  }
  assertEquals(errors > 500 && errors < 2000, true, `${errors} errors, seed ${seed}`);
});

Deno.test("an id is taken once by each kind of section", () => {
  const section = (kind: string) => `[${kind} "a"]\nevent = "none"\n`;
  assertEquals(parseConfig(section("inject-error") + section("set-state")).length, 2);
  assertThrows(
    () => parseConfig(section("set-state") + section("set-state")),
    ImageError,
    "Duplicate ID 'a' for set-state",
  );
});
