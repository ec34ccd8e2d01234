// Things that the tests of the platform share: a cluster's certificates, folders that vanish, and
// waiting for a condition without saying how long it may take (the runner's time-out does).

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import ts from 'typescript';
import { afterEach } from 'vitest';
import { type HostId, hostId } from '../../src/model/ids.ts';
import { parseAddress } from '../../src/platform/address.ts';
import { createClock } from '../../src/platform/clock.ts';
import type { TlsCredentials } from '../../src/platform/identity.ts';
import type { JoinHandler } from '../../src/platform/join-channel.ts';
import {
  type Authority,
  createAuthority,
  createHostRequest,
  signHost,
} from '../../src/platform/pki.ts';
import { createRandom } from '../../src/platform/random.ts';
import { createTlsTransport, type TlsTransport } from '../../src/platform/tls-transport.ts';
import type { Log } from '../../src/ports/log.ts';

const cleanups: (() => unknown)[] = [];

/** Runs after the test, last registered first. */
export function cleanUp(action: () => unknown): void {
  cleanups.push(action);
}

afterEach(async () => {
  while (cleanups.length > 0) await cleanups.pop()?.();
});

export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-test-'));
  cleanUp(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Compiles a source file and what it imports, for another process; the path of the result. */
export async function compiled(source: string): Promise<string> {
  const root = resolve(import.meta.dirname, '../../src');
  const target = await temporaryFolder();
  const pending = [source];
  for (const name of pending) {
    const text = await readFile(join(root, name), 'utf8');
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: {
        module: ts.ModuleKind.ESNext,
        target: ts.ScriptTarget.ES2023,
        verbatimModuleSyntax: true,
        rewriteRelativeImportExtensions: true,
      },
    });
    const output = join(target, name.replace(/\.ts$/, '.js'));
    await mkdir(dirname(output), { recursive: true });
    await writeFile(output, outputText);
    for (const [, imported] of outputText.matchAll(/from ['"](\.[^'"]+)\.js['"]/g)) {
      const file = `${join(dirname(name), imported as string)}.ts`;
      if (!pending.includes(file)) pending.push(file);
    }
  }
  await writeFile(join(target, 'package.json'), '{"type":"module"}');
  return join(target, source.replace(/\.ts$/, '.js'));
}

export const clock = createClock();

export function quietLog(lines: string[] = []): Log {
  const add = (message: string) => void lines.push(message);
  const log: Log = { debug: add, info: add, warn: add, error: add, child: () => log };
  return log;
}

let shared: Promise<Authority> | null = null;
export function authority(): Promise<Authority> {
  shared ??= createAuthority('test');
  return shared;
}

export async function credentialsOf(
  name: string,
  by?: Authority,
  validityMs?: number,
): Promise<TlsCredentials> {
  const ca = by ?? (await authority());
  const { key, request } = await createHostRequest(name);
  return { ca: ca.certificate, certificate: await signHost(ca, request, name, validityMs), key };
}

export interface TestHost {
  readonly name: HostId;
  readonly transport: TlsTransport;
  readonly address: string;
  /** `up host`, `down host closed`, `down host silent`. */
  readonly events: string[];
  readonly frames: { from: HostId; bytes: Uint8Array }[];
  readonly logged: string[];
  stop(): Promise<void>;
}

/** A host with one network on 127.0.0.1; sessions may be silent unless told otherwise. */
export async function startHost(
  name: string,
  options: {
    address?: string;
    credentials?: TlsCredentials;
    idleTimeoutMs?: number;
    onJoin?: JoinHandler;
  } = {},
): Promise<TestHost> {
  const logged: string[] = [];
  const transport = createTlsTransport({
    self: hostId(name),
    network: 'storage',
    address: options.address ?? '127.0.0.1:0',
    credentials: options.credentials ?? (await credentialsOf(name)),
    clock,
    random: createRandom(),
    log: quietLog(logged),
    idleTimeoutMs: options.idleTimeoutMs ?? 60_000,
    ...(options.onJoin ? { onJoin: options.onJoin } : {}),
  });
  const address = await transport.listen();
  const events: string[] = [];
  const frames: TestHost['frames'] = [];
  transport.start({
    up: (host) => void events.push(`up ${host}`),
    down: (host, how) => void events.push(`down ${host} ${how}`),
    frame: (from, bytes) => void frames.push({ from, bytes }),
  });
  const stop = () => transport.stop();
  cleanUp(stop);
  return { name: hostId(name), transport, address, events, frames, logged, stop };
}

export interface RawClient {
  readonly socket: TLSSocket;
  /** All bytes that the host sent. */
  received(): Buffer;
  readonly closed: Promise<void>;
}

/** A TLS client that says what the test says, with any or no certificate. */
export function rawClient(
  address: string,
  credentials: { ca?: string; certificate?: string; key?: string },
): RawClient {
  const { host, port } = parseAddress(address) as { host: string; port: number };
  const socket = connect({
    host,
    port,
    rejectUnauthorized: false,
    ...(credentials.ca === undefined ? {} : { ca: credentials.ca }),
    ...(credentials.certificate === undefined ? {} : { cert: credentials.certificate }),
    ...(credentials.key === undefined ? {} : { key: credentials.key }),
  });
  const pieces: Buffer[] = [];
  socket.on('data', (bytes) => pieces.push(bytes));
  socket.on('error', () => {});
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  cleanUp(() => socket.destroy());
  return { socket, received: () => Buffer.concat(pieces), closed };
}

/** The credentials in a token, without asking whether it has expired. */
export function credentialsIn(token: string): TlsCredentials {
  const json = Buffer.from(token.slice('holdfast-join-v1.'.length), 'base64url').toString();
  const [, , , ca, certificate, key] = JSON.parse(json) as string[];
  const pem = (base64: string | undefined, label: string) =>
    `-----BEGIN ${label}-----\n${base64}\n-----END ${label}-----\n`;
  return {
    ca: pem(ca, 'CERTIFICATE'),
    certificate: pem(certificate, 'CERTIFICATE'),
    key: pem(key, 'PRIVATE KEY'),
  };
}

export function lengthPrefixed(content: string | Uint8Array): Buffer {
  const bytes = Buffer.from(content);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(bytes.length);
  return Buffer.concat([head, bytes]);
}
