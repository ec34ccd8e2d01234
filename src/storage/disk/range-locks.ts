// Overlapping requests to one stripe go one after the other, in the order of their arrival, or the
// copies would end up with different bytes. Reads share; writes and copies of a resync exclude.

import { type InLine, Line } from '../../model/line.ts';

interface Waiting extends InLine {
  readonly from: number;
  readonly to: number;
  readonly exclusive: boolean;
  readonly granted: () => void;
  active: boolean;
}

export interface RangeLocks {
  /** Calls `granted` at once or when all earlier requests in conflict are released. */
  acquire(
    offset: number,
    length: number,
    exclusive: boolean,
    granted: (release: () => void) => void,
  ): void;
}

export function createRangeLocks(): RangeLocks {
  /** Active and waiting, in the order of arrival. */
  const queue = new Line<Waiting>();

  function conflicts(a: Waiting, b: Waiting): boolean {
    return (a.exclusive || b.exclusive) && a.from < b.to && b.from < a.to;
  }

  function isFree(request: Waiting): boolean {
    for (let other = queue.first; other !== request && other !== null; other = queue.after(other)) {
      if (conflicts(other, request)) return false;
    }
    return true;
  }

  function release(request: Waiting): void {
    if (!queue.remove(request)) return;
    for (const other of queue.all()) {
      if (!other.active && conflicts(other, request) && queue.has(other) && isFree(other)) {
        other.active = true;
        other.granted();
      }
    }
  }

  return {
    acquire(offset, length, exclusive, granted) {
      const request: Waiting = {
        from: offset,
        to: offset + length,
        exclusive,
        active: false,
        granted: () => granted(() => release(request)),
        previous: null,
        next: null,
      };
      queue.add(request);
      if (isFree(request)) {
        request.active = true;
        request.granted();
      }
    },
  };
}
