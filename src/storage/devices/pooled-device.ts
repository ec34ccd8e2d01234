// One further device of this host, through all that may become of it: missing at the start, another one than
// it was, failing, gone, back again. While it is not used nobody's bytes come to it, and what is on it
// is out of reach; the other devices of the host do not notice.
//
// It is given up when an operation has failed and a trial (a new file, made durable) fails as well, and
// when its identity can not be read at its place any more: it was taken out, or unmounted, or removed. One
// bad sector is no reason: the copy that has it deals with that. It is looked at again and again, and used
// again when it works. Whatever was not synced when it was given up may be lost: its incarnation tells.

import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import { type ComponentId, componentId, type HostId, type StoreId } from '../../model/ids.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { DevicePort, OpenedDevice } from '../../ports/device.ts';
import { DiskError, type LocalDisk } from '../../ports/disk.ts';
import { tryDevice } from '../../ports/disk-calls.ts';
import { countLoss, type DeviceIdentity, readIdentity } from './identity.ts';
import { type MeasuredDisk, measured } from './measured-disk.ts';
import type { DeviceReport } from './report.ts';

const lookEveryMs = 5000;
/** A look that takes so many intervals: the device does not answer. */
const silentLooks = 3;

export interface PooledDeviceOptions {
  readonly port: DevicePort;
  readonly clock: Clock;
  readonly cluster: string;
  readonly self: HostId;
  /** Whether another device of this host has this identity: one is a copy of the other then. */
  readonly isTaken: (id: StoreId, by: PooledDevice) => boolean;
  /** What components there may come to take, by the records. */
  readonly placedBytes: (id: StoreId) => number;
  /** It is not used from now on, or it is. What is open on it is to be let go. */
  readonly onChange: (device: PooledDevice) => void;
}

export class PooledDevice {
  /** Null until it was read once. */
  id: StoreId | null = null;
  /** Why it is not used; null: it is. */
  problem: string | null = 'it is being opened';
  /** What it holds, as of the last time that it could be read. */
  readonly components = new Set<ComponentId>();
  readonly #options: PooledDeviceOptions;
  #opened: OpenedDevice | null = null;
  #disk: MeasuredDisk | null = null;
  #timer: Timer | null = null;
  /** Looks that are under way, and since how many intervals. */
  #look: { intervals: number } | null = null;
  #isTrying = false;
  /** It was not there, or did not work, at some time since the host's start. */
  #hadTrouble = false;
  #stopped = false;

  constructor(options: PooledDeviceOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.port.name;
  }

  /** Throws while the device is not used. */
  get disk(): LocalDisk {
    if (this.#disk === null)
      throw new DiskError('failed', `the device ${this.name}: ${this.problem}`);
    return this.#disk;
  }

  report(): DeviceReport {
    const { port, placedBytes } = this.#options;
    const latencyMs = this.#disk?.latencyMs() ?? null;
    const id = this.id ?? this.#configuredId();
    return {
      id,
      name: port.name,
      class: port.class,
      problem: this.problem,
      ...spaceOf(this.#disk, port.capacityBytes, () => (id === null ? 0 : placedBytes(id))),
      ...(latencyMs === null ? {} : { latencyMs: rounded(latencyMs) }),
    };
  }

  /** Of a device that was never read, unless it is in another place now. */
  #configuredId(): StoreId | null {
    const { port, isTaken } = this.#options;
    return port.id === null || isTaken(port.id, this) ? null : port.id;
  }

  /** Resolves after the first attempt to open it, whatever came of it. */
  async start(): Promise<void> {
    this.#timer = this.#options.clock.after(lookEveryMs, () => this.#lookAgain());
    await this.#begin();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#letGo();
  }

  #lookAgain(): void {
    this.#timer = this.#options.clock.after(lookEveryMs, () => this.#lookAgain());
    if (this.#look === null) return void this.#begin();
    this.#look.intervals += 1;
    if (this.#look.intervals >= silentLooks && this.#disk !== null) {
      this.#giveUp('it does not answer');
    }
  }

  async #begin(): Promise<void> {
    const look = { intervals: 0 };
    this.#look = look;
    try {
      if (this.#disk === null) await this.#open();
      else await this.#check(this.#disk);
    } finally {
      this.#look = null;
    }
  }

  async #open(): Promise<void> {
    let opened: OpenedDevice | null = null;
    try {
      opened = await this.#options.port.open();
      const { disk } = opened;
      let identity = await readIdentity(disk);
      this.#assertMine(identity);
      if (this.#hadTrouble) {
        await tryOut(disk);
        identity = await countLoss(disk, identity);
      }
      const held = await componentsOn(disk);
      if (this.#stopped) return opened.close();
      this.#use(opened, identity, held);
    } catch (error) {
      opened?.close();
      this.#hadTrouble = true;
      this.#say(this.#reasonOf(error));
    }
  }

  #use(opened: OpenedDevice, identity: DeviceIdentity, held: readonly ComponentId[]): void {
    const { disk } = opened;
    if (this.#options.isTaken(identity.device, this)) {
      throw damaged(`another device of this host says, too, that it is ${identity.device}`);
    }
    const incarnation = `${disk.incarnation}/${identity.losses}`;
    this.#opened = opened;
    this.#disk = measured(disk, this.#options.clock, (error) => this.#heardOf(error), incarnation);
    this.id = identity.device;
    this.components.clear();
    for (const id of held) this.components.add(id);
    this.#say(null);
  }

  #assertMine({ cluster, host }: DeviceIdentity): void {
    const { self } = this.#options;
    if (cluster !== this.#options.cluster) {
      throw damaged(`it belongs to the cluster ${cluster}, and stays as it is`);
    }
    if (host !== self) throw damaged(`it belongs to the host ${host}, and stays as it is`);
  }

  /** It must still be where it was: what was unmounted, or removed, still takes writes of open files. */
  async #check(disk: LocalDisk): Promise<void> {
    try {
      const { device } = await readIdentity(disk);
      if (device === this.id || this.#disk !== disk) return;
      this.#giveUp(`device ${device} is in its place`);
    } catch (error) {
      if (this.#disk === disk) this.#giveUp(this.#reasonOf(error));
    }
  }

  #heardOf(error: DiskError): void {
    const disk = this.#disk;
    if (error.kind !== 'failed' || disk === null || this.#isTrying) return;
    this.#isTrying = true;
    tryOut(this.#opened?.disk ?? disk)
      .catch((failure: unknown) => {
        if (this.#disk === disk) this.#giveUp(this.#reasonOf(failure));
      })
      .finally(() => {
        this.#isTrying = false;
      });
  }

  #giveUp(reason: string): void {
    this.#hadTrouble = true;
    this.#letGo();
    this.#say(reason);
  }

  #letGo(): void {
    this.#disk = null;
    this.#opened?.close();
    this.#opened = null;
  }

  #say(problem: string | null): void {
    if (this.problem === problem || this.#stopped) return;
    this.problem = problem;
    this.#options.onChange(this);
  }

  #reasonOf(error: unknown): string {
    if (error instanceof DiskError && error.kind === 'missing') {
      return this.id === null
        ? 'no device of Holdfast is there; it is not mounted, or it is new ("holdfast host add-device")'
        : 'it is not there any more; it was unmounted, taken out or removed';
    }
    return asHoldfastError(error).message;
  }
}

/** As `tryDevice`; a full device works, too. */
async function tryOut(disk: LocalDisk): Promise<void> {
  try {
    await tryDevice(disk);
  } catch (error) {
    if (!(error instanceof DiskError && error.kind === 'full')) throw error;
  }
}

/** Those that exist: a component does when its head does. */
export async function componentsOn(disk: LocalDisk): Promise<ComponentId[]> {
  const names = await disk.list('components');
  const ids = names.map((name) => name.replace(/^components\/|\.(head|data)$/g, ''));
  return [...new Set(ids)].map(componentId);
}

/** Nothing of a device that is not used. */
export function spaceOf(
  disk: LocalDisk | null,
  capacityBytes: number | null,
  placedBytes: () => number,
): { totalBytes: number; freeBytes: number } {
  const space = whatIsFree(disk);
  if (capacityBytes === null) return space;
  return {
    totalBytes: Math.min(capacityBytes, space.totalBytes),
    freeBytes: Math.max(0, Math.min(space.freeBytes, capacityBytes - placedBytes())),
  };
}

function whatIsFree(disk: LocalDisk | null): { totalBytes: number; freeBytes: number } {
  try {
    if (disk !== null) return { ...disk.space() };
  } catch {
    // Whoever uses it next finds out why.
  }
  return { totalBytes: 0, freeBytes: 0 };
}

export const rounded = (ms: number): number => Math.round(ms * 100) / 100;

function damaged(why: string): HoldfastError {
  return new HoldfastError('store-damaged', why);
}
