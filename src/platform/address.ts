// Where a host listens: `192.0.2.7:7400`, `host-1.example:7400` or `[2001:db8::7]:7400`.

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Null for what is not an address with a port. */
export function parseAddress(text: string): Address | null {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65535 ? null : { host: (match[1] ?? match[2]) as string, port };
}

export function formatAddress(address: Address): string {
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}
