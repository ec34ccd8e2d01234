// Who is at the other end of a TLS connection: what the certificate, already verified against the
// cluster's authority, says. A role keeps the two kinds of certificates apart: `host` may hold
// sessions, `join` may ask once to become a host, and nothing else.

import type { DetailedPeerCertificate, PeerCertificate } from 'node:tls';
import { type HostId, hostId } from '../model/ids.ts';

export interface TlsCredentials {
  /** PEM texts: the authority's certificate, and this host's certificate and key. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** URIs among the certificate's alternative names. */
export const hostRoleUri = 'holdfast:host';
export const joinRoleUri = 'holdfast:join';
/** Followed by the name of the only host that may honour the token. */
export const issuerUriPrefix = 'holdfast:issuer:';

export type Identity =
  | { readonly role: 'host'; readonly name: HostId }
  | { readonly role: 'join'; readonly serial: string; readonly issuer: HostId };

/** What people may name a host, a cluster: a lower-case DNS label. */
export const nameSyntax = 'a name of 1 to 63 lower-case letters, digits and inner hyphens';

export function isName(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

/** Null for a certificate with no role, two roles or an impossible name. */
export function readIdentity(
  certificate: PeerCertificate | DetailedPeerCertificate,
): Identity | null {
  const uris = (certificate.subjectaltname ?? '')
    .split(', ')
    .filter((name) => name.startsWith('URI:holdfast:'))
    .map((name) => name.slice('URI:'.length));
  const isHost = uris.includes(hostRoleUri);
  const isJoin = uris.includes(joinRoleUri);
  if (isHost === isJoin) return null;
  if (isHost) {
    const name: unknown = certificate.subject?.CN;
    return typeof name === 'string' && isName(name) ? { role: 'host', name: hostId(name) } : null;
  }
  const issuer = uris.find((uri) => uri.startsWith(issuerUriPrefix))?.slice(issuerUriPrefix.length);
  if (issuer === undefined || !isName(issuer)) return null;
  return {
    role: 'join',
    serial: certificate.serialNumber.toLowerCase(),
    issuer: hostId(issuer),
  };
}
