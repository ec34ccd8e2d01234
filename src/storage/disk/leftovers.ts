// Whether a component that lies on a host may still be of use, by what is known of its disk's record. A host
// that was away has heard of neither the beginning nor the end of much that it holds.

import type { ComponentId, ObjectId } from '../../model/ids.ts';
import { objectId } from '../../model/ids.ts';
import {
  allComponents,
  compareFences,
  type DiskRecord,
  type Fence,
  type ObjectRecord,
} from '../../model/record.ts';

/** Ends the name of a component that is made by who has the disk open: no opening gives one twice. */
export function nameSuffix({ epoch, open }: Fence, count: number): string {
  return `e${epoch}o${open}n${count}`;
}

/**
 * No record names it, now or ever: an earlier one did; or it was made with the disk, or by an older opening than
 * the record's. What the present one makes is named only once it is made. (No change is committed under an
 * older fence, and what a record does not name any more no later one names.)
 */
export function isLeftover(
  component: ComponentId,
  record: DiskRecord,
  previous: ObjectRecord | null,
): boolean {
  const names = (one: DiskRecord) => allComponents(one).some(({ id }) => id === component);
  if (names(record)) return false;
  if (previous?.kind === 'disk' && names(previous)) return true;
  const [, epoch, open] = /\.e(\d+)o(\d+)n\d+$/.exec(component) ?? [];
  if (epoch === undefined || open === undefined) return true;
  const madeBy = { epoch: Number(epoch) as Fence['epoch'], open: Number(open) };
  return compareFences(madeBy, record.fence) < 0;
}

/** Names of components begin with their object's. */
export function objectOf(component: ComponentId): ObjectId {
  return objectId(component.slice(0, component.indexOf('.')));
}
