// Which guests exist, over all machines at once and by true time, which no host can know. From this
// follow the two invariants that the whole system is for: never two instances of a VM at one instant,
// and none that was begun without the VM's lock.

import type { Epoch, HostId, VmId } from '../../model/ids.ts';
import type { Guest } from '../../ports/guests.ts';
import type { Ledger } from './ledger.ts';
import type { Report } from './violation.ts';

/** What is looked at of a guest. */
export interface SeenGuest {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly state: Guest['state'];
  readonly hasRead: boolean;
  /** It hangs, or has given up. */
  readonly doesNothing: boolean;
}

interface Instances {
  /** All that have not exited; a paused one does no harm, but may go on. */
  readonly alive: Map<SeenGuest, HostId>;
  /** The newest epoch of which a guest has completed a read. */
  readEpoch: number;
}

export class Guests {
  readonly #ledger: Ledger;
  readonly #report: Report;
  readonly #vms = new Map<VmId, Instances>();

  constructor(ledger: Ledger, report: Report) {
    this.#ledger = ledger;
    this.#report = report;
  }

  changed(host: HostId, guest: SeenGuest): void {
    const instances = this.#instances(guest.vm);
    if (guest.state === 'exited') {
      this.readEpoch(guest.vm);
      instances.alive.delete(guest);
      return;
    }
    const isNew = !instances.alive.has(guest);
    instances.alive.set(guest, host);
    if (isNew) this.#checkLock(host, guest);
    if (guest.state === 'running') this.#checkSingle(host, guest, instances);
  }

  /** The newest epoch of the VM of which a guest has completed its first read; 0: none has. */
  readEpoch(vm: VmId): number {
    const instances = this.#instances(vm);
    for (const guest of instances.alive.keys()) {
      if (guest.hasRead && guest.epoch > instances.readEpoch) instances.readEpoch = guest.epoch;
    }
    return instances.readEpoch;
  }

  /** Where a guest of this epoch has not exited; null: nowhere. */
  aliveAt(vm: VmId, epoch: Epoch): HostId | null {
    for (const [guest, host] of this.#instances(vm).alive) if (guest.epoch === epoch) return host;
    return null;
  }

  /** Its host takes it for hung, and ends it. */
  takenForHung(vm: VmId, epoch: Epoch): void {
    for (const [guest, host] of this.#instances(vm).alive) {
      if (guest.epoch !== epoch || guest.doesNothing) continue;
      this.#report(
        'ends-only-hung',
        `${guest.name} works on ${host} (epoch ${epoch}), and is ended`,
      );
    }
  }

  /** A lock of the VM is committed: whoever ran under an older one must have been stopped by its
   * deadline, which has passed. */
  lockCommitted(vm: VmId, epoch: Epoch): void {
    for (const [guest, host] of this.#instances(vm).alive) {
      if (guest.state !== 'running' || guest.epoch >= epoch) continue;
      this.#report(
        'stopped-before-next-lock',
        `${guest.name} still runs on ${host} (epoch ${guest.epoch}), and its lock has epoch ${epoch}`,
      );
    }
  }

  /** The hosts that run the VM now. */
  runningOn(vm: VmId): HostId[] {
    return [...this.#instances(vm).alive].flatMap(([guest, host]) =>
      guest.state === 'running' ? [host] : [],
    );
  }

  #checkSingle(host: HostId, guest: SeenGuest, { alive }: Instances): void {
    if (alive.size === 1) return;
    for (const [other, otherHost] of alive) {
      if (other === guest || other.state !== 'running') continue;
      this.#report(
        'single-instance',
        `${guest.name} runs on ${host} (epoch ${guest.epoch}) and on ${otherHost} (epoch ${other.epoch})`,
      );
    }
  }

  #checkLock(host: HostId, guest: SeenGuest): void {
    const lock = this.#ledger.namespace(guest.vm)?.lock;
    if (lock?.holder === host && lock.epoch === guest.epoch) return;
    const named =
      lock === undefined
        ? 'no record of it is committed'
        : `its lock is held by ${lock.holder ?? 'nobody'} (epoch ${lock.epoch})`;
    this.#report(
      'started-with-lock',
      `${guest.name} was started on ${host} at epoch ${guest.epoch}, and ${named}`,
    );
  }

  #instances(vm: VmId): Instances {
    let instances = this.#vms.get(vm);
    if (instances === undefined) {
      instances = { alive: new Map(), readEpoch: 0 };
      this.#vms.set(vm, instances);
    }
    return instances;
  }
}
