/** `bench`: what is said, what fails, and what has been written afterwards. How long it took is masked. */
import { disk, type Given, img, io, same, sameForEach, text } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

const normalize = (text: string) => text.replaceAll(/in \d+\.\d{3} seconds/g, "in N seconds");

const RAW: readonly Given[] = [disk("a", M, [[0, 300 * K, "noise"], [512 * K, 100 * K, "noise"]])];
const QCOW2: readonly Given[] = [
  ...RAW,
  img("create -f qcow2 -b a -F raw b 1M"),
  io("b", "write -P 7 100k 200k", "write -z 600k 64k"),
];

sameForEach("bench reads", [
  "bench -f raw -c 300 a",
  "bench -f raw -c 300 -d 1 a",
  "bench -f raw -c 300 -d 3 a",
  "bench -f raw -c 5 -d 100000 -s 512 a",
  "bench -f raw -c 0x20 -d 010 a",
  "bench -f raw -c 300 -o 0x2000 -s 8k -d 2 a",
  "bench -f raw -c 20 -s 300 a",
  "bench -f raw -c 20 -s 1M a",
  "bench -f raw -c 20 -S 0 a",
  "bench -f raw -c 20 -S 64k a",
  "bench -f raw -c 20 -S 1M -d 1 a",
  "bench -f raw -c 20 -o 512k -S 768k a",
  "bench -f raw -c 20 -S 2147483647 -s 1 a",
  "bench -f raw --count=20 --depth=2 --offset=4k --buffer-size=1k --step-size=2k a",
  "bench -f raw -c 20 -i threads a",
  "bench -f raw -c 20 -i io_uring a",
  "bench -f raw -c 20 -U a",
  "bench -f raw -c 20 -q a",
  "bench -f raw -c 20 --pattern 5 a",
  "bench -f raw -c 20 --no-drain a",
  "bench -f raw -c 20 --flush-interval 0 a",
  "bench -f raw -c 20 -t none a",
  "bench -f raw -c 20 -t none -n a",
  "bench -f raw -c 20 -t directsync --native -s 100 a",
  "bench -f raw -c 20 -t writethrough a",
  "bench -f raw -c 20 -t unsafe a",
  "bench -c 20 a",
  "bench --image-opts -c 20 driver=raw,file.filename=a,offset=4096,size=8192",
  "bench --image-opts -c 20 -n driver=raw,file.filename=a,cache.direct=on",
  "bench --image-opts -c 20 -n driver=raw,file.filename=a,file.aio=threads",
], { given: RAW, normalize, code: 0 });

sameForEach("bench reads through an image and what is behind it", [
  "bench -c 300 b",
  "bench -c 300 -d 1 b",
  "bench -c 300 -s 8k -d 5 -f qcow2 b",
  "bench -c 300 -s 64k -S 3k -o 4k -U -d 1 -c 100 b",
], { given: QCOW2, normalize, code: 0 });

sameForEach("bench writes", [
  "bench -f raw -w -c 300 a",
  "bench -f raw -w -c 300 -d 1 --pattern 7 a",
  "bench -f raw -w -c 100 -d 5 --pattern 0x7f -o 12k a",
  "bench -f raw -w -c 10 -s 1000 -S 3000 --pattern 255 a",
  "bench -f raw -w -c 100 -d 4 --flush-interval 4 --pattern 1 a",
  "bench -f raw -w -c 100 -d 4 --flush-interval 7 --no-drain --pattern 1 a",
  "bench -f raw -w -c 100 -d 1 --flush-interval 1 --pattern 1 a",
  "bench -f raw -w -c 100 -t writethrough --pattern 1 a",
  "bench -f raw -w -c 100 -t none -n --pattern 1 a",
  "bench -f raw -w -c 100 -t directsync --pattern 1 -s 512 -S 1k a",
  "bench -f raw -w -c 100 -t unsafe --flush-interval 100 --pattern 1 a",
], { given: RAW, normalize, files: ["a"], code: 0 });

sameForEach("bench writes to an image", [
  "bench -w -c 100 -d 1 --pattern 9 b",
  "bench -w -c 100 -d 16 --pattern 9 b",
  "bench -w -c 100 -s 3000 -S 50k -d 7 --pattern 9 -f qcow2 b",
  "bench -w -c 200 -d 4 --flush-interval 16 b",
], { given: QCOW2, normalize, images: ["b"], files: ["a"], code: 0 });

for (const format of ["vmdk", "vhdx", "vpc", "vdi", "parallels", "qed", "qcow"]) {
  same(`bench writes to ${format}`, {
    given: [img(`create -f ${format} b 4M`)],
    run: `bench -w -f ${format} -c 300 -d 8 -o 100k -S 12k -s 8k --pattern 3 b`,
    normalize,
    images: [{ name: "b", format }],
    // Beside a request the reference fills new blocks with zeros, or leaves them holes, as it likes.
    slack: 2 * M,
    code: 0,
  });
}

same("bench says that writing the first sector is restricted where the format was guessed", {
  given: RAW,
  run: "bench -w -c 10 --pattern 5 -d 2 a",
  normalize,
  files: ["a"],
  code: 0,
});

sameForEach("bench fails", [
  "bench -f raw -c 5 empty",
  "bench -f raw -w -c 5 empty",
  "bench -f raw -c 5 -d 1 empty",
  "bench -f raw -c 5 -o 1M a",
  "bench -f raw -c 5 -o 1M -d 1 a",
  "bench -f raw -c 5 -o 9223372036854775807 a",
  "bench -f raw -c 5 -o 1048575 a",
  "bench -f raw -c 5 -s 1048577 -d 1 a",
  "bench -f raw -c 300 -o 0x1000 -s 8k -d 2 a",
  "bench -f raw -c 300 -s 8k -S 4k a",
  "bench -f raw -c 300 -s 8k -S 4k -d 1 a",
  "bench -f raw -c 5 odd",
  "bench -f raw -n -c 5 a",
  "bench -f raw -i native -i threads -c 5 a",
  "bench -n -c 5 none",
  "bench -n --image-opts driver=raw,file.filename=a",
  "bench none",
  "bench -w none",
  "bench .",
  "bench -f zork a",
  "bench -f qcow2 a",
  "bench -w -U a",
  "bench -f raw --image-opts driver=raw,file.filename=a",
  "bench --image-opts driver=raw,file.filename=a,zork=on",
], { given: [...RAW, text("odd", "x".repeat(5000)), text("empty", "")], normalize, code: 1 });

// Which request fails is certain, and so is what it says.
const failing = (rule: string) =>
  `driver=blkdebug,image.driver=raw,image.file.filename=a,inject-error.0.event=none,${rule}`;
for (
  const [what, ...line] of [
    ["a read", "-d", "2", failing("inject-error.0.iotype=read,inject-error.0.errno=28")],
    ["a write", "-w", "-d", "2", failing("inject-error.0.iotype=write,inject-error.0.errno=27")],
    [
      "a flush",
      ...["-w", "-d", "2", "--flush-interval", "4"],
      failing("inject-error.0.iotype=flush,inject-error.0.errno=28"),
    ],
    [
      "a flush on the side",
      ...["-w", "-d", "2", "--flush-interval", "4", "--no-drain"],
      failing("inject-error.0.iotype=flush,inject-error.0.errno=28"),
    ],
  ]
) {
  same(`bench tells why ${what} failed`, {
    given: RAW,
    run: ["bench", "-c", "20", "--image-opts", ...line],
    // It may come after the last request.
    normalize: (text) => normalize(text).replace(/^Run completed.*\n/m, ""),
    code: 1,
  });
}

sameForEach("bench refuses", [
  "bench",
  "bench a a",
  "bench -c 0 a",
  "bench -c x a",
  "bench -c 1k a",
  "bench -c 2147483648 a",
  "bench -c -f raw",
  "bench -d 0 a",
  "bench -d 2147483648 a",
  "bench -d 1.5 a",
  "bench -i zork a",
  "bench -i zork -t zork a",
  "bench -t zork -i zork a",
  "bench -t zork",
  "bench -o -1 a",
  "bench -o x a",
  "bench -o 8E a",
  "bench -s 0 a",
  "bench -s 2G a",
  "bench -s x a",
  "bench -S -1 a",
  "bench -S 2G a",
  "bench --pattern 256 a",
  "bench --pattern -1 a",
  "bench --pattern x a",
  "bench --flush-interval -1 a",
  "bench --flush-interval 2147483648 a",
  "bench --flush-interval 5 a",
  "bench --flush-interval 5",
  "bench -w --flush-interval 63 a",
  "bench -w --flush-interval 3 -d 4 none",
  "bench -s",
  "bench --zork a",
  "bench --object secret,id=s,data=d a",
], { given: RAW, normalize, code: 1 });
