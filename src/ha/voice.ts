// What this host says of itself to the others: heartbeats, and the list of its VMs and of the hosts whose storage it
// reaches whenever that changed, though not more often than each 100 ms.

import type { HostId } from '../model/ids.ts';
import type { Peer } from '../peer/peer.ts';
import type { VmRunner } from './api.ts';
import type { Claim } from './election.ts';
import { haLimits } from './limits.ts';
import type { Membership } from './membership.ts';
import type { Heartbeat, VmList } from './messages.ts';

export class Voice {
  readonly #peer: Peer;
  readonly #membership: Membership;
  readonly #runner: VmRunner;
  readonly #instance: string;
  #sent: VmList;
  #reaches: readonly HostId[] = [];
  #isListDue = false;
  #listSentAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: {
    readonly peer: Peer;
    readonly membership: Membership;
    readonly runner: VmRunner;
    readonly instance: string;
  }) {
    this.#peer = options.peer;
    this.#membership = options.membership;
    this.#runner = options.runner;
    this.#instance = options.instance;
    this.#sent = { instance: options.instance, version: 0, vms: [], reaches: [] };
  }

  /** To those that this host hears it says another thing than to the others: two bodies at most. */
  beat(to: Iterable<HostId>, claim: Claim, master: HostId | null, nowMs: number): void {
    const heard: HostId[] = [];
    const unheard: HostId[] = [];
    for (const host of to) {
      if (!this.#peer.isConnected(host)) continue;
      (this.#membership.hears(host, nowMs) ? heard : unheard).push(host);
    }
    for (const hosts of [heard, unheard]) {
      if (hosts.length === 0) continue;
      const beat = this.#beat(claim, master, hosts === heard);
      this.#peer.sendAll(hosts, 'ha.heartbeat', { ...beat });
    }
  }

  #beat(claim: Claim, master: HostId | null, hearsYou: boolean): Heartbeat {
    const { kind, role, term, reachable } = claim;
    const { cpus, memoryBytes } = kind === 'witness' ? noCapacity : this.#runner.capacity();
    return {
      instance: this.#instance,
      hearsYou,
      kind,
      role,
      master,
      term,
      reachable,
      cpus,
      memoryBytes,
      listVersion: this.#sent.version,
    };
  }

  listChanged(): void {
    this.#isListDue = true;
  }

  /** Hosts of the storage network that this one reaches now. */
  reaches(hosts: readonly HostId[]): void {
    if (hosts.join() === this.#reaches.join()) return;
    this.#reaches = hosts;
    this.#isListDue = true;
  }

  nextListMs(): number {
    return this.#isListDue ? this.#listSentAtMs + haLimits.listPauseMs : Number.POSITIVE_INFINITY;
  }

  /** Sends the list to all if it changed and the last one is old enough. */
  tellList(nowMs: number): void {
    if (nowMs < this.nextListMs()) return;
    this.#isListDue = false;
    this.#listSentAtMs = nowMs;
    const version = this.#sent.version + 1;
    const vms = this.#runner.running();
    this.#sent = { instance: this.#instance, version, vms, reaches: this.#reaches };
    this.sendList([...this.#membership.hosts()]);
  }

  sendList(to: readonly HostId[]): void {
    const connected = to.filter((host) => this.#peer.isConnected(host));
    const { vms, ...rest } = this.#sent;
    const list = { ...rest, vms: vms.map((vm) => ({ ...vm })) };
    this.#peer.sendAll(connected, 'ha.vms', list);
  }
}

const noCapacity = { cpus: 0, memoryBytes: 0 };
