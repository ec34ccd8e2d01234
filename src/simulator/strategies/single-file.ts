// One file for all VMs, the way that HA is done on dedicated shared storage, and the way that is meant
// to mend it.
//
// `central-file`: the file is one more object of the store, so it has its own accessibility. Who can
// not reach it knows nothing and can note nothing, though it may reach every VM.
//
// `witness-file`: every partition can read the last copy that it has; only one host may write, and a
// third party says which. The third party is a majority of the file's voters, the role is the lock of
// the hidden VM, and every write is made on condition that the role is still held.

import { HoldfastError, isError } from '../../model/errors.ts';
import type { Epoch, VmId } from '../../model/ids.ts';
import type { ProtectionState } from '../../model/protection.ts';
import type { Storage } from '../../storage/api.ts';
import { fileName, fileService, HiddenVm } from './hidden-vms.ts';
import { assertNewer, Differences, type ProtectionFile, statesIn } from './protection-file.ts';

abstract class SingleFile implements ProtectionFile {
  readonly guardsStarts = false;
  protected readonly storage: Storage;
  protected readonly file: HiddenVm;

  constructor(storage: Storage) {
    this.storage = storage;
    this.file = new HiddenVm(storage, fileName);
  }

  get vm(): VmId | null {
    return this.file.vm;
  }

  abstract read(): ReturnType<ProtectionFile['read']>;
  abstract write(vm: VmId, state: ProtectionState): Promise<void>;

  switchedOff(vm: VmId, state: ProtectionState): Promise<void> {
    return this.write(vm, state);
  }

  watch(listener: (vms: readonly VmId[]) => void): void {
    const differences = new Differences();
    this.storage.watchMetadata(fileService, (vms) => {
      if (this.vm === null || !vms.includes(this.vm)) return;
      const changed = differences.since(statesIn(this.file.content()));
      if (changed.length > 0) listener(changed);
    });
  }

  /** The condition of each read-modify-write: the entry is compared with the newest copy that this
   * host has; what it commits itself is in that copy at once. */
  protected assertNewer(vm: VmId, state: ProtectionState): void {
    assertNewer(vm, statesIn(this.file.content()).get(vm), state);
  }

  protected reached(): VmId {
    const { vm } = this.file;
    if (vm !== null && this.file.isAccessible()) return vm;
    throw new HoldfastError('inaccessible', 'the protection file can not be reached');
  }
}

export class CentralFile extends SingleFile {
  read() {
    if (this.vm === null) return new Map(); // it has not been made yet
    return this.file.isAccessible() ? statesIn(this.file.content()) : null;
  }

  async write(vm: VmId, state: ProtectionState): Promise<void> {
    const file = this.reached();
    this.assertNewer(vm, state);
    await this.storage.setMetadata(file, fileService, vm, { ...state });
  }
}

export class WitnessFile extends SingleFile {
  #role: Epoch | null = null;
  #taking: Promise<Epoch> | null = null;
  #isMaster = false;
  #writes = 0;
  /** Where every host writes for itself, the role is only borrowed. */
  readonly #isBorrowed: boolean;

  constructor(storage: Storage, isBorrowed: boolean) {
    super(storage);
    this.#isBorrowed = isBorrowed;
  }

  read() {
    return statesIn(this.file.content());
  }

  elected(): void {
    this.#isMaster = true;
  }

  abdicated(): void {
    this.#isMaster = false;
    this.#giveBack();
  }

  async write(vm: VmId, state: ProtectionState): Promise<void> {
    this.#writes += 1;
    try {
      await this.#write(vm, state);
    } finally {
      this.#writes -= 1;
      if (this.#isBorrowed && this.#writes === 0) this.#giveBack();
    }
  }

  async #write(vm: VmId, state: ProtectionState): Promise<void> {
    const file = this.reached();
    const role = await this.#takeRole(file);
    this.assertNewer(vm, state);
    const condition = { heldAtEpoch: role };
    try {
      await this.storage.setMetadata(file, fileService, vm, { ...state }, condition);
    } catch (error) {
      if (!isError(error, 'conflict')) throw error;
      // A register may also say so for being too slow: the lease tells whether the role is gone.
      if (this.#role === role && this.storage.leaseDeadline(file) === null) this.#role = null;
      throw new HoldfastError('lock-held', 'another host may write the protection file now');
    }
  }

  /** The witness gives the role to one host at a time, and takes it from a host that is cut off as
   * any lock: when its lease is over. */
  async #takeRole(file: VmId): Promise<Epoch> {
    if (this.#isMaster && this.#role === null) {
      this.#taking ??= this.#lock(file);
      try {
        this.#role = await this.#taking;
      } finally {
        this.#taking = null;
      }
      if (!this.#isMaster) this.#giveBack(); // it abdicated meanwhile
    }
    if (this.#role === null) throw new HoldfastError('no-master', 'only a master writes the file');
    return this.#role;
  }

  async #lock(file: VmId): Promise<Epoch> {
    try {
      return await this.storage.lock(file);
    } catch (error) {
      const lock = this.storage.vm(file)?.lock;
      if (isError(error, 'already-running') && lock !== undefined) return lock.epoch; // it is back
      // For HA a conflict is for good; that two hosts reach for the role at once is not.
      if (isError(error, 'conflict')) throw new HoldfastError('lock-held', error.message);
      throw error;
    }
  }

  #giveBack(): void {
    const role = this.#role;
    this.#role = null;
    if (role === null || this.vm === null) return;
    this.storage.unlock(this.vm, role).catch(() => undefined); // the store goes on trying
  }
}
