// The components of this host, served to the writers of their disks over the storage network. It
// opens a component on first use, and removes it when its object is deleted.

import { HoldfastError } from '../../model/errors.ts';
import { type ComponentId, componentId, type ObjectId, objectId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Peer, Reply } from '../../peer/peer.ts';
import { DiskError, type LocalDisk } from '../../ports/disk.ts';
import type { Log } from '../../ports/log.ts';
import {
  type Component,
  createComponentFiles,
  fromDisk,
  openComponent,
  removeComponentFiles,
} from './component.ts';
import {
  type ClearIntent,
  type CreateComponent,
  encodeRegions,
  type FlushComponent,
  type ReadComponent,
  type TakeAnswer,
  type TakeComponent,
  type WriteComponent,
} from './messages.ts';

export interface ComponentStore {
  /** The object is deleted: its components here go, now and whenever one turns up. */
  objectDeleted(object: ObjectId): void;
  /** Components on this host that are open; for tests and figures. */
  openCount(): number;
  close(): Promise<void>;
}

export function createComponentStore(options: {
  readonly peer: Peer;
  readonly disk: LocalDisk;
  readonly log: Log;
  /** Distinguishes this start of the daemon from all others. */
  readonly incarnation: number;
  /** Why the host's store can not be used; null if it can. */
  readonly problem: () => string | null;
  readonly isDeleted: (object: ObjectId) => boolean;
}): ComponentStore {
  const { peer, disk, log } = options;
  const open = new Map<ComponentId, Promise<Component>>();
  const ready = new Map<ComponentId, Component>();
  let tokens = 0;

  const newToken = () => {
    tokens += 1;
    return `${options.incarnation}.${tokens}`;
  };

  function use(id: ComponentId): Promise<Component> {
    const known = open.get(id);
    if (known !== undefined) return known;
    const opening = openComponent(disk, id, newToken).then((component) => {
      ready.set(id, component);
      return component;
    });
    open.set(id, opening);
    // A failure is not remembered: the file may come back with its device.
    opening.catch(() => open.delete(id));
    return opening;
  }

  async function remove(id: ComponentId): Promise<void> {
    const component = await open.get(id)?.catch(() => null);
    open.delete(id);
    ready.delete(id);
    await component?.close();
    await removeComponentFiles(disk, id);
  }

  /** By component, what was told last. */
  const troubles = new Map<string, string>();

  /** Runs an async action of a request and answers it. */
  function answer(
    reply: Reply,
    what: string,
    action: () => Promise<[JsonValue, Uint8Array?]>,
  ): void {
    const problem = options.problem();
    if (problem !== null) {
      reply.fail(new HoldfastError('store-damaged', `the store of ${peer.self}: ${problem}`));
      return;
    }
    action().then(
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

  /** Removes the components of objects that are deleted; their names begin with the object's. */
  function sweep(isWanted: (object: ObjectId) => boolean): void {
    void (async () => {
      const names = await disk.list('components');
      const ids = new Set(names.map((name) => name.replace(/^components\/|\.(head|data)$/g, '')));
      for (const id of ids) {
        if (isWanted(objectId(id.slice(0, id.indexOf('.'))))) await remove(componentId(id));
      }
    })().catch((error: unknown) => {
      log.error(`could not remove the components of a deleted object: ${String(error)}`);
    });
  }

  // What an earlier run of the daemon was told to remove, and did not come to.
  sweep(options.isDeleted);

  peer.on('component.create', (_from, body, _payload, reply) => {
    const request = body as unknown as CreateComponent;
    answer(reply, request.component, async () => {
      if (options.isDeleted(request.object)) {
        throw new HoldfastError('conflict', `object ${request.object} is deleted`);
      }
      try {
        await createComponentFiles(disk, { ...request, fence: { epoch: 0 as never, open: 0 } });
      } catch (error) {
        await removeComponentFiles(disk, request.component).catch(() => undefined);
        throw error;
      }
      if (options.isDeleted(request.object)) {
        await remove(request.component);
        throw new HoldfastError('conflict', `object ${request.object} is deleted`);
      }
      return [null];
    });
  });

  peer.on('component.take', (from, body, _payload, reply) => {
    const request = body as unknown as TakeComponent;
    answer(reply, request.component, async () => {
      const component = await use(request.component);
      const { answer: taking, regions } = await component.take(request.fence);
      log.debug(`${from} has taken ${request.component}`, { mayHaveLost: taking.mayHaveLost });
      const payload = encodeRegions(regions);
      return [taking satisfies TakeAnswer as unknown as JsonValue, payload];
    });
  });

  peer.on('component.read', (_from, body, _payload, reply) => {
    const request = body as unknown as ReadComponent;
    taken(request.component, reply)?.read(
      request.token,
      request.offset,
      request.length,
      (error, bytes) => {
        if (error === null) reply.ok(null, bytes);
        else reply.fail(error);
      },
    );
  });

  peer.on('component.write', (_from, body, payload, reply) => {
    const request = body as unknown as WriteComponent;
    taken(request.component, reply)?.write(
      request.token,
      request.offset,
      payload,
      request.fua,
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
    objectDeleted: (object) => sweep((one) => one === object),
    openCount: () => ready.size,
    async close() {
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
