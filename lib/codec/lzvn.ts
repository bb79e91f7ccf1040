/**
 * LZVN, which LZFSE streams have small blocks in (DMG reference, section 4).
 *
 * @module
 */
import { CodecError } from "./_codec.ts";
import { copyBack } from "./_copy_back.ts";

/** What one instruction does: copy literals that follow it, then bytes from further up. */
interface Step {
  /** Bytes of the instruction itself. */
  size: number;
  literals: number;
  match: number;
  /** 0: that of the step before. */
  distance: number;
}

/**
 * Unpacks one block to `out` from its byte `written` on, and answers where it ends. Matches may lie in all of
 * `out`.
 *
 * @throws {CodecError} for a damaged block, and one that does not end with its bytes.
 */
export function unpackLzvn(packed: Uint8Array, out: Uint8Array, written: number): number {
  let distance = 0;
  const step: Step = { size: 0, literals: 0, match: 0, distance: 0 };
  for (let at = 0; at < packed.length;) {
    const opcode = packed[at]!;
    if (opcode === 0x06) return written;
    readStep(packed, at, opcode, step);
    at += step.size;
    const end = at + step.literals;
    if (end > packed.length) throw new CodecError("LZVN data end within a step");
    if (step.literals > out.length - written) throw new CodecError("LZVN data are too long");
    for (; at < end; at++) out[written++] = packed[at]!;
    if (step.distance > 0) distance = step.distance;
    if (step.match > 0) written = copyBack(out, written, distance, step.match);
  }
  throw new CodecError("LZVN data without an end");
}

function readStep(packed: Uint8Array, at: number, opcode: number, step: Step): void {
  const second = packed[at + 1] ?? 0;
  step.distance = 0;
  if (opcode >= 0xe0) {
    // Literals alone, or a match with the last distance; how many is in four bits, or a byte more.
    const short = opcode & 0x0f;
    const count = short > 0 ? short : second + 16;
    step.size = short > 0 ? 1 : 2;
    step.literals = opcode < 0xf0 ? count : 0;
    step.match = opcode < 0xf0 ? 0 : count;
    return;
  }
  if (opcode >= 0xa0 && opcode < 0xc0) {
    const word = second | (packed[at + 2] ?? 0) << 8;
    step.size = 3;
    step.literals = opcode >> 3 & 3;
    step.match = ((opcode & 7) << 2 | word & 3) + 3;
    step.distance = word >> 2;
    if (step.distance === 0) throw new CodecError("LZVN match without a distance");
    return;
  }
  if (opcode === 0x0e || opcode === 0x16) {
    step.size = 1;
    step.literals = step.match = 0;
    return;
  }
  if (isUndefined(opcode)) throw new CodecError("LZVN instruction of no meaning");
  step.literals = opcode >> 6;
  step.match = (opcode >> 3 & 7) + 3;
  const low = opcode & 7;
  if (low === 6) {
    step.size = 1;
    return;
  }
  step.size = low === 7 ? 3 : 2;
  step.distance = low === 7 ? second | (packed[at + 2] ?? 0) << 8 : low << 8 | second;
  if (step.distance === 0) throw new CodecError("LZVN match without a distance");
}

/** Three literals and the two rows whose bits belong to other kinds; matches alone with the last distance. */
function isUndefined(opcode: number): boolean {
  const row = opcode >> 4;
  return row === 0x7 || row === 0xd || (opcode < 0x40 && (opcode & 7) === 6);
}
