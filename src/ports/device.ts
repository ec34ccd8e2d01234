// A further device of the host, beside the one that its registers are on: something that may be missing,
// come back, or be another one than it was, while the host runs.

import type { DeviceClass } from '../model/device.ts';
import type { StoreId } from '../model/ids.ts';
import type { LocalDisk } from './disk.ts';

export interface OpenedDevice {
  readonly disk: LocalDisk;
  /** Lets go of it, so that it can be opened again. */
  close(): void;
}

export interface DevicePort {
  /** For people: where the machine has it, such as a folder. */
  readonly name: string;
  readonly class: DeviceClass;
  /** What it should say it is, by the host's configuration; null: unknown. It is believed only of a device that
   * can not be asked. */
  readonly id: StoreId | null;
  /** Bytes that components may use of it at most; null: all. */
  readonly capacityBytes: number | null;
  /** Rejects with a `DiskError`, `missing` where nothing there was made a device of Holdfast (an empty mount
   * point, above all), and with `conflict` while another process has it. Makes nothing. */
  open(): Promise<OpenedDevice>;
}

/** What makes a device one: the file that says whose it is. */
export const identityFile = 'holdfast-device';
