/**
 * The C library of Linux.
 *
 * `open`, `fcntl` and `ioctl` are variadic in C. On Linux x86-64 and ARM the arguments of a variadic
 * call travel as in any other call; elsewhere (Apple's ARM) not, and nothing of this is used there.
 *
 * @module
 */
import { type Errno, errnoFromNumber } from "./errno.ts";

// Binding costs 0.2 ms a function, so that commands that only read do without the second half.
const READING = {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
  memcpy: { parameters: ["buffer", "pointer", "usize"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

const CHANGING = {
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  posix_fallocate: { parameters: ["i32", "i64", "i64"], result: "i32" },
  copy_file_range: {
    parameters: ["i32", "buffer", "i32", "buffer", "usize", "u32"],
    result: "isize",
  },
  ioctl_number: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  ioctl_buffer: { name: "ioctl", parameters: ["i32", "u64", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of the C library that find out and lock. */
export type Libc = Deno.DynamicLibrary<typeof READING>["symbols"];

/** The functions of the C library that allocate, clone and punch. */
export type ChangingLibc = Deno.DynamicLibrary<typeof CHANGING>["symbols"];

/** glibc, then musl. */
const NAMES = ["libc.so.6", `libc.musl-${Deno.build.arch}.so.1`];

/** A half of the library that is loaded at its first use. */
class Half<S extends Deno.ForeignLibraryInterface> {
  readonly #symbols: S;
  // null: tried, and not to be had.
  #library: Deno.DynamicLibrary<S> | null | undefined;

  constructor(symbols: S) {
    this.#symbols = symbols;
  }

  open(): Deno.DynamicLibrary<S>["symbols"] | undefined {
    if (this.#library === undefined) this.#library = load(this.#symbols);
    return this.#library?.symbols;
  }

  close(): void {
    this.#library?.close();
    this.#library = undefined;
  }
}

function load<S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S> | null {
  if (Deno.build.os !== "linux") return null;
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return null;
  for (const name of NAMES) {
    try {
      return Deno.dlopen(name, symbols);
    } catch {
      // Another C library, or one too old to have them all.
    }
  }
  return null;
}

const reading = new Half(READING);
const changing = new Half(CHANGING);

/** What finds out and locks; `undefined` on other systems than Linux and where ffi is not granted already. */
export function openLibc(): Libc | undefined {
  return reading.open();
}

/** What allocates, clones and punches; `undefined` as for {@linkcode openLibc}. */
export function openChangingLibc(): ChangingLibc | undefined {
  return changing.open();
}

/** Unloads the library; the next use loads it again. */
export function closeLibc(): void {
  reading.close();
  changing.close();
}

const errnoBytes = new Int32Array(1);

/** The error of the call that has just failed in this thread. */
export function lastErrno(libc: Libc): Errno {
  // Copied by the library itself: Deno's own way to look through a pointer asks for the permission each time.
  libc.memcpy(errnoBytes, libc.__errno_location(), 4n);
  return errnoFromNumber(errnoBytes[0]!);
}
