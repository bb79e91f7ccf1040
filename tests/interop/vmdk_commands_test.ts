/** Commands on VMDKs, through both tools. */
import { withoutContentId } from "../drivers/vmdk/_mask.ts";
import { disk, type Given, img, ioAs, sameForEach, text } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

const io = (image: string, ...commands: readonly string[]) => ioAs("vmdk", image, ...commands);
const create = (options: string) => img(`create -f vmdk ${options}`);
const mask = withoutContentId;

const DATA = disk("raw", 5 * M, [
  [0, 100 * K, "mixed"],
  [M, 300 * K, "noise"],
  [2 * M, 200 * K, "gaps"],
]);
const PAIR: readonly Given[] = [
  create("base.vmdk 5M"),
  io("base.vmdk", "write -P 1 0 1M", "write -P 2 3M 1M"),
  create("-b base.vmdk -F vmdk a.vmdk"),
  io("a.vmdk", "write -P 3 500k 100k", "write -P 4 4900k 20k"),
];
const CHAIN: readonly Given[] = [
  ...PAIR,
  create("-b a.vmdk -F vmdk top.vmdk"),
  io("top.vmdk", "write -P 5 2M 64k"),
];

sameForEach("vmdk, commit", [
  "commit a.vmdk",
  "commit -d a.vmdk",
  "commit -q -b base.vmdk a.vmdk",
  "commit -t writethrough -r 100M a.vmdk",
], { given: PAIR, files: ["base.vmdk", "a.vmdk"], mask, slack: 6 * M });
sameForEach("vmdk, commit in a chain", [
  "commit top.vmdk",
  "commit -b base.vmdk top.vmdk",
  "commit -b none top.vmdk",
], { given: CHAIN, files: ["base.vmdk", "a.vmdk", "top.vmdk"], mask, slack: 6 * M });
sameForEach("vmdk, commit refuses", [
  "commit base.vmdk",
  "commit raw",
  "commit -f qcow2 a.vmdk",
], { given: [...PAIR, DATA], files: ["base.vmdk", "a.vmdk"], mask, code: 1 });
sameForEach("vmdk, commit into a base that changed", ["commit a.vmdk"], {
  given: [...PAIR, io("base.vmdk", "write -P 9 2M 64k")],
  files: ["base.vmdk", "a.vmdk"],
  mask,
  slack: 6 * M,
});

sameForEach("vmdk, rebase", [
  "rebase -b other.vmdk -F vmdk a.vmdk",
  "rebase -b other.vmdk a.vmdk",
  "rebase -u -b other.vmdk -F vmdk a.vmdk",
  "rebase -u -b other.vmdk a.vmdk",
  "rebase -p -b base.vmdk -F vmdk a.vmdk",
  "rebase -b none -F vmdk a.vmdk",
  "rebase -b raw -F raw a.vmdk",
], {
  given: [...PAIR, create("other.vmdk 5M"), io("other.vmdk", "write -P 7 0 3M"), DATA],
  slack: 6 * M,
});

sameForEach("vmdk, compare", [
  "compare a.vmdk flat.vmdk",
  "compare -s a.vmdk flat.vmdk",
  "compare a.vmdk base.vmdk",
  "compare -s a.vmdk top.vmdk",
  "compare -f vmdk -F vmdk a.vmdk stream.vmdk",
  "compare stream.vmdk flat.vmdk",
  "compare -f raw -F vmdk a.vmdk a.vmdk",
  "compare -U a.vmdk a.vmdk",
], {
  given: [
    ...CHAIN,
    img("convert -O vmdk -o subformat=monolithicFlat a.vmdk flat.vmdk"),
    img("convert -O vmdk -o subformat=streamOptimized a.vmdk stream.vmdk"),
  ],
});

sameForEach("vmdk, convert says how far it is", [
  "convert -p -O vmdk raw b.vmdk",
  "convert -p -O raw a.vmdk b",
  "convert -p -O vmdk -o subformat=streamOptimized raw b.vmdk",
  "convert -p -O raw stream.vmdk b",
  "convert -p -O vmdk -o subformat=twoGbMaxExtentSparse a.vmdk b.vmdk",
], { given: [...PAIR, DATA, img("convert -O vmdk -o subformat=streamOptimized raw stream.vmdk")] });

sameForEach("vmdk, convert refuses", [
  "convert -O vmdk -o subformat=nothing raw b.vmdk",
  "convert -O vmdk -o cluster_size=4k raw b.vmdk",
  "convert -O vmdk -B base.vmdk -F vmdk -o subformat=monolithicFlat a.vmdk b.vmdk",
  "convert -O vmdk -B base.vmdk -F raw a.vmdk b.vmdk",
  "convert -O vmdk a.vmdk base.vmdk",
  "convert -O vmdk a.vmdk a.vmdk",
  "convert -n -O vmdk raw small.vmdk",
  "convert -l x -O raw a.vmdk b",
  "convert --bitmaps -O vmdk a.vmdk b.vmdk",
], { given: [...PAIR, DATA, create("small.vmdk 1M")], code: 1 });

sameForEach("vmdk, convert refuses, and leaves nothing of it", [
  "convert -O vmdk -B none -F vmdk a.vmdk b.vmdk",
], { given: PAIR, leftByReference: ["b.vmdk"], code: 1 });

sameForEach("vmdk, dd", [
  "dd if=a.vmdk of=b bs=64k count=10 skip=5",
  "dd -O vmdk if=raw of=b.vmdk bs=1M",
  "dd -f vmdk -O vmdk if=a.vmdk of=b.vmdk bs=100k skip=3",
], {
  given: [...PAIR, DATA],
});

sameForEach("vmdk, what there is not", [
  "snapshot -c x a.vmdk",
  "snapshot -a x a.vmdk",
  "snapshot -d x a.vmdk",
  "snapshot -l a.vmdk",
  "bitmap --remove -f vmdk a.vmdk b",
  "amend -o compat6=on a.vmdk",
  "amend -f vmdk -o help",
  "amend -f vmdk -o size=1G a.vmdk",
  "resize a.vmdk +1M",
  "resize a.vmdk 5M",
  "resize -f vmdk --shrink a.vmdk 1M",
  "resize --preallocation=full a.vmdk 10M",
  "measure -O vmdk --size 1G",
  "measure --size 1G -O vmdk -o subformat=streamOptimized",
  "measure -O qcow2 a.vmdk",
  "measure --output=json -O qcow2 -f vmdk a.vmdk",
  "check -r all a.vmdk",
  "check -q a.vmdk",
  "check -f qcow2 a.vmdk",
  "create -f vmdk -o preallocation=full b.vmdk 1M",
], { given: PAIR });

sameForEach("vmdk, opened by options", [
  "info --image-opts driver=vmdk,file.filename=a.vmdk",
  "info --image-opts driver=vmdk,file.driver=file,file.filename=a.vmdk,backing.driver=vmdk,backing.file.filename=base.vmdk",
  "map --output=json --image-opts driver=vmdk,file.filename=a.vmdk",
  "map --image-opts driver=vmdk,file.filename=a.vmdk,backing=",
  "info --image-opts driver=vmdk,file.filename=a.vmdk,x=y",
  "info --image-opts driver=vmdk,file.driver=raw,file.file.filename=base.vmdk",
  "info --image-opts driver=vmdk,file.driver=raw,file.file.filename=flat.vmdk",
  "map --image-opts driver=vmdk,file.driver=raw,file.file.filename=flat.vmdk",
  "map --image-opts driver=vmdk,file.driver=qcow2,file.file.filename=q.qcow2",
  'info json:{"driver":"vmdk","file":{"driver":"file","filename":"a.vmdk"}}',
  'info json:{"driver":"vmdk","file":{"driver":"file","filename":"flat.vmdk"}}',
  "info -U a.vmdk",
  "convert -O raw --image-opts driver=vmdk,file.filename=flat.vmdk out",
], {
  given: [
    ...PAIR,
    create("-o subformat=monolithicFlat flat.vmdk 1M"),
    img("create -f qcow2 q.qcow2 5M"),
  ],
});

sameForEach("vmdk, extents that cannot be had", [
  "info flat.vmdk",
  "info --output=json flat.vmdk",
  "check flat.vmdk",
  "convert -O raw flat.vmdk out",
  "map flat.vmdk",
], {
  given: [
    text(
      "flat.vmdk",
      '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="vmfs"\n' +
        'RW 1 VMFS "flat.vmdk"\nRW 2048 VMFS "sub/none"\n',
    ),
  ],
  code: 1,
});
