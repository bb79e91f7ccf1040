/**
 * Folders for tests ({@linkcode tempDir}, {@linkcode withTempDir}), with native calls loaded, which stay so
 * for good: no test is to be blamed for it.
 */
import { loadNative } from "../lib/io/native.ts";

loadNative();

export { type TempDir, tempDir, withTempDir } from "./_folders.ts";
