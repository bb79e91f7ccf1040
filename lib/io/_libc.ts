/**
 * The C library of Linux.
 *
 * `open`, `fcntl` and `ioctl` are variadic in C. On Linux x86-64 and ARM the arguments of a variadic
 * call travel as in any other call; elsewhere (Apple's ARM) not, and nothing of this is used there.
 *
 * @module
 */
import { type Errno, errnoFromNumber } from "./errno.ts";

const SYMBOLS = {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  posix_fallocate: { parameters: ["i32", "i64", "i64"], result: "i32" },
  copy_file_range: {
    parameters: ["i32", "buffer", "i32", "buffer", "usize", "u32"],
    result: "isize",
  },
  fcntl: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  ioctl_number: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  ioctl_buffer: { name: "ioctl", parameters: ["i32", "u64", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
  memcpy: { parameters: ["buffer", "pointer", "usize"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

/** The functions of the C library that are used here, under their own names. */
export type Libc = Library["symbols"];

/** glibc, then musl. */
const NAMES = ["libc.so.6", `libc.musl-${Deno.build.arch}.so.1`];

// null: looked for and not there.
let library: Library | null | undefined;

/**
 * The C library, loaded at the first call; `undefined` on other systems than Linux and where the ffi
 * permission is not granted already.
 */
export function openLibc(): Libc | undefined {
  if (library === undefined) library = load();
  return library?.symbols;
}

function load(): Library | null {
  if (Deno.build.os !== "linux") return null;
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return null;
  for (const name of NAMES) {
    try {
      return Deno.dlopen(name, SYMBOLS);
    } catch {
      // Another C library, or one too old to have them all.
    }
  }
  return null;
}

/** Unloads the library, which the next {@linkcode openLibc} loads again. */
export function closeLibc(): void {
  library?.close();
  library = undefined;
}

const errnoBytes = new Int32Array(1);

/** The error of the call that has just failed in this thread. */
export function lastErrno(libc: Libc): Errno {
  // Copied by the library itself: Deno's own way to look through a pointer asks for the permission each time.
  libc.memcpy(errnoBytes, libc.__errno_location(), 4n);
  return errnoFromNumber(errnoBytes[0]!);
}
