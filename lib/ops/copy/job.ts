/**
 * Work that any thread can do: what it reads, and what becomes of it.
 *
 * Jobs and results cross from thread to thread by message, so they are plain data. Buffers that both
 * sides use, the slots, are known to all threads from the start.
 *
 * @module
 */
import type { Codec, UnpackCodec } from "../../block/plan.ts";
import type { CipherSpec } from "../../crypto/algorithms.ts";
import type { SparseRule } from "./sparse.ts";

/** Bytes of a slot: the largest run of a disk that is read in one go. */
export const SLOT_SIZE = 2 << 20;

/**
 * Bytes of the pieces in which plain runs are handled. What was just read has to be in the processor's
 * second-level cache when it is scanned and written: pieces of 512 KiB and more cost up to four times as
 * much a byte.
 */
export const CHUNK_SIZE = 256 << 10;

/** A file of the host that every thread opens by itself. */
export interface JobFile {
  /** Absolute path. */
  readonly path: string;
  /** Past the page cache. */
  readonly direct: boolean;
}

/** Where a run of guest bytes comes from. `file` is an index into the job's files; all else is bytes. */
export type Part =
  | {
    /** Zeros. */
    readonly kind: "zero";
    readonly length: number;
  }
  | {
    /** What is in the slot at the part's place. */
    readonly kind: "ready";
    readonly length: number;
  }
  | {
    /** Bytes of a file; what lies past its end reads as zeros. */
    readonly kind: "plain";
    readonly length: number;
    readonly file: number;
    readonly offset: number;
  }
  | {
    /** A part of a compressed cluster. */
    readonly kind: "packed";
    readonly length: number;
    readonly file: number;
    readonly offset: number;
    /** Compressed bytes at most. */
    readonly packedLength: number;
    readonly codec: UnpackCodec;
    /** Bytes of the whole cluster. */
    readonly size: number;
    /** Bytes of the cluster before this part. */
    readonly skip: number;
  }
  | {
    /** Encrypted sectors; what lies past the file's end was zeros before it was decrypted. */
    readonly kind: "sealed";
    readonly length: number;
    readonly file: number;
    readonly offset: number;
    /** Number of the first sector. */
    readonly sector: number;
    readonly cipher: CipherSpec;
    readonly key: Uint8Array;
  };

/** A run of guest bytes of one job. */
export interface JobPiece {
  /** Guest offset. */
  readonly offset: number;
  /** Bytes: the sum of the parts. */
  readonly length: number;
  /** Where they come from, in order. */
  readonly parts: readonly Part[];
}

/** Fills a slot with the pieces, one behind the other, and finds the data in them. */
export interface ReadJob {
  readonly kind: "read";
  readonly files: readonly JobFile[];
  readonly slot: number;
  readonly pieces: readonly JobPiece[];
  readonly sparse: SparseRule | null;
}

/** Compresses the clusters of the pieces into a slot. Pieces begin on a cluster; the last may end short. */
export interface PackJob {
  readonly kind: "pack";
  readonly files: readonly JobFile[];
  readonly slot: number;
  readonly pieces: readonly JobPiece[];
  readonly codec: Codec;
  /** `undefined`: the codec's default. */
  readonly level: number | undefined;
  readonly clusterSize: number;
  /** Store clusters of zeros too. */
  readonly keepZeros: boolean;
}

/** A run of guest bytes on two sides. */
export interface JobPair {
  /** Guest offset, a multiple of 512. */
  readonly offset: number;
  readonly left: Part;
  /** As long as `left`. */
  readonly right: Part;
}

/** Compares runs, in order. */
export interface CompareJob {
  readonly kind: "compare";
  readonly files: readonly JobFile[];
  readonly pairs: readonly JobPair[];
}

/** Any job. */
export type Job = ReadJob | PackJob | CompareJob;

/** A run of bytes within a piece. */
export interface DataRun {
  /** From the piece's begin, bytes. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
}

/** What became of a {@linkcode ReadJob}: for each piece its data. */
export interface ReadResult {
  readonly kind: "read";
  readonly runs: readonly (readonly DataRun[])[];
}

/** The length of a cluster of zeros in a {@linkcode PackResult}; nothing of it is in the slot. */
export const ZERO_CLUSTER = 0;

/** The length of a cluster that does not shrink in a {@linkcode PackResult}; it is in the slot as it is. */
export const PLAIN_CLUSTER = -1;

/** What became of a {@linkcode PackJob}: the clusters stand in the slot one behind the other. */
export interface PackResult {
  readonly kind: "pack";
  /** For each cluster of all pieces its packed length, or one of the two constants above. */
  readonly lengths: readonly number[];
}

/** What became of a {@linkcode CompareJob}. */
export interface CompareResult {
  readonly kind: "compare";
  /** Guest offset of the first sector that differs, -1 if none does. */
  readonly mismatch: number;
}

/**
 * Something could not be read or inflated. Nobody but the node that it belongs to knows what to say of
 * it, so whoever posted the job reads again through that node.
 */
export interface FailedResult {
  readonly kind: "failed";
}

/** The result of a job of type `J`. */
export type ResultOf<J extends Job> =
  | FailedResult
  | (J extends ReadJob ? ReadResult : J extends PackJob ? PackResult : CompareResult);

/** To a worker: the slots, once, before anything else. */
export interface SetupMessage {
  readonly slots: readonly Uint8Array[];
}

/** A file that a partner writes. */
export interface PartnerFile extends JobFile {
  /** Every write is followed by a flush. */
  readonly sync: boolean;
}

/** A run of bytes for a partner to write. Files are indices in the order in which they were sent. */
export interface WriteRun {
  /** Where in the batch's buffer, bytes. */
  readonly at: number;
  /** Bytes. */
  readonly length: number;
  readonly target: number;
  /** Where in the target, bytes. */
  readonly to: number;
}

/** How many batches there may be: one that is filled, one that is written, and some between them. */
export const BATCHES = 4;

/** What is going on with a batch. One more state behind those of the batches is 1 once the partner has started. */
export const BatchState = {
  /** There is none. */
  none: 0,
  /** The partner has it. */
  taken: 1,
  /** All is written. */
  written: 2,
  /** Some of it is not. */
  failed: 3,
} as const;

/** To a worker that is to be a partner: once the states and the buffers, then files and batches as they turn up. */
export type PartnerMessage =
  | { readonly partner: Int32Array; readonly buffers: readonly Uint8Array[] }
  | { readonly file: PartnerFile }
  | {
    readonly write: readonly WriteRun[];
    readonly batch: number;
    /** A message, of any content, says when it is done. */
    readonly tell: boolean;
  };

/** To a worker. */
export interface JobMessage {
  readonly id: number;
  readonly job: Job;
}

/** From a worker. */
export interface ResultMessage {
  readonly id: number;
  /** `undefined`: the worker is at fault, and `error` says how. */
  readonly result: ResultOf<Job> | undefined;
  readonly error?: string;
}

/** Anything to a worker. */
export type WorkerMessage = SetupMessage | JobMessage | PartnerMessage;
