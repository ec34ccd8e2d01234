// A disk in one trouble at a time, each as it once went wrong or might.

import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { DiskWorld, type Session } from '../../../test/support/disk-world.ts';
import { componentId, type HostId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import type { Component } from '../../model/record.ts';
import type { Peer } from '../../peer/peer.ts';
import { DiskError } from '../../ports/disk.ts';
import type { OpenDisk } from './open-disk.ts';

let world: DiskWorld;
let one: HostId;
let two: HostId;
let three: HostId;

beforeAll(() => {
  Object.assign(limits, { regionBytes: 4096 });
});

/** A world whose disk, with copies on hosts 1 and 2, is opened by host 3. */
beforeEach(async () => {
  world = new DiskWorld({ seed: 1 });
  await world.start();
  [one, two, three] = world.hosts as [HostId, HostId, HostId];
  world.open(three);
  await world.clock.run(400);
});

const session = () => world.session as Session;

function write(value: number, at = 0): Promise<unknown> {
  return new Promise((resolve) =>
    session().disk?.write(at, new Uint8Array(512).fill(value), false, resolve),
  );
}

function flush(): Promise<unknown> {
  return new Promise((resolve) => session().disk?.flush(resolve));
}

function read(at = 0): Promise<number> {
  return new Promise((resolve) =>
    session().disk?.read(at, 512, (_error, bytes) => resolve(bytes[0] as number)),
  );
}

const inSync = () => world.record.inSync.map((id) => String(id));
const said = (text: string) => world.trace.some((line) => line.includes(text));
const wait = <T>(promise: Promise<T>) => world.clock.wait(promise, 20_000);

describe('a disk', () => {
  it('reads what it wrote, and zeros elsewhere', async () => {
    await wait(write(7, 512));
    expect([await wait(read(0)), await wait(read(512))]).toEqual([0, 7]);
  });

  it('acknowledges no write without a copy before the record says that it does not count', async () => {
    world.crash(two, true);
    let acknowledged = false;
    const writing = write(1).then(() => {
      acknowledged = true;
    });
    world.fates.push('refused', 'refused');
    await world.clock.until(() => acknowledged, 20_000);
    expect(inSync()).toEqual(['disk.m0.s0']);
    await wait(writing);
  });

  it('waits for its last copy, and removes neither', async () => {
    world.crash(one, false);
    world.crash(two, false);
    let acknowledged = false;
    void write(1).then(() => {
      acknowledged = true;
    });
    await world.clock.run(10_000);
    expect(acknowledged).toBe(false);
    expect(inSync().length).toBeGreaterThan(0);
    world.startHost(one);
    world.startHost(two);
    await world.clock.until(() => acknowledged, 20_000);
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(said('writes lost')).toBe(false);
  });

  it('does without one of its copies that were all away when another is back', async () => {
    await wait(write(1));
    for (const host of [one, two]) {
      world.crash(one, false);
      world.crash(two, false);
      let acknowledged = false;
      void write(2).then(() => {
        acknowledged = true;
      });
      await world.clock.run(10_000); // each is kept, because there is no other
      world.startHost(host);
      await world.clock.until(() => acknowledged, 20_000);
      expect(inSync()).toHaveLength(1);
      world.startHost(host === one ? two : one);
      await world.clock.until(() => inSync().length === 2, 20_000);
    }
  });

  it('removes nobody because daemons restarted', async () => {
    await wait(write(1));
    for (const host of [one, two]) {
      world.crash(host, false);
      world.startHost(host);
    }
    await wait(write(2, 512));
    expect([await wait(read(0)), await wait(read(512))]).toEqual([1, 2]);
    expect(said('copyLost')).toBe(false);
  });

  it('removes a copy that lost un-synced writes, and brings it back', async () => {
    await wait(write(1));
    world.crash(two, true);
    world.startHost(two);
    await wait(write(2, 512));
    expect(said('copyLost')).toBe(true);
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(world.difference()).toBe(null);
    expect(said('writes lost')).toBe(false);
  });

  it('keeps a copy that had everything flushed when its power failed', async () => {
    await wait(write(1));
    await wait(flush());
    world.crash(two, true);
    world.startHost(two);
    await wait(write(2, 512));
    expect(said('copyLost')).toBe(false);
  });

  it('does not rely on a copy that lost writes of before a restart of the writer', async () => {
    await wait(write(9, 20_480));
    world.open(three, true);
    await world.clock.run(400);
    world.crash(two, true); // without a write or a flush since
    world.startHost(two);
    await wait(write(2, 0));
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(world.difference()).toBe(null);
    expect(await wait(read(20_480))).toBe(9);
  });

  it('brings a copy back whose device has failed to sync, with no restart of its daemon', async () => {
    await wait(write(1));
    world.disk(two).fault = ({ kind, file }) =>
      kind === 'sync' && file.endsWith('.data') ? new DiskError('failed', 'no') : null;
    await wait(flush());
    expect(inSync()).toEqual(['disk.m0.s0']);
    world.disk(two).fault = () => null;
    await world.clock.until(() => inSync().length === 2, 20_000);
    await wait(flush());
    world.crash(one, true);
    world.crash(two, true);
    world.startHost(two);
    expect(await wait(read())).toBe(1);
    expect(said('writes lost')).toBe(false);
  });

  it('does not vouch for what its only copy has failed to sync', async () => {
    world.crash(one, true);
    await wait(write(1));
    await wait(flush());
    await wait(write(2));
    world.disk(two).fault = ({ kind, file }) =>
      kind === 'sync' && file.endsWith('.data') ? new DiskError('failed', 'no') : null;
    void flush();
    await world.clock.run(400);
    world.disk(two).fault = () => null;
    await world.clock.until(() => said('writes lost'), 20_000);
    await world.clock.run(400);
    await wait(flush());
    const found = await wait(read());
    world.crash(two, true);
    world.startHost(two);
    expect(await wait(read())).toBe(found);
  });

  it('waits, after a loss, for the other copy, which only its daemon left', async () => {
    await wait(write(1));
    world.crash(two, false);
    world.crash(one, true);
    world.startHost(one);
    const reading = read();
    await world.clock.run(700);
    world.startHost(two);
    expect(await wait(reading)).toBe(1);
    await world.clock.until(() => said('copyRestored'), 20_000);
    expect(world.difference()).toBe(null);
    expect(said('writes lost')).toBe(false);
  });

  it('has what was flushed for the next one, and says so, where the other copy does not come back', async () => {
    await wait(write(1));
    await wait(flush());
    await wait(write(2));
    world.crash(two, false);
    world.crash(one, true);
    world.startHost(one);
    // Nobody who knows of the second write is told that it is durable, or what is there instead of it.
    const told = vi.fn<() => void>();
    void read().then(told);
    void flush().then(told);
    await world.clock.run(6000);
    expect(said('writes lost')).toBe(true);
    expect(told).not.toHaveBeenCalled();
    expect([1, 2]).toContain(await wait(read()));
    world.startHost(two);
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(world.difference()).toBe(null);
  });

  it('keeps copies equal that both lost writes', async () => {
    await wait(write(1));
    for (const host of [one, two]) {
      world.crash(host, true);
      world.startHost(host);
    }
    void write(2, 512);
    await world.clock.until(() => said('writes lost'), 20_000);
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(world.difference()).toBe(null);
  });

  it.each([1, 2])(
    'serves nothing of the writer before it that a loss of power could undo (%i copies)',
    async (copies) => {
      const counting = copies === 1 ? [two] : [one, two];
      if (copies === 1) world.crash(one, true);
      await wait(write(1));
      await wait(flush());
      await wait(write(2)); // of a guest that ends, while the machines of the copies go on
      world.open(three);
      await world.clock.until(() => world.session?.disk != null, 20_000);
      const seen = await wait(read());
      await wait(write(3, 20_480)); // may be lost by all
      for (const host of counting) {
        world.disk(host).cutPower();
        world.crash(host, true);
        world.startHost(host);
      }
      await world.clock.run(400);
      world.open(three);
      await world.clock.run(400);
      expect(await wait(read())).toBe(seen);
    },
  );

  it('removes a joining copy in trouble through the record, which may count it already', async () => {
    world.crash(two, true);
    await wait(write(1));
    world.startHost(two);
    // The join happens, and for seconds nobody hears of it.
    world.fates.push(...Array.from({ length: 8 }, () => 'applied' as const));
    await world.clock.until(() => inSync().length === 2, 20_000);
    world.crash(two, true);
    await wait(write(2));
    expect(inSync()).toEqual(['disk.m0.s0']);
  });

  it('takes a mirror away that is joining through the record, which may count it already', async () => {
    world.crash(two, true);
    await wait(write(1));
    world.startHost(two);
    world.fates.push(...Array.from({ length: 8 }, () => 'applied' as const));
    await world.clock.until(() => inSync().length === 2, 20_000);
    const gone = world.record.blueprint.mirrors[1]?.stripes.map(({ id }) => id) ?? [];
    const removal = (session().disk as OpenDisk).removeMirror(new Set(gone)).catch(String);
    await wait(write(2));
    expect(inSync()).toEqual(['disk.m0.s0']);
    await wait(removal);
  });

  it('answers a read that was under way with a mirror as it was taken away', async () => {
    await wait(write(1));
    world.disk(one).latencyMs = ({ kind }) => (kind === 'read' ? 900 : 1);
    const reading = read();
    const gone = world.record.blueprint.mirrors[0]?.stripes.map(({ id }) => id) ?? [];
    await wait((session().disk as OpenDisk).removeMirror(new Set(gone)));
    expect(inSync()).toEqual(['disk.m1.s0']);
    expect(await wait(reading)).toBe(1);
  });

  it('brings a copy back that was being taken when it was to be taken away, and stayed', async () => {
    world.crash(two, true);
    await wait(write(1));
    world.startHost(two);
    let isBeingTaken = false;
    world.disk(two).latencyMs = ({ file }) => {
      isBeingTaken ||= file === 'components/disk.m1.s0.head';
      return 30;
    };
    await world.clock.until(() => isBeingTaken, 20_000);
    const gone = world.record.blueprint.mirrors[1]?.stripes.map(({ id }) => id) ?? [];
    world.fates.push('refused');
    const removal = (session().disk as OpenDisk).removeMirror(new Set(gone));
    await expect(wait(removal)).rejects.toThrow();
    await world.clock.until(() => inSync().length === 2, 20_000);
  });

  it('serves nobody who opened it before somebody else did', async () => {
    await wait(write(1));
    const old = session();
    world.open(two);
    await world.clock.run(500);
    old.isOpen = true; // a gate that errs
    let acknowledged = false;
    old.disk?.write(0, new Uint8Array(512).fill(8), false, (error) => {
      acknowledged = error === null;
    });
    await wait(write(2));
    await world.clock.run(5000);
    expect(acknowledged).toBe(false);
    expect(await wait(read())).toBe(2);
    expect(said('ends: fenced') || old.isOver).toBe(true);
  });

  it('can not be opened again with an older epoch', async () => {
    world.record = { ...world.record, fence: { epoch: 99 as never, open: 1 } };
    world.open(two);
    await world.clock.run(1000);
    expect(said('has been opened with fence 99.1')).toBe(true);
    expect(world.session).toBe(null);
  });

  it('answers nothing while the gate is closed, and goes on when it opens', async () => {
    await wait(write(1));
    session().setGate(false);
    let done = 0;
    void write(2).then(() => {
      done += 1;
    });
    void read().then(() => {
      done += 1;
    });
    await world.clock.run(5000);
    expect(done).toBe(0);
    session().setGate(true);
    await world.clock.until(() => done === 2, 5000);
  });

  it('gives no answer of a read during which the gate was closed', async () => {
    world.slowestMs = 1;
    await wait(write(1));
    for (const host of [one, two]) world.disk(host).latencyMs = () => 100;
    let done = false;
    void read().then(() => {
      done = true;
    });
    await world.clock.run(50);
    session().setGate(false);
    await world.clock.run(5000);
    expect(done).toBe(false);
    session().setGate(true);
    await world.clock.until(() => done, 5000);
  });

  it('waits at its close for what is in flight', async () => {
    const writing = write(3);
    const closing = session().disk?.close();
    await wait(writing);
    await wait(closing as Promise<void>);
    const after = new Promise((resolve) => session().disk?.read(0, 512, resolve));
    expect(await after).toMatchObject({ code: 'stopped' });
  });

  /** The copy on host 2 goes, and is made anew on host 3. */
  async function replaceSecond(): Promise<void> {
    const old = world.record.blueprint.mirrors[1]?.stripes[0] as Component;
    const added = { ...old, id: componentId(`${old.id}.r9`), host: three };
    const { id: component, sizeBytes } = added;
    const request = { component, object: world.record.id, sizeBytes, mustCopyAll: true };
    await wait(
      world.running.get(three)?.peer.ask(three, 'component.create', request, 1000) as never,
    );
    await wait((session().disk as OpenDisk).replaceCopy(old.id, added));
  }

  async function loseSecond(): Promise<void> {
    await wait(write(1, 20_480));
    await wait(flush());
    await world.clock.run(1000); // its bit is cleared
    world.crash(two, true);
    await wait(write(2));
    expect(said('copyLost')).toBe(true);
  }

  it('makes a copy anew elsewhere, with what was written long before, too', async () => {
    await loseSecond();
    await replaceSecond();
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(world.difference()).toBe(null);
    world.crash(one, true);
    expect(await wait(read(20_480))).toBe(1);
    expect(await wait(read())).toBe(2);
  });

  it('makes a copy anew though the writer ends in between, and its record was late', async () => {
    await loseSecond();
    world.fates.push('applied', 'late');
    await replaceSecond();
    world.open(one);
    await world.clock.until(() => inSync().length === 2, 20_000);
    expect(world.difference()).toBe(null);
    world.endSession();
    world.crash(one, true);
    world.open(three);
    await world.clock.run(3000);
    expect(await wait(read(20_480))).toBe(1);
  });

  it('refuses to make a component once more, and leaves it as it is', async () => {
    await wait(write(1));
    const made = world.record.blueprint.mirrors[1]?.stripes[0] as Component;
    const { id: component, sizeBytes } = made;
    const peer = world.running.get(three)?.peer as Peer;
    const again = peer.ask(two, 'component.create', { component, object: 'disk', sizeBytes }, 1000);
    await expect(wait(again)).rejects.toMatchObject({ code: 'conflict' });
    await wait(write(2, 512));
    expect(world.difference()).toBe(null);
    expect(inSync()).toHaveLength(2);
  });

  it('replaces no copy that counts', async () => {
    const counting = world.record.blueprint.mirrors[1]?.stripes[0] as Component;
    const added = { ...counting, id: componentId('x.m1.s0.r2'), host: three };
    const disk = session().disk as OpenDisk;
    await expect(wait(disk.replaceCopy(counting.id, added))).rejects.toThrow('is in use');
  });

  it('ends an attempt to stripe it otherwise when it is closed while the components are made', async () => {
    const disk = session().disk as OpenDisk;
    const component = {
      ...(world.record.blueprint.mirrors[0]?.stripes[0] as Component),
      id: componentId('disk.m0.s0.next'),
    };
    const tree = { stripeBytes: 4096, mirrors: [{ stripes: [component] }] };
    let made = () => {};
    const attempt = disk.restripe(tree, () => new Promise((resolve) => (made = resolve)));
    const ended = wait(attempt).catch(String);
    await world.clock.run(400);
    await wait(disk.close());
    made();
    expect(await ended).toContain('given up');
  });
});
