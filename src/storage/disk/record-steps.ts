// The steps that the writer of a disk makes in the disk's record: each gives the record that is to follow, and
// refuses under another fence than the writer's own, so that a writer whose time is over changes nothing.

import { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, Epoch } from '../../model/ids.ts';
import {
  type Component,
  compareFences,
  components,
  type DiskRecord,
  type Fence,
} from '../../model/record.ts';

/** Opens the disk under the epoch: with the next fence, unless a newer epoch has opened it. */
export function opened(current: DiskRecord, epoch: Epoch): DiskRecord {
  if (current.fence.epoch > epoch) throw fenced(current);
  const open = current.fence.epoch === epoch ? current.fence.open + 1 : 1;
  return { ...current, fence: { epoch, open } };
}

/** These components count no more. */
export function without(
  current: DiskRecord,
  fence: Fence,
  gone: ReadonlySet<ComponentId>,
): DiskRecord {
  assertFence(current, fence);
  return { ...current, inSync: current.inSync.filter((id) => !gone.has(id)) };
}

/** The component counts again. */
export function joined(current: DiskRecord, fence: Fence, component: ComponentId): DiskRecord {
  assertFence(current, fence);
  const others = current.inSync.filter((id) => id !== component);
  return { ...current, inSync: [...others, component] };
}

/** `added` in the place of `old`; the very record where it is there already. Null: `old` counts, or is not
 * there, so that this can not be done any more. */
export function replaced(
  current: DiskRecord,
  fence: Fence,
  old: ComponentId,
  added: Component,
): DiskRecord | null {
  assertFence(current, fence);
  const named = components(current.blueprint).map(({ id }) => id);
  if (named.includes(added.id)) return current;
  if (!named.includes(old) || current.inSync.includes(old)) return null;
  const mirrors = current.blueprint.mirrors.map(({ stripes }) => ({
    stripes: stripes.map((component) => (component.id === old ? added : component)),
  }));
  return { ...current, blueprint: { ...current.blueprint, mirrors } };
}

function assertFence(current: DiskRecord, fence: Fence): void {
  if (compareFences(current.fence, fence) !== 0) throw fenced(current);
}

function fenced({ id, fence }: DiskRecord): HoldfastError {
  return new HoldfastError(
    'fenced',
    `Disk object ${id} has been opened with fence ${fence.epoch}.${fence.open}`,
  );
}
