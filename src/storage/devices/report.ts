// What a host tells the others of its devices, with every heartbeat.

import { type DeviceClass, mainDeviceName, usualClass } from '../../model/device.ts';
import type { StoreId } from '../../model/ids.ts';
import type { FillThresholds } from '../fill.ts';

export interface DeviceReport {
  /** Null: it can not be told, because the device could never be read, and the configuration does not say it. */
  readonly id: StoreId | null;
  /** Why it is not used; null: it is. */
  readonly problem: string | null;
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Absent: the usual one. */
  readonly class?: DeviceClass;
  /** Absent: the main device. */
  readonly name?: string;
  /** Of a small write and of making it durable, together, as of late; absent: there was none. */
  readonly latencyMs?: number;
}

/** The main device, where the registers are, and the others. */
export interface StoreReport extends DeviceReport {
  /** Where this host's differ from the usual ones. */
  readonly thresholds?: FillThresholds;
  readonly devices?: readonly DeviceReport[];
}

/** The main device first. */
export function devicesOf(report: StoreReport): readonly DeviceReport[] {
  return report.devices === undefined ? [report] : [report, ...report.devices];
}

export function deviceWith(report: StoreReport, store: StoreId): DeviceReport | null {
  if (report.id === store) return report;
  return report.devices?.find(({ id }) => id === store) ?? null;
}

export const nameOf = (device: DeviceReport): string => device.name ?? mainDeviceName;
export const classOf = (device: DeviceReport): DeviceClass => device.class ?? usualClass;

/** Whether the same devices can be used. */
export function offerTheSame(a: StoreReport, b: StoreReport): boolean {
  const [ofA, ofB] = [devicesOf(a), devicesOf(b)];
  return (
    ofA.length === ofB.length &&
    ofA.every(({ id, problem }, index) => id === ofB[index]?.id && problem === ofB[index]?.problem)
  );
}
