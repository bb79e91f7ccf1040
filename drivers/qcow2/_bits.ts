/** Sets the bits from `start` to before `end`, the low bit of a byte first. */
export function setBits(bytes: Uint8Array, start: number, end: number): void {
  const [first, last] = [start >>> 3, (end - 1) >>> 3];
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
  let start = -1;
  const take = (bit: number, set: boolean) => {
    if (set) {
      if (start < 0) start = bit;
    } else if (start >= 0) {
      visit(start, bit);
      start = -1;
    }
  };
  for (let index = 0; index < bytes.length; index++) {
    const byte = bytes[index]!;
    const bit = index * 8;
    // Most bytes have bits of one kind.
    if (byte === 0 || byte === 0xff) take(bit, byte !== 0);
    else for (let i = 0; i < 8; i++) take(bit + i, (byte >>> i & 1) !== 0);
  }
  take(bytes.length * 8, false);
}
