import { assertEquals, assertThrows } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { OptionSet, splitOptions } from "../../../lib/block/options.ts";
import { exportAddress, shownAddress } from "../../../drivers/nbd/address.ts";
import { nbd } from "../../../drivers/nbd/driver.ts";

function parse(name: string, options: string) {
  const set = new OptionSet(nbd.openOptions!, splitOptions(options));
  const address = exportAddress(name, set);
  return { ...address, shown: shownAddress(address, set) };
}

/** Names, options, and the name that is shown. */
const SHOWN: readonly (readonly [name: string, options: string, shown: string])[] = [
  ["nbd://h", "", "nbd://h:10809"],
  ["nbd://h/", "", "nbd://h:10809"],
  ["nbd://h:0/x", "", "nbd://h:10809/x"],
  ["nbd+tcp://h:5/x", "", "nbd://h:5/x"],
  ["nbd://u@h:5/x#f", "", "nbd://h:5/x"],
  ["nbd://h:5//x", "", "nbd://h:5//x"],
  ["nbd://h/a%20b c", "", "nbd://h:10809/a b c"],
  ["nbd://[::1]:7/x", "", "nbd://::1:7/x"],
  ["nbd://h/x?", "", "nbd://h:10809/x"],
  ["nbd+unix:///?socket=/s", "", "nbd+unix://?socket=/s"],
  ["nbd+unix:///x?socket=/s", "", "nbd+unix:///x?socket=/s"],
  ["nbd+unix:///x?socket=/a&socket=%2Fs+t", "", "nbd+unix:///x?socket=/s+t"],
  ["nbd:h:7", "", "nbd://h:7"],
  ["nbd:h:http", "", "nbd://h:http"],
  ["nbd:h:7:exportname=a:b:exportname=%20", "", "nbd://h:7/a:b:exportname=%20"],
  ["nbd:[::1]:7", "", "nbd://::1:7"],
  ["nbd:unix:/s", "", "nbd+unix://?socket=/s"],
  ["nbd:unix:s:exportname=x", "", "nbd+unix:///x?socket=s"],
  ["", "host=h", "nbd://h:10809"],
  ["", "host=h,port=7,export=x", "nbd://h:7/x"],
  ["", "path=/s,export=", "nbd+unix:///?socket=/s"],
  ["", "server.type=inet,server.host=h,server.port=7", "nbd://h:7"],
  ["", "server.type=unix,server.path=/s", "nbd+unix://?socket=/s"],
];

for (const [name, options, shown] of SHOWN) {
  Deno.test(`nbd: ${name || options} is shown as ${shown}`, () => {
    assertEquals(parse(name, options).shown.exact, shown);
  });
}

const REFUSED: readonly (readonly [name: string, options: string, message: string])[] = [
  ["nbd://", "", "No valid URL specified"],
  ["nbd:///x", "", "No valid URL specified"],
  ["nbd://h?x=y", "", "No valid URL specified"],
  ["nbd://h:65536", "", "No valid URL specified"],
  ["nbd://h:x", "", "No valid URL specified"],
  ["nbd://h/%zz", "", "No valid URL specified"],
  ["nbd+unix:///x", "", "No valid URL specified"],
  ["nbd+unix://h/x?socket=/s", "", "No valid URL specified"],
  ["nbd+unix:///x?socket=/s&a=b", "", "No valid URL specified"],
  ["nbd+unix:///x?sock%6=/s", "", "No valid URL specified"],
  ["nbd:", "", "NBD server address missing"],
  ["nbd:h:7:exportname=", "", "NBD server address missing"],
  ["nbd:h", "", "error parsing address 'h'"],
  ["h:7", "", "File name string for NBD must start with 'nbd:'"],
  ["nbd:h:7", "export=x", "Option 'export' cannot be used with a file name"],
  ["", "", "NBD server address missing"],
  ["", "port=7", "NBD server address missing"],
  ["", "path=/s,host=h", "path and host may not be used at the same time"],
  ["", "path=/s,port=7", "port may not be used without host"],
  ["", "host=h,server.type=inet", "Cannot use 'server' and path/host/port at the same time"],
  ["", "server.host=h", "Parameter 'type' is missing"],
  ["", "server.type=x", "Parameter 'type' does not accept value 'x'"],
  ["", "server.type=inet,server.port=7", "Parameter 'host' is missing"],
  ["", "server.type=unix,server.path=/s,server.port=7", "Parameter 'port' is unexpected"],
  ["", "server.type=vsock", "Servers of type 'vsock' are not supported"],
  ["", "path=/s,export=" + "x".repeat(4097), "export name too long to send to server"],
];

for (const [name, options, message] of REFUSED) {
  Deno.test(`nbd: ${name || options.slice(0, 60)} is refused: ${message}`, () => {
    assertThrows(() => parse(name, options), ImageError, message);
  });
}

Deno.test("nbd: a node is opened again by the options that it was opened with", () => {
  assertEquals(parse("", "path=/s,export=x,open-timeout=3").shown.options, {
    path: "/s",
    export: "x",
  });
  assertEquals(parse("nbd://h/x", "tls-creds=t").shown.options, {
    "tls-creds": "t",
    "server.type": "inet",
    "server.host": "h",
    "server.port": "10809",
    export: "x",
  });
});
