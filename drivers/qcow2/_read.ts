// All metadata and data of this format are read so (introduction of the format's reference).
export { readPadded } from "../../lib/block/read_padded.ts";
