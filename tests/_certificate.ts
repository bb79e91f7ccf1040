/** Certificates of servers on this machine, made anew for each test: none is in the repository. */

/** A certificate and its key, both as PEM. */
export interface Certificate {
  /** Signed by itself, for the address 127.0.0.1. */
  readonly cert: string;
  /** The private key. */
  readonly key: string;
}

const ECDSA_SHA256 = der(0x30, der(0x06, [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
const COMMON_NAME = der(0x06, [0x55, 0x04, 0x03]);
const ALTERNATIVE_NAMES = der(0x06, [0x55, 0x1d, 0x11]);

/** Makes one (RFC 5280, 4.1) that is good until the year 2049. */
export async function makeCertificate(): Promise<Certificate> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const { publicKey, privateKey } = await crypto.subtle.generateKey(algorithm, true, ["sign"]);
  const name = der(0x30, der(0x31, der(0x30, [...COMMON_NAME, ...der(0x0c, text("qimg test"))])));
  const address = der(0x30, der(0x87, [127, 0, 0, 1]));
  const body = der(0x30, [
    ...der(0xa0, der(0x02, [2])),
    ...der(0x02, [0x01, ...crypto.getRandomValues(new Uint8Array(8))]),
    ...ECDSA_SHA256,
    ...name,
    ...der(0x30, [...der(0x17, text("200101000000Z")), ...der(0x17, text("491231235959Z"))]),
    ...name,
    ...new Uint8Array(await crypto.subtle.exportKey("spki", publicKey)),
    ...der(0xa3, der(0x30, der(0x30, [...ALTERNATIVE_NAMES, ...der(0x04, address)]))),
  ]);
  const signed = await crypto.subtle.sign(algorithm, privateKey, new Uint8Array(body));
  const signature = new Uint8Array(signed);
  const numbers = [signature.subarray(0, 32), signature.subarray(32)].flatMap(derInteger);
  const cert = der(0x30, [...body, ...ECDSA_SHA256, ...der(0x03, [0, ...der(0x30, numbers)])]);
  return {
    cert: pem("CERTIFICATE", cert),
    key: pem("PRIVATE KEY", new Uint8Array(await crypto.subtle.exportKey("pkcs8", privateKey))),
  };
}

function der(tag: number, content: Iterable<number>): number[] {
  const bytes = [...content];
  const { length } = bytes;
  const size = length < 0x80
    ? [length]
    : length < 0x100
    ? [0x81, length]
    : [0x82, length >> 8, length & 0xff];
  return [tag, ...size, ...bytes];
}

/** A number of no sign, in as few bytes as can be. */
function derInteger(bytes: Uint8Array): number[] {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? [0] : [...bytes.subarray(first)];
  return der(0x02, digits[0]! >= 0x80 ? [0, ...digits] : digits);
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function pem(label: string, bytes: Iterable<number>): string {
  const base64 = new Uint8Array(bytes).toBase64().replace(/.{64}/g, "$&\n");
  return `-----BEGIN ${label}-----\n${base64}\n-----END ${label}-----\n`;
}
