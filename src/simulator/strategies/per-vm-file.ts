// `per-vm-file`: each VM's state in a file of its own namespace object. It is as accessible as the VM,
// as in the product; but a file is no metadata that the storage layer hands out from memory. Who
// becomes master finds the VMs, and opens, reads and closes one file after the other; each of these
// steps is a question to the VM's voters. Later changes are seen when the files are looked through
// again. An agent needs no more than the files of the VMs of its own host, which are open there.

import { isError } from '../../model/errors.ts';
import type { HostId, VmId } from '../../model/ids.ts';
import {
  haService,
  type ProtectionState,
  protectionKey,
  readProtection,
} from '../../model/protection.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { SetCondition, Storage } from '../../storage/api.ts';
import { recordOf } from './hidden-vms.ts';
import { Differences, newest, type ProtectionFile, type States } from './protection-file.ts';
import type { Shared } from './shared.ts';

/** Between two walks through all files. */
const lookAgainMs = 10_000;
/** Open, read, close. */
const stepsPerFile = 3;

export class PerVmFiles implements ProtectionFile {
  readonly guardsStarts = true;
  readonly vm = null;
  readonly #self: HostId;
  readonly #storage: Storage;
  readonly #clock: Clock;
  readonly #shared: Shared;
  readonly #differences = new Differences();
  readonly #listeners: ((vms: readonly VmId[]) => void)[] = [];
  /** What has been read since the election; null on agents. */
  #read: Map<VmId, ProtectionState> | null = null;
  #isComplete = false;
  /** Names the walk that counts; others end where they stand. */
  #walk = 0;
  #timer: Timer | null = null;

  constructor(options: {
    readonly self: HostId;
    readonly storage: Storage;
    readonly clock: Clock;
    readonly shared: Shared;
  }) {
    this.#self = options.self;
    this.#storage = options.storage;
    this.#clock = options.clock;
    this.#shared = options.shared;
  }

  /** Null on a master that has not been through all files yet: it must take silence for ignorance. */
  read(): States | null {
    if (this.#read === null) return this.#inDirectory(() => true);
    const own = this.#inDirectory((vm) => this.#storage.vm(vm)?.lock.holder === this.#self);
    return this.#isComplete ? new Map([...this.#read, ...own]) : null;
  }

  async write(vm: VmId, state: ProtectionState, condition?: SetCondition): Promise<void> {
    await this.#storage.setMetadata(vm, haService, protectionKey, { ...state }, condition);
    this.#read?.set(vm, state);
    this.#tell();
  }

  /** The VM's record says it already; a master need only be told. */
  async switchedOff(vm: VmId, state: ProtectionState): Promise<void> {
    this.#read?.set(vm, state);
    this.#tell();
  }

  watch(listener: (vms: readonly VmId[]) => void): void {
    this.#listeners.push(listener);
    this.#storage.watchMetadata(haService, (vms) => {
      const isOwn = (vm: VmId) => this.#storage.vm(vm)?.lock.holder === this.#self;
      const seen = this.#read === null ? vms : vms.filter(isOwn);
      if (seen.length > 0) listener(seen);
    });
  }

  elected(): void {
    this.#read = new Map();
    this.#isComplete = false;
    void this.#lookThrough();
  }

  abdicated(): void {
    this.#walk += 1;
    this.#timer?.cancel();
    this.#read = null;
  }

  async #lookThrough(): Promise<void> {
    this.#walk += 1;
    const walk = this.#walk;
    for (const { vm } of this.#storage.vms()) {
      const isRead = await this.#readFile(vm);
      if (walk !== this.#walk) return;
      const state = isRead ? this.#stateOf(vm) : null;
      if (state !== null) this.#read?.set(vm, newest(this.#read.get(vm), state) ?? state);
    }
    this.#isComplete = true;
    this.#tell();
    this.#timer = this.#clock.after(lookAgainMs, () => void this.#lookThrough());
  }

  /** False where the file is out of reach. */
  async #readFile(vm: VmId): Promise<boolean> {
    for (let step = 0; step < stepsPerFile; step += 1) {
      this.#shared.counters.enumerationReads += 1;
      try {
        await this.#storage.lockStatus(vm);
      } catch (error) {
        if (isError(error, 'inaccessible') || isError(error, 'unknown-vm')) return false;
        throw error;
      }
    }
    return true;
  }

  #tell(): void {
    const states = this.read();
    const changed = states === null ? [] : this.#differences.since(states);
    if (changed.length > 0) for (const listener of this.#listeners) listener(changed);
  }

  #stateOf(vm: VmId): ProtectionState | null {
    return readProtection(recordOf(this.#storage, vm)?.metadata[haService]?.[protectionKey]);
  }

  #inDirectory(isWanted: (vm: VmId) => boolean): Map<VmId, ProtectionState> {
    const states = new Map<VmId, ProtectionState>();
    for (const { vm, value } of this.#storage.getMetadata(haService, protectionKey).values) {
      const state = isWanted(vm) ? readProtection(value) : null;
      if (state !== null) states.set(vm, state);
    }
    return states;
  }
}
