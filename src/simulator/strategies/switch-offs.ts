// That a user has switched a VM off. In the product this is part of the change that gives the lock
// back, on the VM's own object, so that no start by HA can overlook it. A file is another object: the
// agent tells its master, again and again until it is written; the master notes it in memory at once
// and then writes it. What a host could not get written when it ends is lost.

import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import type { Epoch, HostId, VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { ProtectionState } from '../../model/protection.ts';
import { noPayload } from '../../peer/frame.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Life } from './life.ts';
import type { States } from './protection-file.ts';
import type { Shared } from './shared.ts';

const tellAgainMs = 1000;
/** Longer than a change of a record with all its retries. */
const timeoutMs = 10_000;

interface SwitchOffOptions {
  readonly self: HostId;
  readonly peer: Peer;
  readonly master: () => HostId | null;
  readonly write: (vm: VmId, state: ProtectionState) => Promise<void>;
  readonly onNoted: (vms: readonly VmId[]) => void;
  readonly life: Life;
  readonly shared: Shared;
}

export class SwitchOffs {
  readonly #options: SwitchOffOptions;
  /** On an agent: what it has not been told to be written. */
  readonly #pending = new Map<VmId, { readonly state: ProtectionState; inFlight: boolean }>();
  /** On a master: what it has been told and could not write yet. */
  readonly #noted = new Map<VmId, ProtectionState>();

  constructor(options: SwitchOffOptions) {
    this.#options = options;
    const { life, peer, shared } = options;
    peer.on('strategy.switchedOff', (_from, body, _payload, reply) => {
      const { vm, state } = body as unknown as { vm: VmId; state: ProtectionState };
      this.#note(vm, state).then(
        () => reply.ok(null),
        (error: unknown) => reply.fail(asHoldfastError(error)),
      );
    });
    life.every(tellAgainMs, () => {
      for (const vm of this.#pending.keys()) this.#tellMaster(vm);
    });
    life.atEnd(() => {
      shared.counters.protectionUpdatesLost += this.#pending.size;
    });
  }

  noted(): States {
    return this.#noted;
  }

  switchedOff(vm: VmId, state: ProtectionState): void {
    this.#pending.set(vm, { state, inFlight: false });
    this.#tellMaster(vm);
  }

  poweredOn(vm: VmId, epoch: Epoch): void {
    if ((this.#pending.get(vm)?.state.epoch ?? epoch) < epoch) this.#pending.delete(vm);
  }

  abdicated(): void {
    this.#noted.clear(); // the agents tell the next master
  }

  #tellMaster(vm: VmId): void {
    const { peer, master } = this.#options;
    const pending = this.#pending.get(vm);
    const to = master();
    if (pending === undefined || pending.inFlight || to === null) return;
    pending.inFlight = true;
    const body = { vm, state: { ...pending.state } } as unknown as JsonValue;
    peer.request(to, 'strategy.switchedOff', body, noPayload, timeoutMs, (error) => {
      pending.inFlight = false;
      const isDone = error === null || error.code === 'conflict'; // a newer entry stands there
      if (isDone && this.#pending.get(vm) === pending) this.#pending.delete(vm);
    });
  }

  async #note(vm: VmId, state: ProtectionState): Promise<void> {
    const { self, master, write, onNoted } = this.#options;
    if (master() !== self) throw new HoldfastError('no-master', `${self} is not the master`);
    this.#noted.set(vm, state);
    onNoted([vm]);
    try {
      await write(vm, state);
    } catch (error) {
      if (asHoldfastError(error).code !== 'conflict') throw error; // it remains noted
    }
    if (this.#noted.get(vm) === state) this.#noted.delete(vm);
  }
}
