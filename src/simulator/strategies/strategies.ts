// The conventional ways of doing HA, on the product's own store, networks and hosts: what HA gets to
// see of the storage is decorated, or HA itself is replaced. So that a difference in a comparison is
// one of the strategy, everything else is the very code of the product.
//
// The parts of a host are to be made anew for each start of its daemon.

import { createHa } from '../../ha/ha.ts';
import { productStrategies, type Strategies } from '../../scenario/scenario.ts';
import type { Storage } from '../../storage/api.ts';
import { alwaysYes, answering, published } from './access.ts';
import { withoutAsking } from './conventional.ts';
import { createHaOnFile } from './file-ha.ts';
import { Life } from './life.ts';
import { namespaceOnly } from './namespace-only.ts';
import { notifyByInterval, notifyOfObjects } from './notify.ts';
import { createPeersHa } from './peers.ts';
import { PerVmFiles } from './per-vm-file.ts';
import type { ProtectionFile } from './protection-file.ts';
import { SegmentedFile } from './segmented-file.ts';
import { type CreateHa, changed, type HaOptions, type RunningHa, type Shared } from './shared.ts';
import { CentralFile, WitnessFile } from './single-file.ts';

export interface StrategyParts {
  readonly createHa?: CreateHa;
}

/** What `createHost` is to be given; nothing for the product's own strategies. `shared` is one per
 * cluster, see `createShared`. */
export function partsFor(strategies: Strategies, shared: Shared): StrategyParts {
  return isProduct(strategies) ? {} : countingPartsFor(strategies, shared);
}

/** As `partsFor`, but counts in `shared` what the product's own HA asks for, too. */
export function countingPartsFor(strategies: Strategies, shared: Shared): Required<StrategyParts> {
  return { createHa: (options) => build(strategies, shared, options) };
}

function isProduct(strategies: Strategies): boolean {
  const keys = Object.keys(productStrategies) as (keyof Strategies)[];
  return keys.every((key) => strategies[key] === productStrategies[key]);
}

function build(strategies: Strategies, shared: Shared, options: HaOptions): RunningHa {
  const life = new Life(options.clock);
  const isCoarse = strategies.accessible === 'namespace-only';
  const answers = isCoarse ? namespaceOnly(options.storage) : options.storage;
  const storage = notified(strategies.notify, counted(answers, shared));
  const peer = peerFor(strategies.access, options, storage, life);
  const seen = strategies.failover === 'conventional' ? withoutAsking(storage) : storage;
  const create = strategies.coordination === 'peers' ? createPeersHa : createHa;
  const inner = { ...options, storage: seen, peer };
  const everyoneLeads = strategies.coordination === 'peers';
  const file = fileFor(strategies.protection, { ...options, storage }, shared, everyoneLeads);
  const ha =
    file === null
      ? create(inner)
      : createHaOnFile(create, inner, { file, life, shared, everyoneLeads });
  return changed(ha, {
    start() {
      life.begin();
      ha.start();
    },
    stop() {
      life.end();
      ha.stop();
    },
  });
}

function counted(storage: Storage, shared: Shared): Storage {
  return {
    ...storage,
    accessibility(vms, scope) {
      const answers = storage.accessibility(vms, scope);
      shared.counters.accessibilityQueries += answers.size;
      return answers;
    },
  };
}

function notified(notify: Strategies['notify'], storage: Storage): Storage {
  switch (notify) {
    case 'vm':
      return storage;
    case 'object':
      return notifyOfObjects(storage);
    case 'interval':
      return notifyByInterval(storage);
  }
}

function peerFor(
  access: Strategies['access'],
  { peer, self }: HaOptions,
  storage: Storage,
  life: Life,
): HaOptions['peer'] {
  switch (access) {
    case 'query':
      return peer;
    case 'publish':
      return answering(peer, self, published(storage, life));
    case 'trial':
      return answering(peer, self, alwaysYes);
  }
}

function fileFor(
  protection: Strategies['protection'],
  options: HaOptions,
  shared: Shared,
  everyoneLeads: boolean,
): ProtectionFile | null {
  const { self, storage, clock, members } = options;
  switch (protection) {
    case 'namespace-metadata':
      return null;
    case 'central-file':
      return new CentralFile(storage);
    case 'witness-file':
      return new WitnessFile(storage, everyoneLeads);
    case 'segmented-file':
      return new SegmentedFile({ self, storage, clock, members, shared });
    case 'per-vm-file':
      return new PerVmFiles({ self, storage, clock, shared });
  }
}
