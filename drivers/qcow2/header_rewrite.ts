/**
 * In which order cluster 0 is rewritten, so that a crash cannot tear it.
 *
 * A disk keeps sectors whole, not clusters. The fixed fields and, as a rule,
 * most extensions lie in the first sector; the backing file name and what else
 * is long reaches into later ones. Of these rules the first that fits is used:
 *
 * 1. One sector changes: it is written, and that is all.
 * 2. The old header has no use for the later sectors that change: they are
 *    written, then the first one, which turns to them.
 * 3. The new header has no use for them: the first one, then they are cleared.
 * 4. Both use them. The new name is written where neither has anything, then a
 *    first sector that has everything of the new header and finds the name
 *    there; the table of feature names (mere words for people) is left out if
 *    the extensions would not fit otherwise. Now the later sectors are free:
 *    they get what they shall have, then the first sector turns to them, and
 *    the copy of the name is cleared.
 *
 * In each case the file holds the old or the new header at every moment, whole
 * and without a trace of the other; between the steps of rule 4 it may lack the
 * table of feature names, which any later rewrite brings back.
 *
 * What no rule fits is written in one request, and a host that fails in the
 * middle of it may leave a mixture: extensions that change and take more than
 * the first sector (with the name of a data file of about 300 bytes, or ones
 * that this driver does not know), or names for which there is no room side by
 * side (long ones in clusters of 1 KiB or 2 KiB). A process that is killed
 * leaves one or the other even then.
 *
 * @module
 */
import { Extension, HEADER_LENGTH_V2 } from "./_layout.ts";

/** What a disk writes whole or not at all, bytes. */
const SECTOR = 512;

/** A write to cluster 0. */
export interface HeaderWrite {
  /** Where, bytes. */
  readonly offset: number;
  /** What. */
  readonly bytes: Uint8Array;
}

/**
 * The writes that turn `present`, the bytes of cluster 0, into `wanted`, in
 * steps that are to be separated by flushes. None if they are equal.
 *
 * `moved` encodes the new header with the backing file name at an offset of
 * our choice, and with feature names or without.
 */
export function planHeaderRewrite(
  present: Uint8Array,
  wanted: Uint8Array,
  moved: (nameOffset: number, featureNames: boolean) => Uint8Array,
): HeaderWrite[][] {
  const changed = changedRuns(present, wanted);
  const [first] = changed;
  if (first === undefined) return [];
  if (changed.length === 1 && first.length === Math.min(SECTOR, wanted.length)) {
    return [[pick(wanted, first)]];
  }
  const head = { offset: 0, length: SECTOR };
  const tail = changed.flatMap((run) => run.offset > 0 ? [run] : withoutHead(run));
  const later = tail.map((run) => pick(wanted, run));
  const before = usedBytes(present);
  const after = usedBytes(wanted);
  const touch = (used: readonly Run[]) => tail.some((run) => used.some((u) => overlap(run, u)));
  if (!touch(before)) {
    return first.offset === 0 ? [later, [pick(wanted, head)]] : [later];
  }
  if (!touch(after)) return [[pick(wanted, head)], later];

  const name = after[1];
  const free = Math.ceil(Math.max(...[...before, ...after].map(endOf)) / SECTOR) * SECTOR;
  const room = { offset: free, length: name?.length ?? 0 };
  if (endOf(room) <= wanted.length) {
    for (const featureNames of [true, false]) {
      const detour = moved(free, featureNames);
      // Its extensions end in the first sector, or the later ones have them already and keep them.
      const end = endOf(usedBytes(detour)[0]!);
      if (!isSame(detour, present, SECTOR, end) || !isSame(detour, wanted, SECTOR, end)) continue;
      const copy = name === undefined ? [] : [pick(detour, room)];
      const clear = { offset: free, bytes: wanted.slice(free, endOf(room)) };
      return [copy, [pick(detour, head)], later, [pick(wanted, head)], name ? [clear] : []]
        .filter((step) => step.length > 0);
    }
  }
  return [[{ offset: 0, bytes: wanted }]];
}

interface Run {
  readonly offset: number;
  readonly length: number;
}

const endOf = ({ offset, length }: Run) => offset + length;
const overlap = (a: Run, b: Run) => a.offset < endOf(b) && b.offset < endOf(a);
const pick = (from: Uint8Array, { offset, length }: Run): HeaderWrite => ({
  offset,
  bytes: from.slice(offset, offset + length),
});

function withoutHead({ length }: Run): Run[] {
  return length > SECTOR ? [{ offset: SECTOR, length: length - SECTOR }] : [];
}

function isSame(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Runs of sectors that differ. */
function changedRuns(present: Uint8Array, wanted: Uint8Array): Run[] {
  const runs: Run[] = [];
  for (let at = 0; at < wanted.length; at += SECTOR) {
    if (isSame(present, wanted, at, at + SECTOR)) continue;
    const last = runs.at(-1);
    if (last !== undefined && endOf(last) === at) {
      runs[runs.length - 1] = { offset: last.offset, length: last.length + SECTOR };
    } else {
      runs.push({ offset: at, length: SECTOR });
    }
  }
  return runs;
}

/**
 * What a reader of a header looks at: fixed fields and extensions first, then
 * the backing file name if there is one. What is damaged counts up to the end.
 */
function usedBytes(cluster: Uint8Array): Run[] {
  const view = new DataView(cluster.buffer, cluster.byteOffset, cluster.byteLength);
  const nameOffset = Number(view.getBigUint64(8));
  const limit = nameOffset > 0 && nameOffset <= cluster.length ? nameOffset : cluster.length;
  let at = view.getUint32(4) === 2 ? HEADER_LENGTH_V2 : view.getUint32(100);
  for (let type = -1; type !== Extension.end;) {
    if (at + 8 > limit) {
      at = Math.max(at, limit);
      break;
    }
    type = view.getUint32(at);
    at += 8;
    if (type !== Extension.end) at += Math.ceil(view.getUint32(at - 4) / 8) * 8;
  }
  const used: Run[] = [{ offset: 0, length: Math.min(at, cluster.length) }];
  if (nameOffset > 0 && nameOffset < cluster.length) {
    const length = Math.min(view.getUint32(16), cluster.length - nameOffset);
    used.push({ offset: nameOffset, length });
  }
  return used;
}
