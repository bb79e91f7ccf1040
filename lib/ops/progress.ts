/**
 * Called as an operation gets on: with a fraction from 0 to 1, and with the
 * bytes that there are to do in all where that is known (it lets a rate be
 * shown).
 */
export type Progress = (fraction: number, totalBytes?: number) => void;
