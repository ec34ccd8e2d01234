// All devices of this host, as those see them who use them: the main one, which the registers and the
// journal are on, and further ones. Each fails for itself: what becomes of one is nothing to the others.

import { type DeviceClass, mainDeviceName, usualClass } from '../../model/device.ts';
import type { EventType } from '../../model/events.ts';
import type { ComponentId, HostId, StoreId } from '../../model/ids.ts';
import type { Clock } from '../../ports/clock.ts';
import type { DevicePort } from '../../ports/device.ts';
import type { LocalDisk } from '../../ports/disk.ts';
import type { Log } from '../../ports/log.ts';
import { type FillThresholds, watchFill } from '../fill.ts';
import type { MeasuredDisk } from './measured-disk.ts';
import { PooledDevice, rounded, spaceOf } from './pooled-device.ts';
import { type DeviceReport, nameOf, type StoreReport } from './report.ts';

/** A device, for those who keep components on it. */
export interface Device {
  readonly name: string;
  /** Why it is not used; null: it is. */
  readonly problem: string | null;
  /** Throws while the device is not used. */
  readonly disk: LocalDisk;
  /** Components on it; of the main device none: they are all those that are not elsewhere. */
  readonly components: Set<ComponentId>;
}

export interface DevicePool {
  /** The main one first. */
  readonly devices: readonly Device[];
  /** The device that the component is on: the main one if it is on no other that is known. */
  holding(component: ComponentId): Device;
  /** Null: there is no such device, as far as is known. No store at all: the main device. */
  named(store: StoreId | undefined): Device | null;
  /** A device is not used from now on, or it is again. */
  onChange(listener: (device: Device) => void): void;
}

/** The pool of a host whose only device is this one. */
export function soleDevice(disk: LocalDisk, problem: () => string | null = () => null): DevicePool {
  const main: Device = {
    name: mainDeviceName,
    get problem() {
      return problem();
    },
    disk,
    components: new Set(),
  };
  return { devices: [main], holding: () => main, named: () => main, onChange() {} };
}

export interface MainDevice {
  readonly disk: MeasuredDisk;
  readonly class: DeviceClass;
  readonly capacityBytes: number | null;
  readonly id: () => StoreId | null;
  readonly problem: () => string | null;
}

export interface HostDevices extends DevicePool {
  report(): StoreReport;
  stop(): void;
}

/** How long a host waits, at its start, for devices to be opened: what comes later is not lost. */
const openWithinMs = 5000;

/** Resolves when all devices were looked at, or some take too long. */
export async function openDevices(options: {
  readonly self: HostId;
  readonly cluster: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly main: MainDevice;
  readonly ports: readonly DevicePort[];
  readonly thresholds: FillThresholds;
  /** What components there may come to take, by the records. */
  readonly placedBytes: (store: StoreId | null) => number;
  readonly emit: (type: EventType, text: string) => void;
}): Promise<HostDevices> {
  const { self, clock, main, placedBytes, emit } = options;
  const log = options.log.child('devices');
  const listeners: ((device: Device) => void)[] = [];
  const fills = new Map<string, ReturnType<typeof watchFill>>();
  /** Those of which was told that they are not used. */
  const told = new Set<Device>();
  const only = soleDevice(main.disk, main.problem);
  const [mainDevice] = only.devices as [Device];
  const pooled: readonly PooledDevice[] = options.ports.map(
    (port) =>
      new PooledDevice({
        port,
        clock,
        cluster: options.cluster,
        self,
        isTaken: (id, by) => main.id() === id || pooled.some((one) => one !== by && one.id === id),
        placedBytes,
        onChange: changed,
      }),
  );

  function changed(device: PooledDevice): void {
    const what = `The device ${device.name} of ${self}`;
    if (device.problem !== null) {
      // What is found while it is looked at again may be another reason; it is no news.
      if (told.has(device)) return;
      told.add(device);
      log.error(`${what} is not used: ${device.problem}`);
      emit('storage.deviceFailed', `${what} is not used: ${device.problem}`);
    } else if (told.delete(device)) {
      log.info(`${what} is used again`);
      emit('storage.deviceBack', `${what} is used again`);
    }
    for (const listener of listeners) listener(device);
  }

  function ofMain(): DeviceReport {
    const latencyMs = main.disk.latencyMs();
    return {
      id: main.id(),
      problem: main.problem(),
      ...spaceOf(main.disk, main.capacityBytes, () => placedBytes(main.id())),
      ...(main.class === usualClass ? {} : { class: main.class }),
      ...(latencyMs === null ? {} : { latencyMs: rounded(latencyMs) }),
    };
  }

  function lookAtFill(report: DeviceReport): void {
    if (report.problem !== null && report.name !== undefined) return;
    const name = nameOf(report);
    let look = fills.get(name);
    if (look === undefined) {
      const device = pooled.length === 0 ? `device of ${self}` : `device ${name} of ${self}`;
      look = watchFill({ device, thresholds: options.thresholds, emit });
      fills.set(name, look);
    }
    look(report);
  }

  if (pooled.length > 0) {
    const all = Promise.all(pooled.map((device) => device.start()));
    const long = new Promise<void>((resolve) => {
      const timer = clock.after(openWithinMs, resolve);
      void all.finally(() => timer.cancel()).then(() => resolve());
    });
    await long;
  }

  return {
    devices: [mainDevice, ...pooled],
    holding: (component) => pooled.find((device) => device.components.has(component)) ?? mainDevice,
    named: (store) => {
      if (store === undefined || store === main.id()) return mainDevice;
      return pooled.find((device) => device.id === store) ?? null;
    },
    onChange: (listener) => void listeners.push(listener),
    report() {
      const others = pooled.map((device) => device.report());
      const report: StoreReport = {
        ...ofMain(),
        ...(others.length === 0 ? {} : { devices: others }),
      };
      for (const one of [report, ...others]) lookAtFill(one);
      return report;
    },
    stop() {
      for (const device of pooled) device.stop();
    },
  };
}
