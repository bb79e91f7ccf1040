/** Called with a fraction from 0 to 1 as an operation gets on. */
export type Progress = (fraction: number) => void;
