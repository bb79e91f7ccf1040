/**
 * The registry: every driver by name, loaded when first used.
 *
 * Probing looks at small functions only, so that opening one format does not
 * load the others.
 *
 * @module
 */
import type { FormatEntry, ProtocolEntry } from "../lib/block/driver.ts";
import { probeBochs } from "./bochs/probe.ts";
import { probeCloop } from "./cloop/probe.ts";
import { probeDmg } from "./dmg/probe.ts";
import { probeLuks } from "./luks/probe.ts";
import { probeQcow } from "./qcow/probe.ts";
import { probeQcow2 } from "./qcow2/probe.ts";
import { probeQed } from "./qed/probe.ts";
import { probeHostDevice } from "./file/probe.ts";
import { nbdPermissions } from "./nbd/permissions.ts";
import { probeParallels } from "./parallels/probe.ts";
import { probeVdi } from "./vdi/probe.ts";
import { probeVhdx } from "./vhdx/probe.ts";
import { probeVmdk } from "./vmdk/probe.ts";
import { probeVpc } from "./vpc/probe.ts";

/** The format of a new image unless told, and of what no other format claims. */
export const DEFAULT_FORMAT = "raw";

/** The protocol of names without a prefix. */
export const DEFAULT_PROTOCOL = "file";

/** All formats. */
export const FORMATS: readonly FormatEntry[] = [
  {
    name: "bochs",
    probe: probeBochs,
    load: async () => (await import("./bochs/driver.ts")).bochs,
  },
  {
    name: "cloop",
    probe: probeCloop,
    load: async () => (await import("./cloop/driver.ts")).cloop,
  },
  {
    name: "dmg",
    probe: probeDmg,
    load: async () => (await import("./dmg/driver.ts")).dmg,
  },
  {
    name: "luks",
    probe: probeLuks,
    load: async () => (await import("./luks/driver.ts")).luks,
  },
  {
    name: "parallels",
    probe: probeParallels,
    load: async () => (await import("./parallels/driver.ts")).parallels,
  },
  {
    name: "qcow",
    probe: probeQcow,
    load: async () => (await import("./qcow/driver.ts")).qcow,
  },
  {
    name: "qcow2",
    probe: probeQcow2,
    load: async () => (await import("./qcow2/driver.ts")).qcow2,
  },
  {
    name: "qed",
    probe: probeQed,
    load: async () => (await import("./qed/driver.ts")).qed,
  },
  {
    name: "vdi",
    probe: probeVdi,
    load: async () => (await import("./vdi/driver.ts")).vdi,
  },
  {
    name: "vhdx",
    probe: probeVhdx,
    load: async () => (await import("./vhdx/driver.ts")).vhdx,
  },
  {
    name: "vmdk",
    probe: probeVmdk,
    load: async () => (await import("./vmdk/driver.ts")).vmdk,
  },
  {
    name: "vpc",
    probe: probeVpc,
    load: async () => (await import("./vpc/driver.ts")).vpc,
  },
  {
    name: "raw",
    probe: () => 1,
    load: async () => (await import("./raw.ts")).raw,
  },
];

/** What is opened by its name only, on top of a node of any kind. */
export const FILTERS: readonly FormatEntry[] = [
  {
    name: "blklogwrites",
    isFilter: true,
    probe: () => 0,
    load: async () => (await import("./blklogwrites/driver.ts")).blklogwrites,
  },
  {
    name: "compress",
    isFilter: true,
    probe: () => 0,
    load: async () => (await import("./filters/compress.ts")).compress,
  },
  {
    name: "copy-on-read",
    isFilter: true,
    probe: () => 0,
    load: async () => (await import("./filters/copy_on_read.ts")).copyOnRead,
  },
  {
    name: "preallocate",
    isFilter: true,
    probe: () => 0,
    load: async () => (await import("./filters/preallocate.ts")).preallocate,
  },
  {
    name: "snapshot-access",
    probe: () => 0,
    load: async () => (await import("./snapshot_access.ts")).snapshotAccess,
  },
  {
    name: "throttle",
    isFilter: true,
    probe: () => 0,
    load: async () => (await import("./filters/throttle.ts")).throttle,
  },
];

/** All protocols. */
export const PROTOCOLS: readonly ProtocolEntry[] = [
  {
    name: "file",
    prefixes: ["file"],
    load: async () => (await import("./file/driver.ts")).file,
  },
  {
    name: "blkdebug",
    prefixes: ["blkdebug"],
    keepsPrefix: true,
    load: async () => (await import("./blkdebug/driver.ts")).blkdebug,
  },
  {
    name: "blkverify",
    prefixes: ["blkverify"],
    keepsPrefix: true,
    load: async () => (await import("./blkverify/driver.ts")).blkverify,
  },
  {
    name: "quorum",
    prefixes: [],
    load: async () => (await import("./quorum/driver.ts")).quorum,
  },
  {
    name: "nbd",
    prefixes: ["nbd", "nbd+tcp", "nbd+unix"],
    keepsPrefix: true,
    permissions: nbdPermissions,
    load: async () => (await import("./nbd/driver.ts")).nbd,
  },
  {
    name: "host_device",
    prefixes: ["host_device"],
    probeDevice: probeHostDevice,
    load: async () => (await import("./file/driver.ts")).hostDevice,
  },
  {
    name: "host_cdrom",
    prefixes: ["host_cdrom"],
    load: async () => (await import("./file/driver.ts")).hostCdrom,
  },
  {
    name: "null-aio",
    prefixes: ["null-aio"],
    keepsPrefix: true,
    load: async () => (await import("./null/driver.ts")).nullAio,
  },
  {
    name: "null-co",
    prefixes: ["null-co"],
    keepsPrefix: true,
    load: async () => (await import("./null/driver.ts")).nullCo,
  },
  {
    name: "ssh",
    prefixes: ["ssh"],
    keepsPrefix: true,
    permissions: () => ["run"],
    load: async () => (await import("./ssh/driver.ts")).ssh,
  },
  {
    name: "http",
    prefixes: ["http"],
    keepsPrefix: true,
    permissions: () => ["net"],
    load: async () => (await import("./http/driver.ts")).http,
  },
  {
    name: "https",
    prefixes: ["https"],
    keepsPrefix: true,
    permissions: () => ["net"],
    load: async () => (await import("./http/driver.ts")).https,
  },
  {
    name: "vvfat",
    prefixes: ["fat"],
    keepsPrefix: true,
    load: async () => (await import("./vvfat/driver.ts")).vvfat,
  },
];
