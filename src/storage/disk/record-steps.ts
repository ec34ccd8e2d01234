// The steps that the writer of a disk makes in the disk's record: each gives the record that is to follow, and
// refuses under another fence than the writer's own, so that a writer whose time is over changes nothing.

import { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, Epoch } from '../../model/ids.ts';
import {
  type Blueprint,
  type Component,
  compareFences,
  components,
  type DiskRecord,
  type Fence,
} from '../../model/record.ts';

/** Opens the disk under the epoch: with the next fence, unless a newer epoch has opened it. What an older
 * opening was filling to take the tree's place is void. */
export function opened(current: DiskRecord, epoch: Epoch): DiskRecord {
  if (current.fence.epoch > epoch) throw fenced(current);
  const open = current.fence.epoch === epoch ? current.fence.open + 1 : 1;
  return { ...withoutNext(current), fence: { epoch, open } };
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

/** The component counts again; the very record if it is no part of the tree any more (a swap of which nobody
 * has heard yet). */
export function joined(current: DiskRecord, fence: Fence, component: ComponentId): DiskRecord {
  assertFence(current, fence);
  if (!components(current.blueprint).some(({ id }) => id === component)) return current;
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

/** One more mirror, of components that hold nothing yet and do not count; the very record where it is there
 * already. Null: the tree has other stripes by now. */
export function withMirror(
  current: DiskRecord,
  fence: Fence,
  stripes: readonly Component[],
): DiskRecord | null {
  assertFence(current, fence);
  const { blueprint } = current;
  const named = new Set(components(blueprint).map(({ id }) => id));
  if (stripes.every(({ id }) => named.has(id))) return current;
  if (blueprint.mirrors[0]?.stripes.length !== stripes.length) return null;
  return {
    ...current,
    blueprint: { ...blueprint, mirrors: [...blueprint.mirrors, { stripes }] },
  };
}

/** The mirror of these components is no part of the disk any more; the very record where that is so
 * already. Null: a stripe would be left without a copy that counts. */
export function withoutMirror(
  current: DiskRecord,
  fence: Fence,
  gone: ReadonlySet<ComponentId>,
): DiskRecord | null {
  assertFence(current, fence);
  const { blueprint } = current;
  const mirrors = blueprint.mirrors.filter(
    ({ stripes }) => !stripes.some(({ id }) => gone.has(id)),
  );
  if (mirrors.length === blueprint.mirrors.length) return current;
  const inSync = current.inSync.filter((id) => !gone.has(id));
  return everyStripeCounts(mirrors, inSync)
    ? { ...current, blueprint: { ...blueprint, mirrors }, inSync }
    : null;
}

/** `next` is there to be filled. Null: another one is. */
export function withNext(current: DiskRecord, fence: Fence, next: Blueprint): DiskRecord | null {
  assertFence(current, fence);
  if (current.next !== undefined) return isSameTree(current.next, next) ? current : null;
  return { ...current, next };
}

/** `next` is given up; the very record where it is not there to be filled any more. */
export function withNextGivenUp(current: DiskRecord, fence: Fence, next: Blueprint): DiskRecord {
  assertFence(current, fence);
  if (current.next === undefined || !isSameTree(current.next, next)) return current;
  return withoutNext(current);
}

/** `next` is the tree, and of its components these count; the very record where that is so already. Null:
 * it was given up. */
export function swapped(
  current: DiskRecord,
  fence: Fence,
  next: Blueprint,
  inSync: readonly ComponentId[],
): DiskRecord | null {
  assertFence(current, fence);
  if (isSameTree(current.blueprint, next)) return current;
  if (current.next === undefined || !isSameTree(current.next, next)) return null;
  if (!everyStripeCounts(next.mirrors, inSync)) return null;
  const { thick: _, ...tree } = next;
  const isThick = next.thick === true && current.policy.thick === true;
  const blueprint = isThick ? next : tree;
  return { ...withoutNext(current), blueprint, inSync };
}

function withoutNext(current: DiskRecord): DiskRecord {
  const { next: _, ...rest } = current;
  return rest;
}

/** No name of a component comes twice, so one tells the tree. */
function isSameTree(a: Blueprint, b: Blueprint): boolean {
  const names = new Set(components(a).map(({ id }) => id));
  return components(b).some(({ id }) => names.has(id));
}

function everyStripeCounts(mirrors: Blueprint['mirrors'], inSync: readonly ComponentId[]): boolean {
  const width = mirrors[0]?.stripes.length ?? 0;
  const counts = (stripe: number) =>
    mirrors.some(({ stripes }) => inSync.some((id) => id === stripes[stripe]?.id));
  return width > 0 && Array.from({ length: width }, (_, stripe) => stripe).every(counts);
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
