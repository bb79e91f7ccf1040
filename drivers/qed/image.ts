import type { DriverContext } from "../../lib/block/driver.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { Bounds, encodeHeader, Feature, type QedHeader, tableEntries } from "./header.ts";
import { TablePages } from "./table_pages.ts";

/** An open image: what all modules of this driver share. Behaviour lives in the modules, not here. */
export class QedImage {
  /** The file that holds it. */
  readonly file: BlockNode;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** The header as it is, or will be at the next `storeHeader`. */
  readonly header: QedHeader;
  /** Where clusters can lie. */
  readonly bounds: Bounds;
  /** The tables. */
  readonly pages: TablePages;
  /** Entries of a table. */
  readonly tableEntries: number;
  /** Bytes of a table. */
  readonly tableSize: number;
  /** Bytes of the disk that an L2 table maps. */
  readonly l2Span: number;
  /** Held by whatever changes tables, the header, or the end of the file. */
  readonly lock: Mutex = new Mutex();
  /** The open backing node, `null` if there is none. */
  backing: BlockNode | null = null;

  /** State over an open file and its header. */
  constructor(file: BlockNode, header: QedHeader, context: DriverContext) {
    this.file = file;
    this.header = header;
    this.context = context;
    this.bounds = new Bounds(header, file.length);
    this.pages = new TablePages(file, header.clusterSize);
    this.tableEntries = tableEntries(header.clusterSize, header.tableClusters);
    this.tableSize = header.clusterSize * header.tableClusters;
    this.l2Span = this.tableEntries * header.clusterSize;
  }

  /** Flushes the file, unless flushes are not wanted (`cache.no-flush`). */
  async barrier(): Promise<void> {
    if (!this.context.mode.cache.noFlush) await this.file.flush();
  }

  /**
   * Brings changed tables into the file, behind everything that they lead to: clusters of data, and new
   * tables of zeros. The lock is held.
   */
  async storeTables(): Promise<void> {
    if (!this.pages.isChanged) return;
    await this.barrier();
    await this.pages.store();
  }

  /** Writes the header's fields, which are in one sector. */
  async storeHeader(): Promise<void> {
    await this.file.write(0, encodeHeader(this.header));
  }

  /** Says that there is nothing left to be checked, once everything is safe; nothing if that was said. */
  async markChecked(): Promise<void> {
    const { header } = this;
    if ((header.features & Feature.needCheck) === 0n) return;
    await this.barrier();
    header.features &= ~Feature.needCheck;
    await this.storeHeader();
  }
}
