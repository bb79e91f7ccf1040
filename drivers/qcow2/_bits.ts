/** Sets the bits from `start` to before `end`, the low bit of a byte first. */
export function setBits(bytes: Uint8Array, start: number, end: number): void {
  const first = start >>> 3;
  const last = (end - 1) >>> 3;
  const head = 0xff << (start & 7) & 0xff;
  const tail = 0xff >>> (7 - ((end - 1) & 7));
  if (first === last) {
    bytes[first]! |= head & tail;
    return;
  }
  bytes[first]! |= head;
  bytes.fill(0xff, first + 1, last);
  bytes[last]! |= tail;
}

/** Clears all bits from bit `start` on; a `start` outside clears all or nothing. */
export function clearBitsFrom(bytes: Uint8Array, start: number): void {
  if (start >= bytes.length * 8) return;
  if (start <= 0) {
    bytes.fill(0);
    return;
  }
  const byte = start >>> 3;
  bytes[byte]! &= (1 << (start & 7)) - 1;
  bytes.fill(0, byte + 1);
}

/** Calls `visit` with begin and end of every run of set bits, in order. */
export function visitSetBits(
  bytes: Uint8Array,
  visit: (start: number, end: number) => void,
): void {
  // The run that the next byte may continue.
  let [start, end] = [0, 0];
  const take = (from: number, to: number) => {
    if (from !== end) {
      if (end > start) visit(start, end);
      start = from;
    }
    end = to;
  };
  for (let index = 0; index < bytes.length; index++) {
    const bit = index * 8;
    let byte = bytes[index]!;
    if (byte === 0xff) {
      take(bit, bit + 8);
      continue;
    }
    while (byte !== 0) {
      const from = trailingZeros(byte);
      const length = trailingZeros(~(byte >>> from));
      take(bit + from, bit + from + length);
      byte &= -1 << (from + length);
    }
  }
  if (end > start) visit(start, end);
}

/** Zero bits below the lowest set bit of a number that is not 0. */
function trailingZeros(value: number): number {
  return 31 - Math.clz32(value & -value);
}
