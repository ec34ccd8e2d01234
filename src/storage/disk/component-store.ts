// The components of this host, on whichever of its devices, served to the writers of their disks over the
// storage network. It opens a component on first use, and removes it when its object is deleted. What is open on
// a device that is not used any more is let go.

import { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, HostId, ObjectId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { DiskRecord, ObjectRecord } from '../../model/record.ts';
import type { Peer, Reply } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import { DiskError } from '../../ports/disk.ts';
import type { Log } from '../../ports/log.ts';
import type { Device, DevicePool } from '../devices/pool.ts';
import { componentsOn } from '../devices/pooled-device.ts';
import { allocate } from './allocate.ts';
import {
  type Component,
  createComponentFiles,
  fromDisk,
  openComponent,
  removeComponentFiles,
} from './component.ts';
import { isLeftover, objectOf } from './leftovers.ts';
import {
  type BadBlock,
  type ClearIntent,
  type CreateComponent,
  encodeRegions,
  type FlushComponent,
  type ReadComponent,
  type TakeAnswer,
  type TakeComponent,
  type WriteComponent,
  type ZeroComponent,
} from './messages.ts';
import { createScrub } from './scrub.ts';

export interface ComponentStore {
  /** The object is deleted: its components here go, now and whenever one turns up. */
  objectDeleted(object: ObjectId): void;
  /** What this host has of the object and can not be named by its record any more goes. */
  objectChanged(record: DiskRecord, previous: ObjectRecord | null): void;
  /** Components on this host that are open; for tests and figures. */
  openCount(): number;
  close(): Promise<void>;
}

export function createComponentStore(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly scrubIntervalMs: number;
  /** Found by the scrub in a component that nobody has taken. */
  readonly onBadBlock: (object: ObjectId, text: string) => void;
  readonly pool: DevicePool;
  readonly log: Log;
  /** Distinguishes this start of the daemon from all others. */
  readonly incarnation: number;
  readonly isDeleted: (object: ObjectId) => boolean;
  /** As far as is known. */
  readonly diskOf: (object: ObjectId) => DiskRecord | null;
}): ComponentStore {
  const { peer, pool, log } = options;
  const open = new Map<ComponentId, Promise<Component>>();
  const ready = new Map<ComponentId, Component>();
  /** Components that are let go, with what they have under way: nobody opens one again before that. */
  const closing = new Map<ComponentId, Promise<void>>();
  /** Who took it last. */
  const holders = new Map<ComponentId, HostId>();
  /** Components whose files had to be opened anew because a sync failed: it is to be noted there. */
  const doubtful = new Set<ComponentId>();
  /** Takes under way. */
  const taking = new Map<ComponentId, number>();
  /** What lies here: found at the start, or made since. */
  const here = new Map<ObjectId, Set<ComponentId>>();
  /** Bad blocks of which was told. */
  const told = new Set<string>();
  let tokens = 0;

  const newToken = () => {
    tokens += 1;
    return `${options.incarnation}.${tokens}`;
  };

  function use(id: ComponentId): Promise<Component> {
    const known = open.get(id);
    if (known !== undefined) return known;
    const opening = openNow(id).then((component) => {
      // Its device may have been given up meanwhile.
      if (open.get(id) === opening) ready.set(id, component);
      else void letGo(id, component);
      return component;
    });
    open.set(id, opening);
    // A failure is not remembered: the file may come back with its device.
    opening.catch(() => {
      if (open.get(id) === opening) open.delete(id);
    });
    return opening;
  }

  async function openNow(id: ComponentId): Promise<Component> {
    while (closing.has(id)) await closing.get(id);
    const component = await openComponent(pool.holding(id).disk, id, newToken, doubtful.has(id));
    doubtful.delete(id);
    return component;
  }

  /** Ends the component's part in everything; whatever its device still does of what is under way comes
   * before anything that is asked of it later. */
  function letGo(id: ComponentId, component: Component): Promise<void> {
    const before = closing.get(id) ?? Promise.resolve();
    const closed = before
      .then(() => component.close())
      .catch((error: unknown) => log.debug(`component ${id} was let go: ${String(error)}`))
      .then(() => {
        if (closing.get(id) === closed) closing.delete(id);
      });
    closing.set(id, closed);
    return closed;
  }

  pool.onChange((device) => {
    if (device.problem === null) {
      sweepLater(device);
      return;
    }
    for (const id of device.components) {
      const component = ready.get(id);
      forget(id);
      if (component !== undefined) void letGo(id, component);
    }
  });

  async function take({ component, fence }: TakeComponent): ReturnType<Component['take']> {
    taking.set(component, (taking.get(component) ?? 0) + 1);
    try {
      reopenIfSpent(component);
      return await (await use(component)).take(fence);
    } finally {
      const left = (taking.get(component) ?? 1) - 1;
      if (left > 0) taking.set(component, left);
      else taking.delete(component);
    }
  }

  function reopenIfSpent(id: ComponentId): void {
    const component = ready.get(id);
    if (component?.isSpent !== true) return;
    doubtful.add(id);
    forget(id);
    void letGo(id, component);
  }

  function forget(id: ComponentId): void {
    open.delete(id);
    ready.delete(id);
    holders.delete(id);
  }

  function isHere(id: ComponentId): void {
    const object = objectOf(id);
    const ofObject = here.get(object) ?? new Set();
    here.set(object, ofObject.add(id));
  }

  async function remove(id: ComponentId): Promise<void> {
    here.get(objectOf(id))?.delete(id);
    const component = await open.get(id)?.catch(() => null);
    forget(id);
    doubtful.delete(id);
    await component?.close();
    while (closing.has(id)) await closing.get(id);
    const device = pool.holding(id);
    await removeComponentFiles(device.disk, id);
    device.components.delete(id);
  }

  /** By component, what was told last. */
  const troubles = new Map<string, string>();

  /** Runs an async action of a request and answers it. */
  function answer(
    reply: Reply,
    what: ComponentId,
    action: (device: Device) => Promise<[JsonValue, Uint8Array?]>,
    device: Device = pool.holding(what),
  ): void {
    if (device.problem !== null) {
      const where = pool.devices.length === 1 ? 'store' : `device ${device.name}`;
      const text = `the ${where} of ${peer.self}: ${device.problem}`;
      reply.fail(new HoldfastError('store-damaged', text));
      return;
    }
    action(device).then(
      ([body, payload]) => {
        troubles.delete(what);
        reply.ok(body, payload);
      },
      (error: unknown) => {
        const known = explain(error, what);
        // It is asked for again and again while the trouble lasts.
        const level = troubles.get(what) === known.message ? 'debug' : 'warn';
        troubles.set(what, known.message);
        log[level](known.message, { component: what });
        reply.fail(known);
      },
    );
  }

  function explain(error: unknown, what: string): HoldfastError {
    if (error instanceof DiskError && error.kind === 'missing') {
      return new HoldfastError('not-a-voter', `${peer.self} has no component ${what}`);
    }
    return fromDisk(error, `component ${what} on ${peer.self}`);
  }

  /** A component does not know where it is. */
  function located(error: HoldfastError): HoldfastError {
    if (error.code !== 'bad-block' && error.code !== 'unsettled-block') return error;
    return new HoldfastError(error.code, `${peer.self}: ${error.message}`, { cause: error });
  }

  /** The component if it is open; answers the request otherwise: only a take opens one. */
  function taken(id: ComponentId, reply: Reply): Component | null {
    const component = ready.get(id);
    if (component === undefined) {
      reply.fail(
        new HoldfastError('fenced', `component ${id} on ${peer.self} has to be taken first`),
      );
      return null;
    }
    return component;
  }

  /** Removes the components of an object that is deleted. */
  function sweep(object: ObjectId): void {
    void (async () => {
      for (const id of await listUsable()) if (objectOf(id) === object) await remove(id);
    })().catch((error: unknown) => {
      log.error(`could not remove the components of a deleted object: ${String(error)}`);
    });
  }

  /** What was to be removed from this device, and was not, because the daemon ended or the device was not used;
   * or of what this host has never heard. */
  async function sweepDevice(device: Device): Promise<void> {
    for (const id of await componentsOn(device.disk)) {
      if (options.isDeleted(objectOf(id))) await remove(id);
      else isHere(id);
    }
    for (const object of [...here.keys()]) {
      const record = options.diskOf(object);
      if (record !== null) tidy(record, null);
    }
  }

  function sweepLater(device: Device): void {
    sweepDevice(device).catch((error: unknown) => {
      log.error(
        `the components on the device ${device.name} are not looked through: ${String(error)}`,
      );
    });
  }

  async function listUsable(): Promise<ComponentId[]> {
    const usable = pool.devices.filter(({ problem }) => problem === null);
    const lists = await Promise.allSettled(usable.map(({ disk }) => componentsOn(disk)));
    return lists.flatMap((list) => (list.status === 'fulfilled' ? list.value : []));
  }

  const scrub = createScrub({
    clock: options.clock,
    intervalMs: options.scrubIntervalMs,
    list: listUsable,
    async use(id) {
      const wasOpen = open.has(id);
      const component = await use(id);
      const release = async () => {
        // Nobody else may have a use for it.
        if (wasOpen || component.isTaken || taking.has(id) || ready.get(id) !== component) return;
        open.delete(id);
        ready.delete(id);
        await component.close();
      };
      return { component, release };
    },
    isBusy: () => [...ready.values()].some((component) => component.isBusy),
    onBad: badBlock,
    log,
  });

  function badBlock(component: Component, offset: number): void {
    const { component: id, object } = component.meta;
    const holder = holders.get(id);
    if (component.isTaken && holder !== undefined) {
      // It may be a write that is under way; who has taken it can tell, and knows the other copies.
      const body: BadBlock = { component: id, object, offset };
      peer.send(holder, 'component.bad', body as unknown as JsonValue);
      return;
    }
    const key = `${id}/${offset}`;
    if (told.has(key)) return;
    told.add(key);
    options.onBadBlock(
      object,
      `The block at offset ${offset} of component ${id} on ${peer.self} is not what was written; it is replaced from another copy once the disk is in use`,
    );
  }

  function tidy(record: DiskRecord, previous: ObjectRecord | null): void {
    for (const id of here.get(record.id) ?? []) {
      if (!isLeftover(id, record, previous)) continue;
      log.info(`the component ${id} is no part of its disk any more and goes`);
      remove(id).catch((error: unknown) => {
        log.error(
          `the component ${id}, which is no part of its disk any more, stays: ${String(error)}`,
        );
      });
    }
  }

  for (const device of pool.devices) {
    // A further device is looked through when it can be.
    if (device.problem === null || device === pool.devices[0]) sweepLater(device);
  }

  peer.on('component.create', (_from, body, _payload, reply) => {
    const request = body as unknown as CreateComponent;
    const device = pool.named(request.store);
    if (device === null) {
      const text = `${peer.self} has no device ${request.store} at present`;
      reply.fail(new HoldfastError('store-damaged', text));
      return;
    }
    answer(reply, request.component, () => create(request, device), device);
  });

  async function create(request: CreateComponent, device: Device): Promise<[JsonValue]> {
    const { thick, mustCopyAll = false, store: _, ...meta } = request;
    const deleted = new HoldfastError('conflict', `object ${request.object} is deleted`);
    if (options.isDeleted(request.object)) throw deleted;
    // No name is given twice: somebody asks late for what has data by now.
    if (here.get(objectOf(meta.component))?.has(meta.component) === true) {
      throw new HoldfastError('conflict', `${peer.self} has ${meta.component} already`);
    }
    isHere(meta.component);
    const { disk } = device;
    // From now on it is looked for there.
    if (device !== pool.devices[0]) device.components.add(meta.component);
    try {
      const fence = { epoch: 0 as never, open: 0 };
      await createComponentFiles(disk, { ...meta, fence }, mustCopyAll);
      if (thick) await allocate(disk, `components/${meta.component}.data`);
    } catch (error) {
      await removeComponentFiles(disk, meta.component).catch(() => undefined);
      device.components.delete(meta.component);
      here.get(request.object)?.delete(meta.component);
      throw error;
    }
    if (options.isDeleted(request.object)) {
      await remove(request.component);
      throw deleted;
    }
    return [null];
  }

  peer.on('component.take', (from, body, _payload, reply) => {
    const request = body as unknown as TakeComponent;
    answer(reply, request.component, async () => {
      const { answer: taken, regions } = await take(request);
      holders.set(request.component, from);
      log.debug(`${from} has taken ${request.component}`, { mayHaveLost: taken.mayHaveLost });
      const payload = encodeRegions(regions);
      return [taken satisfies TakeAnswer as unknown as JsonValue, payload];
    });
  });

  peer.on('component.read', (_from, body, _payload, reply) => {
    const request = body as unknown as ReadComponent;
    taken(request.component, reply)?.read(
      request.token,
      request.offset,
      request.length,
      request.adopt,
      (error, bytes) => {
        if (error === null) reply.ok(null, bytes);
        else reply.fail(located(error));
      },
    );
  });

  peer.on('component.write', (_from, body, payload, reply) => {
    const request = body as unknown as WriteComponent;
    const component = taken(request.component, reply);
    const { token, offset, fua, badBytes } = request;
    if (badBytes === undefined) {
      component?.write(token, offset, payload, fua, (error) => finish(reply, error));
    } else {
      component?.writeBad(token, offset, badBytes, (error) => finish(reply, error));
    }
  });

  peer.on('component.zero', (_from, body, _payload, reply) => {
    const request = body as unknown as ZeroComponent;
    taken(request.component, reply)?.zero(
      request.token,
      request.offset,
      request.length,
      request,
      (error) => finish(reply, error),
    );
  });

  peer.on('component.flush', (_from, body, _payload, reply) => {
    const request = body as unknown as FlushComponent;
    taken(request.component, reply)?.flush(request.token, (error) => finish(reply, error));
  });

  peer.on('component.clear', (_from, body) => {
    const request = body as unknown as ClearIntent;
    ready.get(request.component)?.clearIntent(request.token, request.regions);
  });

  return {
    objectDeleted: sweep,
    objectChanged: tidy,
    openCount: () => ready.size,
    async close() {
      scrub.stop();
      const all = await Promise.allSettled(open.values());
      open.clear();
      ready.clear();
      for (const result of all) if (result.status === 'fulfilled') await result.value.close();
    },
  };
}

function finish(reply: Reply, error: HoldfastError | null): void {
  if (error === null) reply.ok(null);
  else reply.fail(error);
}
