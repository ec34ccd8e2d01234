// What a guest has asked of its disks, as QEMU counts it. A request counts when it is done, so one that waits for
// its storage does not show.

import type { DiskActivity } from '../ports/guests.ts';
import type { QmpClient, QmpObject } from './qmp.ts';

const kinds = ['rd', 'wr', 'flush', 'unmap'].flatMap((kind) => [
  `${kind}_operations`,
  `failed_${kind}_operations`,
  `invalid_${kind}_operations`,
]);

/** Rejects as `execute` does. */
export async function blockActivity(qmp: QmpClient): Promise<DiskActivity> {
  const disks = (await qmp.execute('query-blockstats')) as readonly QmpObject[];
  const counts = disks.flatMap(({ stats }) =>
    kinds.map((kind) => Number((stats as QmpObject | undefined)?.[kind] ?? 0)),
  );
  return { requests: counts.reduce((sum, count) => sum + count, 0), inFlight: 0 };
}
