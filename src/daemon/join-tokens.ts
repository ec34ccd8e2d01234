// The issuer's side of joining: makes tokens and honours each once. Only a host with the key of the
// cluster's authority can; the others say who has it.
//
// A token is used up, durably and together with the answer, before the answer is given. Who asks
// again with the same token and the same request, because the answer was lost, gets the same answer.

import { readFile } from 'node:fs/promises';
import { HoldfastError } from '../model/errors.ts';
import type { JsonValue } from '../model/json.ts';
import { writeFileDurably } from '../platform/durable-file.ts';
import type { JoinHandler, JoinTicket } from '../platform/join-channel.ts';
import { type Members, readMembers } from '../platform/members.ts';
import {
  type Authority,
  createJoinToken,
  fingerprint,
  signHost,
  tokenValidityMs,
} from '../platform/pki.ts';
import { type HostConfig, statePaths } from './config.ts';

export interface JoinTokens {
  /** A new token, and when it ends (milliseconds since 1970). Rejects with `unauthorized` on a host
   * without the authority's key. */
  create(): Promise<{ readonly token: string; readonly expiresAt: number }>;
  /** For the transports' `onJoin`. The new host is among the members when it resolves. */
  readonly accept: JoinHandler;
}

interface UsedToken {
  readonly request: string;
  readonly certificate: string;
  readonly usedAt: number;
}

/** Used tokens are remembered for longer than any token is valid, clocks set back included. */
const rememberMs = 30 * 24 * 3_600_000 + tokenValidityMs;

export function createJoinTokens(config: HostConfig, members: Members): JoinTokens {
  const file = statePaths(config.dataDir).usedTokens;
  let earlier: Promise<unknown> = Promise.resolve();

  async function authority(): Promise<Authority> {
    if (config.tls.caKey === null) {
      const issuers = members.list().filter((member) => member.issuer);
      const names = issuers.map((member) => member.name).join(' or ');
      const where = names === '' ? 'no known host has it' : `do it on ${names}`;
      const message = `${config.name} has no key of the cluster's authority; ${where}`;
      throw new HoldfastError('unauthorized', message);
    }
    return {
      certificate: await readFile(config.tls.ca, 'utf8'),
      key: await readFile(config.tls.caKey, 'utf8'),
    };
  }

  async function accept(request: JsonValue, ticket: JoinTicket): Promise<JsonValue> {
    const ca = await authority();
    if (ticket.issuer !== config.name) {
      throw new HoldfastError('unauthorized', `This token is to be used at ${ticket.issuer}`);
    }
    const { member, csr } = readRequest(request);
    const asked = fingerprint(JSON.stringify([member, csr]));
    const used = await loadUsed(file);
    const earlierUse = used[ticket.serial];
    if (earlierUse !== undefined && earlierUse.request !== asked) {
      throw new HoldfastError('unauthorized', 'This token has been used already');
    }
    let certificate = earlierUse?.certificate;
    if (certificate === undefined) {
      if (members.get(member.name) !== undefined) {
        throw new HoldfastError('name-in-use', `The cluster has a host "${member.name}" already`);
      }
      certificate = await signHost(ca, csr, member.name);
      used[ticket.serial] = { request: asked, certificate, usedAt: Date.now() };
      await writeFileDurably(file, `${JSON.stringify(used)}\n`);
    }
    await members.merge([member]);
    return { certificate, members: [...members.all()] };
  }

  return {
    async create() {
      const issuer = await authority();
      const expiresAt = Date.now() + tokenValidityMs;
      const { name, cluster } = config;
      const addresses = [config.storage.address, config.ha.address];
      return {
        token: await createJoinToken(issuer, { cluster, issuer: name, addresses }),
        expiresAt,
      };
    },
    // One at a time: two hosts must not be given the same name.
    accept(request, ticket) {
      const answer = earlier.then(() => accept(request, ticket));
      earlier = answer.catch(() => {});
      return answer;
    },
  };
}

function readRequest(request: JsonValue) {
  const { request: csr, ...described } = (request ?? {}) as { [key: string]: JsonValue };
  if (typeof csr !== 'string')
    throw new HoldfastError('bad-request', 'The signing request is missing');
  const [member] = readMembers([{ ...described, issuer: false }]);
  if (member === undefined) throw new HoldfastError('bad-request', 'The host is not described');
  return { member, csr };
}

async function loadUsed(file: string): Promise<Record<string, UsedToken>> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
  try {
    const entries = Object.entries(JSON.parse(text) as Record<string, UsedToken>);
    return Object.fromEntries(entries.filter(([, use]) => use.usedAt > Date.now() - rememberMs));
  } catch (cause) {
    throw new HoldfastError('store-damaged', `${file} can not be read`, { cause });
  }
}
