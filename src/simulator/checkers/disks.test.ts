import { beforeEach, describe, expect, it } from 'vitest';
import { ballot, disk, diskId, h1, h2, namespace, vm } from '../../../test/support/records.ts';
import { type ComponentId, componentId, epoch, type HostId } from '../../model/ids.ts';
import type { DiskFile } from '../../ports/disk.ts';
import { VirtualDisk } from '../world/disk.ts';
import { blockBytes, type Stamp, stampBlock } from '../world/disk-truth.ts';
import { SeededRandom } from '../world/random.ts';
import { VirtualTime } from '../world/time.ts';
import { Copies, fileOf } from './copies.ts';
import { Disks } from './disks.ts';
import { Ledger } from './ledger.ts';

const [on1, on2] = [componentId('on-h1'), componentId('on-h2')];

/** Two machines with a device each, and a copy of the disk on each. */
class Stage {
  readonly said: string[] = [];
  readonly ledger = new Ledger();
  readEpoch = 0;
  readonly #devices = new Map<HostId, VirtualDisk>();
  readonly #files = new Map<ComponentId, DiskFile>();
  readonly disks: Disks;
  readonly #time: VirtualTime;
  #revision = 0;

  constructor() {
    this.#time = new VirtualTime(() => {});
    this.disks = new Disks(
      this.ledger,
      new Copies((host) => this.#devices.get(host) ?? null),
      () => this.readEpoch,
      (name, text) => this.said.push(`${name}: ${text}`),
    );
    this.ledger.committed(ballot(1), namespace(1));
  }

  async begin(): Promise<this> {
    for (const [host, component] of [
      [h1, on1],
      [h2, on2],
    ] as const) {
      const device = new VirtualDisk(this.#time, new SeededRandom(host), 2 ** 30);
      this.#devices.set(host, device);
      device.watcher = { wrote: (...what) => this.disks.wrote(host, ...what) };
      const local = device.attach({ receive: (callback) => callback() });
      const opening = local.open(fileOf(component), { create: true });
      this.#time.advance(10);
      this.#files.set(component, await opening);
    }
    return this.commits({});
  }

  commits(change: Parameters<typeof disk>[1]): this {
    this.#revision += 1;
    const record = disk(this.#revision, change);
    this.ledger.committed(ballot(this.#revision), record);
    this.disks.committed(record);
    return this;
  }

  writes(component: ComponentId, stamp: Stamp, isDurable = false): this {
    const file = this.#files.get(component) as DiskFile;
    const bytes = stampBlock(stamp);
    file.write(stamp.block * blockBytes, [bytes], () => {
      if (isDurable) file.sync(() => {});
    });
    this.#time.advance(10);
    return this;
  }

  cutsPower(host: HostId): this {
    this.#devices.get(host)?.cutPower();
    return this;
  }

  replaces(host: HostId): this {
    this.#devices.get(host)?.replace();
    return this;
  }

  acknowledges(stamp: Stamp, isDurable = false): this {
    const guest = { vm, name: 'web', epoch: epoch(stamp.epoch) };
    this.disks.acknowledged(guest, stamp, isDurable);
    return this;
  }
}

const stamp = (serial: number, at = 1, block = 3): Stamp => ({
  vm: 1,
  disk: 0,
  block,
  serial,
  epoch: at,
});

let stage: Stage;
beforeEach(async () => {
  stage = await new Stage().begin();
});

describe('no-stale-write', () => {
  it('is content with the newest writer, and with what comes before it reads', () => {
    stage.writes(on1, stamp(1)).writes(on2, stamp(1));
    stage.readEpoch = 1;
    stage.writes(on1, stamp(2)).writes(on2, stamp(2));
    stage.writes(on1, stamp(3, 2)); // epoch 2 has not read anything yet
    expect(stage.said).toEqual([]);
  });

  it('is content with copying between copies, at any time', () => {
    stage.writes(on1, stamp(1)).writes(on1, stamp(2)).writes(on2, stamp(1));
    stage.readEpoch = 2;
    stage.writes(on2, stamp(2)).writes(on2, stamp(2));
    expect(stage.said).toEqual([]);
  });

  it('knows that a copy may have fallen back to what it had', () => {
    stage.writes(on1, stamp(1), true).writes(on2, stamp(1), true).writes(on2, stamp(2));
    stage.writes(on1, stamp(2)).cutsPower(h1);
    stage.readEpoch = 2;
    stage.writes(on2, stamp(1)); // reconciled from h1, which was given write 2 and lost it
    stage.writes(on2, stamp(2));
    expect(stage.said).toEqual([]);
  });

  it('is content with what comes to a copy that does not count', () => {
    stage.writes(on1, stamp(5, 2)).commits({ inSync: [on1] });
    stage.readEpoch = 2;
    stage.writes(on2, stamp(4, 1));
    expect(stage.said).toEqual([]);
  });

  it('tells of a write of an older epoch that nobody else has', () => {
    stage.writes(on1, stamp(1)).writes(on2, stamp(1));
    stage.readEpoch = 2;
    stage.writes(on1, stamp(2, 1));
    expect(stage.said).toHaveLength(1);
    expect(stage.said[0]).toContain('no-stale-write: vm-a disk0 block 3: write 2 of epoch 1 came');
  });
});

describe('in-sync-before-acknowledge', () => {
  it('is content when all copies that count have been given the write', () => {
    stage.writes(on1, stamp(1)).writes(on2, stamp(1)).acknowledges(stamp(1));
    stage
      .commits({ inSync: [on1] })
      .writes(on1, stamp(2))
      .acknowledges(stamp(2));
    stage.writes(on2, stamp(2)).commits({ inSync: [on1, on2] });
    stage.writes(on1, stamp(3)).writes(on2, stamp(3)).cutsPower(h2).acknowledges(stamp(3));
    expect(stage.said).toEqual([]);
  });

  it('tells of a copy that counts and has not been given it', () => {
    stage.writes(on1, stamp(1)).acknowledges(stamp(1));
    expect(stage.said).toHaveLength(1);
    expect(stage.said[0]).toContain('the copy on h2, which counts, has not been given it');
  });

  it('tells of a disk that no record names', () => {
    stage.acknowledges({ ...stamp(1), disk: 1 });
    expect(stage.said).toHaveLength(1);
  });

  it('tells of a stripe without a copy', () => {
    expect(stage.commits({ inSync: [] }).said[0]).toContain('no copy of stripe 0');
  });

  const changed = (inSync: ComponentId[]) => ({
    at: 'disk.inSyncChanged' as const,
    object: diskId,
    inSync,
    removed: [],
    added: [],
  });

  it('holds a told change against what is committed', () => {
    const one = disk(2, { inSync: [on1] });
    stage.commits({ inSync: [on1] }).disks.returned(h1, one);
    stage.disks.inSyncChanged(h1, changed([on1]));
    // The next opening has gone on meanwhile, and the old one hears late.
    stage.commits({ inSync: [on2], fence: { epoch: epoch(2), open: 1 } });
    stage.disks.inSyncChanged(h1, changed([on1]));
    expect(stage.said).toEqual([]);
  });

  it('tells of a change that is not committed, or another', () => {
    stage.disks.inSyncChanged(h1, changed([on1]));
    expect(stage.said).toHaveLength(1);
    stage.disks.returned(h1, disk(2, { inSync: [on1] }));
    stage.disks.inSyncChanged(h1, changed([on1]));
    expect(stage.said).toHaveLength(2);
    stage.commits({ inSync: [on1] }).disks.inSyncChanged(h1, changed([on2]));
    expect(stage.said).toHaveLength(3);
  });
});

describe('flushed-is-durable', () => {
  it('is content when the write survives on all copies that count', () => {
    stage.writes(on1, stamp(1), true).writes(on2, stamp(1), true).acknowledges(stamp(1), true);
    stage.writes(on1, stamp(2)).writes(on2, stamp(2)).acknowledges(stamp(2), false);
    expect(stage.said).toEqual([]);
  });

  it('is content with what was durable before its device was taken away', () => {
    stage.writes(on1, stamp(1), true).writes(on2, stamp(1), true).replaces(h2);
    stage.acknowledges(stamp(1), true);
    expect(stage.said).toEqual([]);
    stage.writes(on1, stamp(2), true).replaces(h1).acknowledges(stamp(2), true);
    expect(stage.said[0]).toContain('the copy on h2, which counts, has not been given it');
  });

  it('tells of a copy that was never durable, though its device was taken away', () => {
    stage.writes(on1, stamp(1), true).writes(on2, stamp(1)).replaces(h2);
    stage.acknowledges(stamp(1), true);
    expect(stage.said[0]).toContain('the copy on h2, which counts, may lose it');
  });

  it('tells of a copy that may lose it', () => {
    stage.writes(on1, stamp(1), true).writes(on2, stamp(1)).acknowledges(stamp(1), true);
    expect(stage.said).toHaveLength(1);
    expect(stage.said[0]).toContain('flushed-is-durable');
    expect(stage.said[0]).toContain('the copy on h2, which counts, may lose it');
  });
});
