// The cluster's own certificate authority. It signs two kinds of certificates: of hosts, which may
// hold sessions with each other, and of join tokens, which entitle their bearer to ask once, within
// the hour, to become a host. Private keys of hosts never travel: a joining host makes its own and
// sends a signing request.
//
// ECDSA on P-256, which every TLS library speaks. Certificates begin a day early, because the clocks
// of new machines are often wrong.

import 'reflect-metadata';
import { createHash, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { HoldfastError } from '../model/errors.ts';
import type { HostId } from '../model/ids.ts';
import {
  hostRoleUri,
  isName,
  issuerUriPrefix,
  joinRoleUri,
  nameSyntax,
  type TlsCredentials,
} from './identity.ts';

x509.cryptoProvider.set(webcrypto);

/** PEM texts. */
export interface Authority {
  readonly certificate: string;
  readonly key: string;
}

export interface HostRequest {
  /** PEM; stays on the host. */
  readonly key: string;
  /** PEM of the PKCS #10 request, for the authority. */
  readonly request: string;
}

export interface JoinToken {
  readonly cluster: string;
  /** The host that made the token and alone honours it. */
  readonly issuer: HostId;
  /** Where to find it. */
  readonly addresses: readonly string[];
  readonly credentials: TlsCredentials;
}

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' } as const;
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const authorityValidityMs = 20 * 365 * dayMs;
const hostValidityMs = 10 * 365 * dayMs;
export const tokenValidityMs = hourMs;
const tokenPrefix = 'holdfast-join-v1.';

export async function createAuthority(cluster: string): Promise<Authority> {
  checkName(cluster, 'cluster');
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ O: ['Holdfast'] }, { CN: [`Holdfast cluster ${cluster}`] }],
    serialNumber: newSerial(),
    notBefore: new Date(Date.now() - dayMs),
    notAfter: new Date(Date.now() + authorityValidityMs),
    keys,
    signingAlgorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
}

/** A new key for a host, and the request to certify it. */
export async function createHostRequest(name: string): Promise<HostRequest> {
  checkName(name, 'host');
  const keys = await makeKeys();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm,
  });
  return { key: await exportKey(keys.privateKey), request: request.toString('pem') };
}

/** Certifies the key of a request for the host `name`; whether it may have the name is the caller's
 * to decide. Rejects with `bad-request` if the requester does not have the key's private half. */
export async function signHost(
  authority: Authority,
  request: string,
  name: string,
  validityMs = hostValidityMs,
): Promise<string> {
  checkName(name, 'host');
  let csr: x509.Pkcs10CertificateRequest;
  try {
    csr = new x509.Pkcs10CertificateRequest(request);
    const { name: algorithm, namedCurve } = csr.publicKey.algorithm as webcrypto.EcKeyAlgorithm;
    if (algorithm !== keyAlgorithm.name || namedCurve !== keyAlgorithm.namedCurve) {
      throw new Error('its key is not one of P-256');
    }
    if (!(await csr.verify())) throw new Error('it is not signed by its own key');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('bad-request', `The signing request is not usable: ${why}`, { cause });
  }
  return sign(authority, csr.publicKey, {
    name,
    validityMs,
    usages: [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth],
    alternatives: [
      { type: 'dns', value: name },
      { type: 'url', value: hostRoleUri },
    ],
  });
}

/** A token with which one host can join within the hour. */
export async function createJoinToken(
  authority: Authority,
  token: Omit<JoinToken, 'credentials'>,
  validityMs = tokenValidityMs,
): Promise<string> {
  checkName(token.issuer, 'host');
  const keys = await makeKeys();
  const certificate = await sign(authority, await x509.PublicKey.create(keys.publicKey), {
    name: 'join',
    validityMs,
    usages: [x509.ExtendedKeyUsage.clientAuth],
    alternatives: [
      { type: 'url', value: joinRoleUri },
      { type: 'url', value: `${issuerUriPrefix}${token.issuer}` },
    ],
  });
  const content = [
    token.cluster,
    token.issuer,
    token.addresses,
    pemToBase64(authority.certificate),
    pemToBase64(certificate),
    pemToBase64(await exportKey(keys.privateKey)),
  ];
  return tokenPrefix + Buffer.from(JSON.stringify(content)).toString('base64url');
}

/** Throws `bad-request` for what is not a token, `unauthorized` for one that has expired. */
export function readJoinToken(text: string): JoinToken {
  const problem = 'This is not a join token; it begins with "holdfast-join-v1." and is one line';
  const trimmed = text.trim();
  if (!trimmed.startsWith(tokenPrefix)) throw new HoldfastError('bad-request', problem);
  let token: JoinToken;
  let expiresAt: Date;
  try {
    const content = Buffer.from(trimmed.slice(tokenPrefix.length), 'base64url').toString('utf8');
    const [cluster, issuer, addresses, ca, certificate, key] = JSON.parse(content) as [
      string,
      HostId,
      string[],
      string,
      string,
      string,
    ];
    if (!isName(cluster) || !isName(issuer) || !Array.isArray(addresses)) throw new Error(problem);
    const credentials = {
      ca: base64ToPem(ca, 'CERTIFICATE'),
      certificate: base64ToPem(certificate, 'CERTIFICATE'),
      key: base64ToPem(key, 'PRIVATE KEY'),
    };
    token = { cluster, issuer, addresses: addresses.map(String), credentials };
    expiresAt = new x509.X509Certificate(credentials.certificate).notAfter;
  } catch (cause) {
    throw new HoldfastError('bad-request', `${problem}; a part of it may be missing`, { cause });
  }
  if (expiresAt.getTime() < Date.now()) {
    throw new HoldfastError('unauthorized', `The token has expired at ${expiresAt.toISOString()}`);
  }
  return token;
}

/** Whether `certificate` is signed by the authority and belongs to the private key. */
export async function isIssuedFor(
  caCertificate: string,
  certificate: string,
  key: string,
): Promise<boolean> {
  try {
    const issued = new x509.X509Certificate(certificate);
    const ca = new x509.X509Certificate(caCertificate);
    if (!(await issued.verify({ publicKey: ca.publicKey }))) return false;
    const data = webcrypto.getRandomValues(new Uint8Array(32));
    const signature = await webcrypto.subtle.sign(signingAlgorithm, await importKey(key), data);
    const publicKey = await issued.publicKey.export();
    return await webcrypto.subtle.verify(signingAlgorithm, publicKey, signature, data);
  } catch {
    return false;
  }
}

/** Identity of a signing request, to know it again. */
export function fingerprint(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

interface CertificateContent {
  readonly name: string;
  readonly validityMs: number;
  readonly usages: x509.ExtendedKeyUsage[];
  readonly alternatives: x509.JsonGeneralNames;
}

async function sign(
  authority: Authority,
  publicKey: x509.PublicKey,
  content: CertificateContent,
): Promise<string> {
  const issuer = new x509.X509Certificate(authority.certificate);
  const expiresAt = Math.min(Date.now() + content.validityMs, issuer.notAfter.getTime());
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [content.name] }],
    issuer: issuer.subjectName,
    serialNumber: newSerial(),
    notBefore: new Date(Math.min(Date.now(), expiresAt) - dayMs),
    notAfter: new Date(expiresAt),
    publicKey,
    signingKey: await importKey(authority.key),
    signingAlgorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(content.usages),
      new x509.SubjectAlternativeNameExtension(content.alternatives),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  return certificate.toString('pem');
}

function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey('pkcs8', key);
  return base64ToPem(Buffer.from(bytes).toString('base64'), 'PRIVATE KEY');
}

function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  const bytes = Buffer.from(pemToBase64(pem), 'base64');
  return webcrypto.subtle.importKey('pkcs8', bytes, keyAlgorithm, false, ['sign']);
}

/** 126 random bits; the first byte is such that the number is positive and has no leading zero. */
function newSerial(): string {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  bytes[0] = ((bytes[0] as number) & 0x3f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}

function pemToBase64(pem: string): string {
  return pem.replace(/-----[A-Z ]+-----/g, '').replace(/\s/g, '');
}

function base64ToPem(base64: string, label: string): string {
  const lines = base64.match(/.{1,64}/g)?.join('\n') ?? '';
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

function checkName(name: string, kind: string): void {
  if (isName(name)) return;
  throw new HoldfastError(
    'bad-request',
    `"${name}" can not be a ${kind}'s name: use ${nameSyntax}`,
  );
}
