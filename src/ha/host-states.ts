// The states of hosts, in vSphere's names: what each means, from which to which a host may go, and
// the one place where a state is set. A host sets its own state by what its election decides; the
// states of others are derived from what is heard of them, where steps in between may be missed.

import type { HostId } from '../model/ids.ts';
import type { Log } from '../ports/log.ts';
import type { HostState } from './api.ts';

const hostStates: Readonly<Record<HostState, string>> = {
  unknown: 'never heard of since this agent started, but possibly running VMs',
  initializationError: 'the agent could not start; it takes no part',
  election: 'hears no master and takes part in choosing one',
  master: 'looks after the VMs of its partition of the HA network',
  connectedToMaster: 'follows a master that it hears',
  networkPartitionedFromMaster: 'not in our partition of the HA network, but alive',
  networkIsolated: 'hears no other member on either network; it is master of itself alone',
  hostDown: 'heard on neither network; its VMs may run elsewhere once their locks are free',
};

const own: Readonly<Record<HostState, readonly HostState[]>> = {
  unknown: ['election', 'initializationError'],
  initializationError: [],
  election: ['master', 'connectedToMaster', 'networkIsolated'],
  master: ['election', 'connectedToMaster', 'networkIsolated'],
  connectedToMaster: ['election'],
  networkIsolated: ['election', 'master', 'connectedToMaster'],
  networkPartitionedFromMaster: [],
  hostDown: [],
};

const heard: readonly HostState[] = ['election', 'master', 'connectedToMaster'];
const silent: readonly HostState[] = ['networkPartitionedFromMaster', 'hostDown'];

const seen: Readonly<Record<HostState, readonly HostState[]>> = {
  unknown: [...heard, ...silent],
  initializationError: [],
  election: [...heard, ...silent],
  master: [...heard, ...silent],
  connectedToMaster: [...heard, ...silent],
  networkPartitionedFromMaster: [...heard, ...silent],
  networkIsolated: [],
  hostDown: [...heard, ...silent],
};

export class HostStates {
  readonly #self: HostId;
  readonly #log: Log;
  readonly #states = new Map<HostId, HostState>();

  constructor(self: HostId, log: Log) {
    this.#self = self;
    this.#log = log;
  }

  get(host: HostId): HostState {
    return this.#states.get(host) ?? 'unknown';
  }

  set(host: HostId, next: HostState, why: string): void {
    const before = this.get(host);
    if (before === next) return;
    const allowed = host === this.#self ? own : seen;
    if (!allowed[before].includes(next)) {
      // A mistake of ours, but one of telling only: no failover may break off because of it.
      this.#log.error(`${host} should not go from ${before} to ${next} (${why})`);
    }
    this.#states.set(host, next);
    // Of others an agent tells nothing, and a master who comes into its sight, or goes out of it.
    const ours = this.get(this.#self);
    const isMaster = ours === 'master' || ours === 'networkIsolated';
    const isNews = isMaster && (silent.includes(before) || silent.includes(next));
    const level = host === this.#self || isNews ? 'info' : 'debug';
    this.#log[level](`${host}: ${before} -> ${next} (${why})`, { means: hostStates[next] });
  }

  /** A host that is no member any more. */
  forget(host: HostId): void {
    this.#states.delete(host);
  }
}
