// Of the points at which somebody may watch the protocols, a real daemon writes those of HA into its log, for whoever
// asks for that much (`log.level: debug`): there are few, and counted they say how much HA had to do. The
// others are too many to be written down.

import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';

export function pointLog(log: Log): Probe {
  return {
    reached(point) {
      if (point.at.startsWith('ha.') || point.at === 'protection.set') {
        log.debug(point.at, { point: point.at });
      }
    },
  };
}
