/** Refcounts of one width in a block's bytes (section 4). */
export interface RefcountFormat {
  /** Width, bits. */
  readonly bits: number;
  /** Largest value (2^64 stands for 2^64 - 1). */
  readonly maximum: number;
  /** Refcounts in a block. */
  readonly perBlock: number;
  /** Refcount `index`; exact below 2^53. */
  get(block: Uint8Array, index: number): number;
  /** Sets refcount `index` to an integer from 0 to `maximum`; 2^53 and above as near as a number gets. */
  set(block: Uint8Array, index: number, value: number): void;
  /** Adds to refcount `index` and answers with the new value; changes nothing and answers -1 out of range. */
  add(block: Uint8Array, index: number, delta: number): number;
  /** First index in `[from, to)` with refcount 0, `to` if there is none. */
  firstFree(block: Uint8Array, from: number, to: number): number;
  /** First index in `[from, to)` with a refcount other than 0, `to` if there is none. */
  firstUsed(block: Uint8Array, from: number, to: number): number;
}

/** The format for `2 ** order` bits (order 0 to 6) in blocks of `blockSize` bytes. */
export function refcountFormat(order: number, blockSize: number): RefcountFormat {
  if (order < 3) return new PackedFormat(2 ** order, blockSize);
  if (order < 6) return new WholeFormat(2 ** order, blockSize);
  return new WideFormat(blockSize);
}

/** Widths 1, 2 and 4: several to a byte, from the low bits upward. */
class PackedFormat implements RefcountFormat {
  readonly bits: number;
  readonly maximum: number;
  readonly perBlock: number;
  readonly #perByte: number;
  /** For every byte whether one of its refcounts is 0. */
  readonly #holdsFree: boolean[];

  constructor(bits: number, blockSize: number) {
    this.bits = bits;
    this.maximum = 2 ** bits - 1;
    this.#perByte = 8 / bits;
    this.perBlock = blockSize * this.#perByte;
    this.#holdsFree = Array.from({ length: 256 }, (_, byte) => {
      for (let shift = 0; shift < 8; shift += bits) {
        if ((byte >> shift & this.maximum) === 0) return true;
      }
      return false;
    });
  }

  get(block: Uint8Array, index: number): number {
    const place = index % this.#perByte;
    return block[(index - place) / this.#perByte]! >> place * this.bits & this.maximum;
  }

  set(block: Uint8Array, index: number, value: number): void {
    const place = index % this.#perByte;
    const shift = place * this.bits;
    const at = (index - place) / this.#perByte;
    block[at] = block[at]! & ~(this.maximum << shift) | value << shift;
  }

  add(block: Uint8Array, index: number, delta: number): number {
    const value = this.get(block, index) + delta;
    if (value < 0 || value > this.maximum) return -1;
    this.set(block, index, value);
    return value;
  }

  firstFree(block: Uint8Array, from: number, to: number): number {
    for (let index = from; index < to; index++) {
      while (index % this.#perByte === 0 && !this.#holdsFree[block[index / this.#perByte]!]) {
        index += this.#perByte;
        if (index >= to) return to;
      }
      if (this.get(block, index) === 0) return index;
    }
    return to;
  }

  firstUsed(block: Uint8Array, from: number, to: number): number {
    for (let index = from; index < to; index++) {
      while (index % this.#perByte === 0 && block[index / this.#perByte] === 0) {
        index += this.#perByte;
        if (index >= to) return to;
      }
      if (this.get(block, index) !== 0) return index;
    }
    return to;
  }
}

/** Widths 8, 16 and 32. */
class WholeFormat implements RefcountFormat {
  readonly bits: number;
  readonly maximum: number;
  readonly perBlock: number;

  constructor(bits: number, blockSize: number) {
    this.bits = bits;
    this.maximum = 2 ** bits - 1;
    this.perBlock = blockSize * 8 / bits;
  }

  get(block: Uint8Array, index: number): number {
    switch (this.bits) {
      case 8:
        return block[index]!;
      case 16:
        return block[index * 2]! << 8 | block[index * 2 + 1]!;
      default:
        return (block[index * 4]! << 24 | block[index * 4 + 1]! << 16 | block[index * 4 + 2]! << 8 |
          block[index * 4 + 3]!) >>> 0;
    }
  }

  set(block: Uint8Array, index: number, value: number): void {
    let at = (index + 1) * this.bits / 8;
    for (let left = this.bits; left > 0; left -= 8) {
      block[--at] = value;
      value >>>= 8;
    }
  }

  add(block: Uint8Array, index: number, delta: number): number {
    const value = this.get(block, index) + delta;
    if (value < 0 || value > this.maximum) return -1;
    this.set(block, index, value);
    return value;
  }

  firstFree(block: Uint8Array, from: number, to: number): number {
    const words = this.#words(block);
    let index = from;
    while (index < to && words[index] !== 0) index++;
    return index;
  }

  firstUsed(block: Uint8Array, from: number, to: number): number {
    const words = this.#words(block);
    let index = from;
    while (index < to && words[index] === 0) index++;
    return index;
  }

  /** The refcounts in the machine's byte order, which does not matter where only zero does. */
  #words(block: Uint8Array): Uint8Array | Uint16Array | Uint32Array {
    if (this.bits === 8) return block;
    return this.bits === 16
      ? new Uint16Array(block.buffer, block.byteOffset, this.perBlock)
      : new Uint32Array(block.buffer, block.byteOffset, this.perBlock);
  }
}

/** Width 64. */
class WideFormat implements RefcountFormat {
  readonly bits = 64;
  readonly maximum = 2 ** 64;
  readonly perBlock: number;

  constructor(blockSize: number) {
    this.perBlock = blockSize / 8;
  }

  get(block: Uint8Array, index: number): number {
    const view = viewAt(block, index);
    return view.getUint32(0) * 2 ** 32 + view.getUint32(4);
  }

  set(block: Uint8Array, index: number, value: number): void {
    const top = 2n ** 64n - 1n;
    const exact = BigInt(value);
    viewAt(block, index).setBigUint64(0, exact > top ? top : exact);
  }

  add(block: Uint8Array, index: number, delta: number): number {
    const view = viewAt(block, index);
    const value = view.getBigUint64(0) + BigInt(delta);
    if (value < 0n || value >= 2n ** 64n) return -1;
    view.setBigUint64(0, value);
    return Number(value);
  }

  firstFree(block: Uint8Array, from: number, to: number): number {
    const words = new Uint32Array(block.buffer, block.byteOffset, this.perBlock * 2);
    let index = from;
    while (index < to && (words[index * 2]! | words[index * 2 + 1]!) !== 0) index++;
    return index;
  }

  firstUsed(block: Uint8Array, from: number, to: number): number {
    const words = new Uint32Array(block.buffer, block.byteOffset, this.perBlock * 2);
    let index = from;
    while (index < to && (words[index * 2]! | words[index * 2 + 1]!) === 0) index++;
    return index;
  }
}

function viewAt(block: Uint8Array, index: number): DataView {
  return new DataView(block.buffer, block.byteOffset + index * 8, 8);
}
