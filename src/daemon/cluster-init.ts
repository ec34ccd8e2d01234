// How a host comes to be: as the first of a new cluster, or by joining one with a token. Either way
// its folder is made whole beside its place and then moved there in one step, so that a failure or a
// crash leaves the folder as it was: absent or empty.
//
// What is in the folder: config.yaml, ca.crt, host.crt and host.key, on the first host also ca.key,
// and data/ with the list of members. All paths in the configuration are relative to it.

import { mkdir, mkdtemp, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { asHoldfastError, HoldfastError, isError } from '../model/errors.ts';
import { hostId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import { syncFolder, writeFileDurably } from '../platform/durable-file.ts';
import { requestJoin } from '../platform/join-channel.ts';
import { type HostKind, type Member, openMembers, readMembers } from '../platform/members.ts';
import {
  createAuthority,
  createHostRequest,
  isIssuedFor,
  type JoinToken,
  readJoinToken,
  signHost,
} from '../platform/pki.ts';
import { type ConfigSettings, statePaths, writeConfig } from './config.ts';

/** What both ways need to know of the new host. */
export interface NewHost {
  /** The host's folder; absent or empty. */
  readonly dir: string;
  readonly name: string;
  readonly kind?: HostKind;
  readonly site?: string;
  readonly storageAddress: string;
  readonly haAddress: string;
  /** Further keys of the configuration, as they shall stand in the file. */
  readonly settings?: OptionalSettings;
}

export type OptionalSettings = Partial<
  Pick<ConfigSettings, 'runDir' | 'api' | 'capacity' | 'hypervisor' | 'timings' | 'log'>
>;

export interface MadeHost {
  /** For `holdfast host run --config`. */
  readonly configFile: string;
  readonly cluster: string;
  readonly members: readonly Member[];
}

/** Makes a new cluster of one host. Rejects with `conflict` if the folder has content, and with
 * `bad-request` for an impossible name, address or setting. */
export async function initCluster(host: NewHost & { readonly cluster: string }): Promise<MadeHost> {
  return makeFolder(host.dir, async (draft) => {
    const authority = await createAuthority(host.cluster);
    const { key, request } = await createHostRequest(host.name);
    const certificate = await signHost(authority, request, host.name);
    const members = [describe(host, true)];
    await writeHost(draft, host, {
      cluster: host.cluster,
      ca: authority.certificate,
      certificate,
      key,
      members,
    });
    await writeFileDurably(join(draft, 'ca.key'), authority.key);
    return { configFile: join(host.dir, 'config.yaml'), cluster: host.cluster, members };
  });
}

/** Makes a host of the cluster that issued the token. Also rejects with `unauthorized` if the token
 * has expired or was used, `name-in-use`, and `unreachable` if its issuer can not be reached. */
export async function joinCluster(host: NewHost & { readonly token: string }): Promise<MadeHost> {
  const token = readJoinToken(host.token);
  return makeFolder(host.dir, async (draft) => {
    const { key, request } = await createHostRequest(host.name);
    const member = describe(host, false);
    const { certificate, members } = await askIssuer(token, { ...member, request });
    const { ca } = token.credentials;
    if (!(await isIssuedFor(ca, certificate, key))) {
      throw new HoldfastError('unauthorized', `${token.issuer} answered with a wrong certificate`);
    }
    await writeHost(draft, host, { cluster: token.cluster, ca, certificate, key, members });
    return { configFile: join(host.dir, 'config.yaml'), cluster: token.cluster, members };
  });
}

/** The same request may be asked again: the issuer knows it by its key and answers alike. */
async function askIssuer(
  token: JoinToken,
  request: JsonValue,
): Promise<{ certificate: string; members: Member[] }> {
  let failure: HoldfastError | null = null;
  for (const address of [...token.addresses, ...token.addresses]) {
    try {
      const answer = await requestJoin(address, token.credentials, request);
      const { certificate, members } = answer as { certificate: string; members: JsonValue };
      return { certificate: String(certificate), members: readMembers(members) };
    } catch (error) {
      if (!isError(error, 'unreachable') && !isError(error, 'outcome-unknown')) throw error;
      if (failure?.code !== 'outcome-unknown') failure = error;
    }
  }
  throw failure ?? new HoldfastError('bad-request', 'The token names no address');
}

function describe(host: NewHost, issuer: boolean): Member {
  const { storageAddress, haAddress, kind = 'full', site } = host;
  const member = { name: hostId(host.name), kind, storageAddress, haAddress, issuer };
  return site === undefined ? member : { ...member, site };
}

interface HostFiles {
  readonly cluster: string;
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  readonly members: readonly Member[];
}

async function writeHost(draft: string, host: NewHost, files: HostFiles): Promise<void> {
  const issuer = files.members.find((member) => member.name === host.name)?.issuer === true;
  await writeConfig(join(draft, 'config.yaml'), {
    cluster: files.cluster,
    name: host.name,
    kind: host.kind ?? 'full',
    ...(host.site === undefined ? {} : { site: host.site }),
    dataDir: 'data',
    storage: { address: host.storageAddress },
    ha: { address: host.haAddress },
    tls: {
      ca: 'ca.crt',
      certificate: 'host.crt',
      key: 'host.key',
      ...(issuer ? { caKey: 'ca.key' } : {}),
    },
    ...host.settings,
  });
  await writeFileDurably(join(draft, 'ca.crt'), files.ca, 0o644);
  await writeFileDurably(join(draft, 'host.crt'), files.certificate, 0o644);
  await writeFileDurably(join(draft, 'host.key'), files.key);
  const data = join(draft, 'data');
  await mkdir(data, { mode: 0o700 });
  await (await openMembers(statePaths(data).members)).merge(files.members);
}

/** Fills a draft of the folder and moves it to its place. */
async function makeFolder<T>(dir: string, fill: (draft: string) => Promise<T>): Promise<T> {
  const place = resolve(dir);
  await refuseContent(place);
  const made = await mkdir(dirname(place), { recursive: true });
  let draft: string | null = null;
  try {
    draft = await mkdtemp(join(dirname(place), `.${basename(place)}.`)); // mode 0700
    const result = await fill(draft);
    await syncFolder(draft);
    await rename(draft, place); // also over an empty folder, and over nothing else
    await syncFolder(dirname(place));
    return result;
  } catch (error) {
    if (draft !== null) await rm(draft, { recursive: true, force: true });
    if (made !== undefined) await removeEmpty(dirname(place), made);
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTEMPTY' || code === 'EEXIST') throw notEmpty(place);
    throw asHoldfastError(error);
  }
}

/** Removes the folders from `path` up to `last` again, unless others use them by now. */
async function removeEmpty(path: string, last: string): Promise<void> {
  try {
    for (let folder = path; folder.length >= last.length; folder = dirname(folder)) {
      await rmdir(folder);
    }
  } catch {
    // Not empty: no longer ours.
  }
}

async function refuseContent(place: string): Promise<void> {
  try {
    if ((await readdir(place)).length > 0) throw notEmpty(place);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof HoldfastError) throw error;
    if (code !== 'ENOENT') throw new HoldfastError('disk-error', message, { cause: error });
  }
}

function notEmpty(place: string): HoldfastError {
  return new HoldfastError('conflict', `${place} exists and is not empty`);
}
