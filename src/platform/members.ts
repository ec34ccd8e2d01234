// The hosts of the cluster that this host knows of, durable in one JSON file. Hosts learn of each
// other by telling; the list only grows, so that hearing old news does no harm: a host that was removed stays
// in it as such, and its name is not given again. About itself each host knows best: its own entry, told
// by itself, replaces what others have, but for its removal.

import { readFile } from 'node:fs/promises';
import { HoldfastError } from '../model/errors.ts';
import type { HostId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import { parseAddress } from './address.ts';
import { writeFileDurably } from './durable-file.ts';
import { isName } from './identity.ts';

/** `full` runs VMs and holds data; `witness` only votes. */
export type HostKind = 'full' | 'witness';

// A type, not an interface: it is sent as JSON.
export type Member = {
  readonly name: HostId;
  readonly kind: HostKind;
  readonly storageAddress: string;
  readonly haAddress: string;
  /** Has the key of the cluster's authority, so it can make join tokens. */
  readonly issuer: boolean;
  /** What may fail together with it: a building, a room. */
  readonly site?: string;
  readonly removed?: true;
};

export interface Members {
  /** In the order of their names, without those that were removed. */
  list(): readonly Member[];
  /** With them. */
  all(): readonly Member[];
  /** Resolves when durable. */
  remove(name: HostId): Promise<void>;
  /** Also one that was removed. */
  get(name: HostId): Member | undefined;
  /** Adds those that are new, and the `teller`'s own entry; resolves when durable, to whether the
   * list has changed. */
  merge(told: readonly Member[], teller?: HostId): Promise<boolean>;
}

/** Throws `store-damaged` for a file that can not be understood; a missing one is an empty list. */
export async function openMembers(path: string): Promise<Members> {
  let known = await load(path);
  let saved: Promise<unknown> = Promise.resolve();

  async function mergeNow(told: readonly Member[], teller: HostId | undefined): Promise<boolean> {
    const next = new Map(known);
    for (const member of told) {
      const before = next.get(member.name);
      if (before?.removed) continue;
      if (member.removed) next.set(member.name, { ...(before ?? member), removed: true });
      else if (before === undefined || member.name === teller) next.set(member.name, member);
    }
    const text = format(next);
    if (text === format(known)) return false;
    await writeFileDurably(path, text);
    known = next;
    return true;
  }

  function merge(told: readonly Member[], teller?: HostId): Promise<boolean> {
    const merged = saved.then(() => mergeNow(told, teller));
    saved = merged.catch(() => {});
    return merged;
  }

  return {
    list: () => sorted(known).filter((member) => !member.removed),
    all: () => sorted(known),
    async remove(name) {
      const member = known.get(name);
      if (member !== undefined) await merge([{ ...member, removed: true }]);
    },
    get: (name) => known.get(name),
    merge,
  };
}

/** The members in a message or file; throws `bad-request` naming what is wrong. */
export function readMembers(value: JsonValue | undefined): Member[] {
  if (!Array.isArray(value)) throw new HoldfastError('bad-request', 'The member list is no list');
  return value.map((entry: JsonValue) => {
    const member = entry as Record<string, JsonValue> | null;
    const { name, kind, storageAddress, haAddress, issuer, site, removed } = member ?? {};
    const valid =
      typeof name === 'string' &&
      isName(name) &&
      (kind === 'full' || kind === 'witness') &&
      typeof storageAddress === 'string' &&
      parseAddress(storageAddress) !== null &&
      typeof haAddress === 'string' &&
      parseAddress(haAddress) !== null &&
      typeof issuer === 'boolean' &&
      (site === undefined || (typeof site === 'string' && isName(site))) &&
      (removed === undefined || removed === true);
    if (!valid) {
      throw new HoldfastError('bad-request', `${JSON.stringify(entry)} does not describe a host`);
    }
    return {
      name: name as HostId,
      kind,
      storageAddress,
      haAddress,
      issuer,
      ...(site === undefined ? {} : { site }),
      ...(removed === undefined ? {} : { removed }),
    };
  });
}

async function load(path: string): Promise<ReadonlyMap<HostId, Member>> {
  try {
    const content = JSON.parse(await readFile(path, 'utf8')) as { members?: JsonValue };
    return new Map(readMembers(content.members).map((member) => [member.name, member]));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('store-damaged', `${path} can not be read: ${why}`, { cause });
  }
}

function format(members: ReadonlyMap<HostId, Member>): string {
  return `${JSON.stringify({ members: sorted(members) }, null, 2)}\n`;
}

function sorted(members: ReadonlyMap<HostId, Member>): Member[] {
  return [...members.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}
