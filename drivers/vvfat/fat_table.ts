import { viewOf } from "../../lib/bytes/endian.ts";
import { type Layout, mediumOf } from "./layout.ts";

/** A file allocation table: for each cluster the one that follows. */
export class FatTable {
  /** As it is on the disk. */
  readonly bytes: Uint8Array;
  /** What marks the last cluster of a chain here; everything from 7 less on does. */
  readonly last: number;
  readonly #bits: Layout["fatType"];
  readonly #view: DataView;

  /** A table over `bytes`. */
  constructor(bytes: Uint8Array, bits: Layout["fatType"]) {
    this.bytes = bytes;
    this.#bits = bits;
    this.#view = viewOf(bytes);
    this.last = bits === 12 ? 0xfff : bits === 16 ? 0xffff : 0x0fff_ffff;
  }

  /** A table in which all clusters are free. */
  static empty({ fatType, fatLength }: Layout): FatTable {
    return new FatTable(new Uint8Array(fatLength), fatType);
  }

  /** What follows `cluster`. Throws `RangeError` for a cluster that the table does not have. */
  get(cluster: number): number {
    switch (this.#bits) {
      case 12: {
        const pair = this.#view.getUint16(cluster + (cluster >> 1), true);
        return cluster % 2 === 0 ? pair & 0xfff : pair >> 4;
      }
      case 16:
        return this.#view.getUint16(cluster * 2, true);
      case 32:
        return this.#view.getUint32(cluster * 4, true) & 0x0fff_ffff;
    }
  }

  /** Says what follows `cluster`. Throws `RangeError` for a cluster that the table does not have. */
  set(cluster: number, next: number): void {
    switch (this.#bits) {
      case 12: {
        const at = cluster + (cluster >> 1);
        const pair = this.#view.getUint16(at, true);
        this.#view.setUint16(
          at,
          cluster % 2 === 0 ? pair & 0xf000 | next : pair & 0x000f | next << 4,
          true,
        );
        break;
      }
      case 16:
        this.#view.setUint16(cluster * 2, next, true);
        break;
      case 32:
        this.#view.setUint32(cluster * 4, next, true);
        break;
    }
  }

  /** Chains clusters one after another, from `begin` to before `end`. */
  link(begin: number, end: number): void {
    for (let cluster = begin; cluster < end - 1; cluster++) this.set(cluster, cluster + 1);
    this.set(end - 1, this.last);
  }

  /** Writes the two entries that are no clusters. */
  sign(layout: Layout): void {
    this.set(0, this.last);
    this.set(1, this.last);
    this.bytes[0] = mediumOf(layout);
  }

  /** Whether `next` ends a chain. */
  isLast(next: number): boolean {
    return next >= this.last - 7;
  }

  /** Whether `next` marks a cluster that cannot be used. */
  isBad(next: number): boolean {
    return next === this.last - 8;
  }
}
