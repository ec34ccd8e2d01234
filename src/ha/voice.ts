// What this host says of itself to the others: heartbeats, and the list of its VMs whenever that
// changed, though not more often than each 100 ms.

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
    this.#sent = { instance: options.instance, version: 0, vms: [] };
  }

  beat(to: HostId, claim: Claim, master: HostId | null, nowMs: number): void {
    if (!this.#peer.isConnected(to)) return;
    const { kind, role, term, reachable } = claim;
    const { cpus, memoryBytes } = kind === 'witness' ? noCapacity : this.#runner.capacity();
    const beat: Heartbeat = {
      instance: this.#instance,
      hearsYou: this.#membership.hears(to, nowMs),
      kind,
      role,
      master,
      term,
      reachable,
      cpus,
      memoryBytes,
      listVersion: this.#sent.version,
    };
    this.#peer.send(to, 'ha.heartbeat', { ...beat });
  }

  listChanged(): void {
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
    this.#sent = { instance: this.#instance, version, vms: this.#runner.running() };
    for (const member of this.#membership.members()) this.sendList(member.host);
  }

  sendList(to: HostId): void {
    if (!this.#peer.isConnected(to)) return;
    const { instance, version, vms } = this.#sent;
    this.#peer.send(to, 'ha.vms', { instance, version, vms: vms.map((vm) => ({ ...vm })) });
  }
}

const noCapacity = { cpus: 0, memoryBytes: 0 };
