// How full a host's device is, told before it hurts: once when it gets near full, once when it is full for
// new objects, and once when there is room again. The end of the device is not reached by then: what
// objects that are there still write goes on to fit, up to the last byte.

import type { EventType } from '../model/events.ts';
import { limits } from '../model/limits.ts';

export interface FillThresholds {
  /** Used part of the device from which on it is told. */
  readonly nearFullAtPercent: number;
  /** From which on it takes no new objects. */
  readonly fullAtPercent: number;
}

export type Fill = 'ok' | 'nearFull' | 'full';

interface Space {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

export const usualThresholds: FillThresholds = {
  nearFullAtPercent: limits.nearFullAtPercent,
  fullAtPercent: limits.fullAtPercent,
};

/** By how much it must be emptier for the all-clear: around a threshold it would be told for ever. */
const backPercent = 2;

function usedPercent({ totalBytes, freeBytes }: Space): number {
  return totalBytes <= 0 ? 0 : (100 * (totalBytes - Math.max(0, freeBytes))) / totalBytes;
}

export function fillOf(space: Space, thresholds: FillThresholds = usualThresholds): Fill {
  const used = usedPercent(space);
  if (used >= thresholds.fullAtPercent) return 'full';
  return used >= thresholds.nearFullAtPercent ? 'nearFull' : 'ok';
}

/** To be shown the space now and then; tells what has changed. */
export function watchFill(options: {
  /** Whose space it is: `device of h1`. */
  readonly device: string;
  readonly thresholds: FillThresholds;
  readonly emit: (type: EventType, text: string) => void;
}): (space: Space) => void {
  const { device: name, thresholds, emit } = options;
  const order: readonly Fill[] = ['ok', 'nearFull', 'full'];
  let told: Fill = 'ok';

  return (space) => {
    const now = fillOf(space, thresholds);
    if (now === told) return;
    const isWorse = order.indexOf(now) > order.indexOf(told);
    const later = { ...space, freeBytes: space.freeBytes - (space.totalBytes * backPercent) / 100 };
    // Also from full to near full only once it is well below.
    if (!isWorse && fillOf(later, thresholds) === told) return;
    told = now;
    const used = space.totalBytes - Math.max(0, space.freeBytes);
    const device = `${used} of ${space.totalBytes} bytes are used (${Math.floor(usedPercent(space))}%)`;
    if (now === 'full') {
      emit('storage.hostFull', `The ${name} is full for new objects: ${device}`);
    } else if (now === 'nearFull') {
      emit('storage.hostNearFull', `The ${name} gets full: ${device}`);
    } else emit('storage.hostRoomAgain', `The ${name} has room again: ${device}`);
  };
}
