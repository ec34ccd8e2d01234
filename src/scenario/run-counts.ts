// What a run is counted by, and when the steps of a restart were taken: the events that say so.

import type { EventType } from '../model/events.ts';
import type { CounterName } from './scenario.ts';

type Moment = 'detectedAtMs' | 'lockFreeAtMs' | 'accessibleAtMs' | 'placedAtMs';
export type Moments = Record<Moment, number | null>;

export const momentOf: Partial<Record<EventType, Moment>> = {
  'failover.detected': 'detectedAtMs',
  'failover.lockFree': 'lockFreeAtMs',
  'failover.accessible': 'accessibleAtMs',
  'failover.placed': 'placedAtMs',
};

export const noMoments: Moments = {
  detectedAtMs: null,
  lockFreeAtMs: null,
  accessibleAtMs: null,
  placedAtMs: null,
};

/** By the point of the protocol that is reached. */
export const counterOf: Readonly<Record<string, CounterName>> = {
  'ha.restarting': 'restartAttempts',
  'ha.restartFailed': 'restartAttemptsFailed',
  'ha.elected': 'elections',
  'ha.metadataGet': 'metadataGets',
  'protection.set': 'metadataSets',
};

export const noCounts = (): Record<CounterName, number> => ({
  restartAttempts: 0,
  restartAttemptsFailed: 0,
  metadataSets: 0,
  metadataSetsRefused: 0,
  metadataGets: 0,
  elections: 0,
  pauses: 0,
  resumes: 0,
});
