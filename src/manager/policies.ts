// Storage policies by name. There is no central place for them: each host keeps the whole book in a
// small file of its own and tells the others, so any part of a broken cluster can make VMs with all
// policies that it had heard of, and can make policies too. Of two parts that give the same name to
// different policies one wins when they meet again, and no VM changes: what a policy says was copied
// into the records of the objects when they were made. See docs/decisions/0009.

import { deviceClasses, isDeviceClass } from '../model/device.ts';
import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import type { JsonValue } from '../model/json.ts';
import { limits, type Timings } from '../model/limits.ts';
import {
  builtInPolicies,
  defaultPolicyName,
  hostsNeeded,
  policyText,
  type StoragePolicy,
} from '../model/policy.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { SmallFile } from '../ports/small-file.ts';
import type { Policies, PolicyInfo } from './api.ts';
import {
  chosenDefault,
  digestOf,
  entriesOf,
  merged,
  type PolicyBook,
  policiesOf,
  policyNamed,
  readBook,
  withDefault,
  withPolicy,
} from './policy-book.ts';

/** Where no default was chosen, or the chosen one has been removed meanwhile in another part. */
const fallback = 'mirror';

/** Begins to exchange policies over these networks when their sessions stand. */
export function createPolicies(options: {
  /** The same host on each of its networks. */
  readonly peers: readonly Peer[];
  readonly file: SmallFile;
  readonly clock: Clock;
  readonly timings: Timings;
  readonly log: Log;
}): Policies & { stop(): void } {
  const { peers, file, clock, log } = options;
  const self = peers[0]?.self ?? '';
  let book: PolicyBook = new Map();
  let timer: Timer | null = null;
  let stopped = false;
  let loading: Promise<void> | null = null;
  let changes: Promise<unknown> = Promise.resolve();

  /** Once it has succeeded it is done for good. */
  function loaded(): Promise<void> {
    loading ??= load().catch((error: unknown) => {
      loading = null;
      throw error;
    });
    return loading;
  }

  async function load(): Promise<void> {
    const text = await file.read();
    if (text !== null) become(merged(book, parse(text)));
  }

  function parse(text: string): PolicyBook {
    try {
      return readBook((JSON.parse(text) as { policies: JsonValue }).policies);
    } catch (error) {
      // The others have the same, and tell it.
      log.error(`the policies of ${self} can not be read and are asked for anew: ${String(error)}`);
      return new Map();
    }
  }

  /** One change after the other; what stands is what is durable. */
  function change(next: (book: PolicyBook) => PolicyBook): Promise<boolean> {
    const changed = changes.then(async () => {
      await loaded();
      const wanted = next(book);
      if (wanted === book) return false;
      await file.write(`${JSON.stringify({ policies: entriesOf(wanted) }, null, 1)}\n`);
      become(wanted);
      for (const peer of peers) peer.sendAll(others(peer), 'cluster.policies', entriesOf(book));
      return true;
    });
    changes = changed.catch(() => undefined);
    return changed;
  }

  function become(next: PolicyBook): void {
    book = next;
    if (book.size > 0 && timer === null && !stopped) compare();
  }

  /** A message may be lost: so digests are told as long as there is something to tell of. */
  function compare(): void {
    timer = clock.after(options.timings.directorySyncMs, compare);
    for (const peer of peers) peer.sendAll(others(peer), 'cluster.policyDigest', digestOf(book));
  }

  const others = (peer: Peer) => peer.connected().filter((host) => host !== self);

  function later(what: Promise<unknown>): void {
    what.catch((error: unknown) => {
      if (!stopped) log.warn(`policies: ${asHoldfastError(error).message}`);
    });
  }

  for (const peer of peers) {
    const tell = (host: Parameters<Peer['send']>[0]) => {
      if (book.size > 0 && !stopped) peer.send(host, 'cluster.policies', entriesOf(book));
    };
    peer.on('cluster.policies', (from, body) => {
      const told = readBook(body);
      const before = book;
      later(
        change((current) => merged(current, told)).then((isNews) => {
          if (!isNews) return;
          for (const [name, policy] of policiesOf(before)) {
            const now = policyNamed(book, name);
            if (now !== null && !saysTheSame(now, policy)) {
              log.warn(
                `policy ${name} is now ${policyText(now)}, as ${from} has it, not ${policyText(policy)}; objects keep what they have`,
              );
            }
          }
        }),
      );
    });
    peer.on('cluster.policyDigest', (from, body) => {
      if (body !== digestOf(book)) {
        tell(from);
        if (book.size === 0) peer.send(from, 'cluster.policyDigest', digestOf(book));
      }
    });
    peer.onSession((host, up) => {
      if (up) later(loaded().then(() => tell(host)));
    });
  }

  function defaultName(): string {
    const chosen = chosenDefault(book);
    return chosen !== null && contentOf(chosen) !== null ? chosen : fallback;
  }

  function contentOf(name: string): StoragePolicy | null {
    if (Object.hasOwn(builtInPolicies, name)) return builtInPolicies[name] ?? null;
    return policyNamed(book, name);
  }

  function names(): string[] {
    return [
      ...Object.keys(builtInPolicies),
      ...policiesOf(book)
        .map(([name]) => name)
        .sort(),
    ];
  }

  function info(name: string): PolicyInfo {
    const policy = contentOf(name);
    if (policy === null) {
      throw new HoldfastError(
        'unknown-object',
        `There is no storage policy "${name}" known on ${self}; there are ${names().join(', ')}`,
      );
    }
    return {
      name,
      failuresToTolerate: policy.failuresToTolerate,
      stripes: policy.stripes,
      thick: policy.thick === true,
      deviceClass: policy.deviceClass ?? null,
      hostsNeeded: hostsNeeded(policy),
      isBuiltIn: Object.hasOwn(builtInPolicies, name),
      isDefault: name === defaultName(),
    };
  }

  function assertOwn(name: string): void {
    if (name !== defaultPolicyName && !Object.hasOwn(builtInPolicies, name)) return;
    throw new HoldfastError(
      'bad-request',
      `name: "${name}" is built in and stays what it is; choose another name`,
    );
  }

  return {
    async list() {
      await loaded();
      return names().map(info);
    },
    async get(name) {
      await loaded();
      return info(name === defaultPolicyName ? defaultName() : name);
    },
    async create(name, policy) {
      assertOwn(name);
      assertSound(policy);
      await change((current) => {
        if (policyNamed(current, name) !== null) {
          throw new HoldfastError('name-in-use', `There is a storage policy "${name}" already`);
        }
        return withPolicy(current, name, policy, self);
      });
      log.info(`policy ${name} was made: ${policyText(policy)}`);
      return info(name);
    },
    async setDefault(name) {
      await change((current) => {
        info(name);
        return withDefault(current, name, self);
      });
      return info(name);
    },
    async remove(name) {
      assertOwn(name);
      await change((current) => {
        if (info(name).isDefault) {
          throw new HoldfastError(
            'conflict',
            `Policy "${name}" is the default; make another one the default first`,
          );
        }
        return withPolicy(current, name, null, self);
      });
    },
    async resolve(key, policy = defaultPolicyName) {
      if (typeof policy !== 'string') return policy;
      await loaded();
      const found = contentOf(policy === defaultPolicyName ? defaultName() : policy);
      if (found !== null) return found;
      throw new HoldfastError(
        'bad-request',
        `\`${key}\` is ${JSON.stringify(policy)}: expected one of the policies ${[defaultPolicyName, ...names()].join(', ')}.`,
      );
    },
    stop() {
      stopped = true;
      timer?.cancel();
    },
  };
}

function assertSound({ failuresToTolerate, stripes, deviceClass }: StoragePolicy): void {
  const within = (key: string, value: number, least: number, most: number) => {
    if (Number.isInteger(value) && value >= least && value <= most) return;
    throw new HoldfastError(
      'bad-request',
      `${key}: expected a whole number from ${least} to ${most}, found ${value}`,
    );
  };
  within('failuresToTolerate', failuresToTolerate, 0, limits.maxFailuresToTolerate);
  within('stripes', stripes, 1, limits.maxStripes);
  if (deviceClass === undefined || isDeviceClass(deviceClass)) return;
  throw new HoldfastError(
    'bad-request',
    `deviceClass: expected ${deviceClasses.join(' or ')}, found ${JSON.stringify(deviceClass)}`,
  );
}

function saysTheSame(a: StoragePolicy, b: StoragePolicy): boolean {
  return policyText(a) === policyText(b);
}
