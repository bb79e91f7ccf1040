/**
 * Finding out what the majority says.
 *
 * @module
 */
import { equalBytes } from "../../lib/bytes/equal.ts";

/** Those who say the same. */
export interface Party<T> {
  /** What they say. */
  readonly value: T;
  /** Their numbers. */
  readonly members: number[];
}

/** Puts together who says the same, in the order in which it was first said. */
export function partiesOf<T>(
  votes: Iterable<readonly [member: number, value: T]>,
  isSame: (a: T, b: T) => boolean,
): Party<T>[] {
  const parties: Party<T>[] = [];
  for (const [member, value] of votes) {
    const party = parties.find((other) => isSame(other.value, value));
    if (party === undefined) parties.push({ value, members: [member] });
    else party.members.push(member);
  }
  return parties;
}

/** The largest party; of several the one that spoke last, as the reference counts. */
export function winnerOf<T>(parties: readonly Party<T>[]): Party<T> | undefined {
  let winner: Party<T> | undefined;
  for (const party of parties) {
    if (winner === undefined || party.members.length >= winner.members.length) winner = party;
  }
  return winner;
}

/** Votes on content. */
export function partiesOfBytes(
  votes: Iterable<readonly [number, Uint8Array]>,
): Party<Uint8Array>[] {
  return partiesOf(votes, equalBytes);
}
