/** Snapshots of disks that change their size, and `resize` of images with snapshots. */
import { img, io } from "./_cases.ts";
import { guest, story } from "./_stories.ts";

for (const options of ["", "cluster_size=4k", "cluster_size=512", "extended_l2=on"]) {
  const create = img(`create -f qcow2 ${options === "" ? "" : `-o ${options} `}a 1M`);
  const given = [create, io("a", "write -P 1 0 900k")];
  // The reference changes the size first and the content afterwards, which a crash can come between.
  story(`snapshot -a, disks of other sizes (${options})`, {
    given,
    events: [
      "snapshot -c one a",
      "resize a 3M",
      ...guest("a", "write -P 2 800k 1M"),
      "snapshot -c two a",
      "snapshot -a one a",
      "snapshot -l a",
      "snapshot -a two a",
      "resize --shrink a 500k",
      "snapshot -c three a",
      "snapshot -a one a",
      "snapshot -a 3 a",
      "snapshot -d one a",
      "snapshot -a two a",
      "snapshot -d two a",
      "snapshot -d three a",
    ],
    otherBytes: true,
  });
  story(`resize with snapshots (${options})`, {
    given,
    events: [
      "snapshot -c one a",
      "resize a 3M",
      ...guest("a", "write -P 2 800k 1M"),
      "resize a 20M",
      "snapshot -c two a",
      ...guest("a", "write -P 3 10M 1M", "write -P 4 0 100k"),
      "resize --shrink a 2M",
      "resize --preallocation=metadata a 4M",
      "snapshot -c three a",
      "resize --preallocation=falloc a 5M",
      "resize --shrink a 512",
      "snapshot -d one a",
      "snapshot -d two a",
      "resize --shrink a 1024",
      "resize a 1M",
    ],
  });
}
