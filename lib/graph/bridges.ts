/** By the protocol's name, the command that serves it as NBD. `%` stands for the rest of a name. */
const BRIDGES: Readonly<Record<string, string>> = {
  ftp: "nbdkit -U - curl URL --run 'qimg info \"$uri\"'",
  ftps: "nbdkit -U - curl URL --run 'qimg info \"$uri\"'",
  gluster: "qemu-nbd -k SOCKET -f raw gluster://HOST/VOLUME/PATH",
  iscsi: "qemu-nbd -k SOCKET -f raw iscsi://HOST/TARGET/LUN",
  nfs: "qemu-nbd -k SOCKET -f raw nfs://HOST/PATH",
  nvme: "qemu-nbd -k SOCKET -f raw nvme://ADDRESS/NAMESPACE",
  rbd: "qemu-nbd -k SOCKET -f raw rbd:POOL/IMAGE",
};

/** Advice for a protocol that others speak: how to reach it through NBD. `undefined` if none is known. */
export function bridgeTo(protocol: string): string | undefined {
  // `gluster+unix`, `nfs3` and the like are names of the same thing.
  const name = Object.keys(BRIDGES).find((known) => protocol.split("+")[0] === known);
  if (name === undefined) return undefined;
  const command = BRIDGES[name]!;
  const then = command.startsWith("nbdkit") ? "" : "\nand then name nbd+unix:///?socket=SOCKET";
  return `What it reaches can be served as NBD by another program:\n  ${command}${then}`;
}
