// One component: who may use it, what it remembers, what it admits to have lost.

import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import type { HoldfastError } from '../../model/errors.ts';
import { componentId, epoch, objectId } from '../../model/ids.ts';
import { DiskError } from '../../ports/disk.ts';
import { writeTo } from '../../ports/disk-calls.ts';
import { type Component, createComponentFiles, openComponent } from './component.ts';
import { slotBytes } from './component-meta.ts';

const name = 'disk.m0.s0';
const fence = (at: number, open = 1) => ({ epoch: epoch(at), open });
const bytes = (value: number) => new Uint8Array(512).fill(value);
const meta = { component: componentId(name), object: objectId('disk'), sizeBytes: 65536 };
let clock: VirtualClock;
let device: MemoryDisk;
let tokens: number;

beforeEach(async () => {
  clock = new VirtualClock();
  device = new MemoryDisk(clock);
  tokens = 0;
  await clock.wait(createComponentFiles(device.attach(), { ...meta, fence: fence(0) }));
});

/** As after the start of a daemon. */
function open(): Promise<Component> {
  tokens += 1;
  return clock.wait(openComponent(device.attach(), name, () => `token-${tokens++}`));
}

async function take(component: Component, at = 1, opening = 1) {
  return (await clock.wait(component.take(fence(at, opening)))).answer;
}

function write(
  component: Component,
  token: string,
  value: number,
  fua = false,
): Promise<HoldfastError | null> {
  return new Promise((resolve) => component.write(token, 0, bytes(value), fua, resolve));
}

function flush(component: Component, token: string): Promise<HoldfastError | null> {
  return new Promise((resolve) => component.flush(token, resolve));
}

async function content(component: Component, token: string): Promise<number> {
  const read = new Promise<number>((resolve) =>
    component.read(token, 0, 512, false, (_error, found) => resolve(found[0] as number)),
  );
  return clock.wait(read);
}

describe('a component', () => {
  it('serves only who took it last, with the newest fence', async () => {
    const component = await open();
    expect(await clock.wait(write(component, 'none', 1))).toMatchObject({ code: 'fenced' });
    const first = await take(component, 2);
    expect(await clock.wait(write(component, first.token, 1))).toBe(null);
    const second = await take(component, 2);
    expect(await clock.wait(write(component, first.token, 2))).toMatchObject({ code: 'fenced' });
    expect(await clock.wait(flush(component, first.token))).toMatchObject({ code: 'fenced' });
    await expect(take(component, 1, 9)).rejects.toMatchObject({ code: 'fenced' });
    expect(await content(component, second.token)).toBe(1);
    expect(await clock.wait(write(component, second.token, 3))).toBe(null);
  });

  it('remembers the fence over the loss of power', async () => {
    await take(await open(), 5, 3);
    device.cutPower();
    await expect(take(await open(), 5, 2)).rejects.toMatchObject({ code: 'fenced' });
    await expect(take(await open(), 5, 3)).resolves.toBeDefined();
  });

  it('lets a take wait for what is in flight, so that nothing older lands afterwards', async () => {
    const component = await open();
    const { token } = await take(component);
    device.latencyMs = ({ kind, file }) => (kind === 'write' && file.endsWith('.data') ? 500 : 1);
    let landed = false;
    void write(component, token, 7).then(() => {
      landed = true;
    });
    await clock.run(10);
    const taking = component.take(fence(2));
    const landedBefore = taking.then(() => landed);
    await clock.run(100);
    expect(landed).toBe(false);
    expect(await clock.wait(landedBefore)).toBe(true);
    expect(await content(component, (await taking).answer.token)).toBe(7);
  });

  it('says at each take that it may have lost writes, until a flush', async () => {
    const before = await open();
    const { token, mayHaveLost } = await take(before);
    expect(mayHaveLost).toBe(false);
    await clock.wait(write(before, token, 1));
    device.cutPower();
    expect((await take(await open())).mayHaveLost).toBe(true);
    // The answer may not have reached the writer, or the writer may have died of the same failure.
    expect((await take(await open())).mayHaveLost).toBe(true);
    const component = await open();
    const again = await take(component, 2);
    expect(again.mayHaveLost).toBe(true);
    expect(await clock.wait(flush(component, again.token))).toBe(null);
    expect((await take(component, 2)).mayHaveLost).toBe(false);
    expect((await take(await open(), 2)).mayHaveLost).toBe(false);
  });

  it('has lost nothing when only its daemon restarts', async () => {
    const before = await open();
    await clock.wait(write(before, (await take(before)).token, 1));
    device.kill();
    const after = await open();
    const { token, mayHaveLost } = await take(after);
    expect(mayHaveLost).toBe(false);
    expect(await content(after, token)).toBe(1);
  });

  it('counts as one that lost writes after a failed sync, whoever asks and however often', async () => {
    const component = await open();
    const { token } = await take(component);
    await clock.wait(write(component, token, 1));
    let fails = true;
    device.fault = ({ kind, file }) => {
      if (!fails || kind !== 'sync' || !file.endsWith('.data')) return null;
      fails = false;
      return new DiskError('failed', 'injected');
    };
    // Two at once: the second would succeed, because the system believes that all is clean.
    const both = Promise.all([flush(component, token), flush(component, token)]);
    expect((await clock.wait(both)).every((error) => error !== null)).toBe(true);
    expect(await clock.wait(write(component, token, 2))).toMatchObject({ code: 'fenced' });
    expect((await take(component)).mayHaveLost).toBe(true);
    expect((await take(component)).mayHaveLost).toBe(true);
    device.kill(); // the daemon alone
    const after = await open();
    const again = await take(after);
    expect(again.mayHaveLost).toBe(true);
    expect(await clock.wait(flush(after, again.token))).toBe(null);
    expect((await take(after)).mayHaveLost).toBe(false);
  });

  it('keeps the only whole slot of its head when writing the other fails', async () => {
    const component = await open();
    await take(component, 1);
    device.fault = ({ kind, file }) =>
      kind === 'sync' && file.endsWith('.head') ? new DiskError('failed', 'injected') : null;
    for (let attempt = 2; attempt < 5; attempt += 1) {
      await expect(take(component, attempt)).rejects.toThrow();
    }
    device.fault = () => null;
    device.cutPower();
    expect((await open()).meta.fence).toEqual(fence(1));
  });

  it('finds its head whatever a power cut leaves of a take after a killed daemon', async () => {
    await take(await open(), 1);
    device.latencyMs = ({ kind }) => (kind === 'sync' ? 1000 : 0.1);
    const second = await open();
    void second.take(fence(2)).catch(() => undefined);
    await clock.run(1);
    device.kill(); // the newer slot is written and not synced
    const third = open();
    await clock.run(500);
    device.damage(`components/${name}.head`, slotBytes + 20, 0); // nothing: the files are intact
    void third.catch(() => undefined);
    device.cutPower();
    device.latencyMs = () => 0.1;
    expect([1, 2]).toContain((await open()).meta.fence.epoch);
  });

  it('leaves no file open where it can not be opened', async () => {
    const disk = device.attach();
    const head = await clock.wait(disk.open(`components/${name}.head`, { create: false }));
    await clock.wait(writeTo(head, 0, new Uint8Array(2 * slotBytes)));
    let left = 0;
    const { open: original } = disk;
    disk.open = async (...args) => {
      const file = await original.apply(disk, args);
      left += 1;
      const { close } = file;
      file.close = () => {
        left -= 1;
        return close.call(file);
      };
      return file;
    };
    for (const broken of ['head', 'data']) {
      if (broken === 'data') await clock.wait(disk.remove(`components/${name}.data`));
      const opening = openComponent(disk, name, () => 'token').catch((error: unknown) => error);
      expect(await clock.wait(opening)).toBeInstanceOf(Error);
      expect(left).toBe(0);
      const fixed = createComponentFiles(disk, { ...meta, fence: fence(0) });
      await clock.wait(fixed);
      expect(left).toBe(0);
    }
  });

  it('marks a region before it writes to it, and refuses what is out of range', async () => {
    const component = await open();
    const { token } = await take(component);
    device.fault = ({ kind, file }) =>
      kind === 'sync' && file.endsWith('.head') ? new DiskError('failed', 'injected') : null;
    expect(await clock.wait(write(component, token, 9))).toMatchObject({ code: 'disk-error' });
    expect(await content(component, token)).toBe(0);
    device.fault = () => null;
    const outside = new Promise((resolve) =>
      component.write(token, 65536 - 511, bytes(1), false, resolve),
    );
    expect(await clock.wait(outside)).toMatchObject({ code: 'bad-request' });
  });

  it('writes through with FUA', async () => {
    const component = await open();
    await clock.wait(write(component, (await take(component)).token, 4, true));
    device.cutPower();
    const after = await open();
    expect(await content(after, (await take(after)).token)).toBe(4);
  });

  it('says that the device is full', async () => {
    const component = await open();
    const { token } = await take(component);
    device.fault = ({ kind }) => (kind === 'write' ? new DiskError('full', 'no space left') : null);
    expect(await clock.wait(write(component, token, 1))).toMatchObject({ code: 'disk-full' });
  });
});
