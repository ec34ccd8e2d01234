import { describe, expect, it } from 'vitest';
import { ballot, h1, h2, namespace, vm } from '../../../test/support/records.ts';
import { type Epoch, epoch, type HostId } from '../../model/ids.ts';
import { Guests, type SeenGuest } from './guests.ts';
import { Ledger } from './ledger.ts';

class Stage {
  readonly said: string[] = [];
  readonly #ledger = new Ledger();
  readonly guests = new Guests(this.#ledger, (name, text) => this.said.push(`${name}: ${text}`));
  #revision = 0;

  locked(holder: HostId | null, at: Epoch): this {
    this.#revision += 1;
    const record = namespace(this.#revision, { lock: { holder, epoch: at } });
    this.#ledger.committed(ballot(this.#revision), record);
    return this;
  }

  guest(at: Epoch) {
    const guest = { vm, name: 'web', epoch: at, hasRead: false, doesNothing: false };
    return { ...guest, state: 'running' as SeenGuest['state'] };
  }
}

describe('single-instance', () => {
  it('is content when the first stands or has ended before the second runs', () => {
    const stage = new Stage().locked(h1, epoch(1));
    const first = stage.guest(epoch(1));
    stage.guests.changed(h1, first);
    first.state = 'paused';
    stage.guests.changed(h1, first);
    stage.locked(h2, epoch(2));
    const second = stage.guest(epoch(2));
    stage.guests.changed(h2, second);
    expect(stage.guests.runningOn(vm)).toEqual([h2]);
    first.state = 'exited';
    stage.guests.changed(h1, first);
    expect(stage.said).toEqual([]);
    expect(stage.guests.aliveAt(vm, epoch(1))).toBe(null);
    expect(stage.guests.aliveAt(vm, epoch(2))).toBe(h2);
  });

  it('tells of two that run, also where one comes back from a pause', () => {
    const stage = new Stage().locked(h1, epoch(1));
    const first = stage.guest(epoch(1));
    stage.guests.changed(h1, first);
    stage.locked(h2, epoch(2));
    const second = stage.guest(epoch(2));
    stage.guests.changed(h2, second);
    expect(stage.said).toEqual(['single-instance: web runs on h2 (epoch 2) and on h1 (epoch 1)']);
    first.state = 'paused';
    stage.guests.changed(h1, first);
    first.state = 'running';
    stage.guests.changed(h1, first);
    expect(stage.said).toHaveLength(2);
  });

  it('remembers of which epoch a guest has read, also after its end', () => {
    const stage = new Stage().locked(h1, epoch(1));
    const guest = stage.guest(epoch(1));
    stage.guests.changed(h1, guest);
    expect(stage.guests.readEpoch(vm)).toBe(0);
    guest.hasRead = true;
    guest.state = 'exited';
    stage.guests.changed(h1, guest);
    expect(stage.guests.readEpoch(vm)).toBe(1);
  });
});

describe('started-with-lock', () => {
  it('looks at the lock once, when the guest begins', () => {
    const stage = new Stage().locked(h1, epoch(1));
    const guest = stage.guest(epoch(1));
    stage.guests.changed(h1, guest);
    stage.locked(h2, epoch(2));
    guest.state = 'paused';
    stage.guests.changed(h1, guest);
    expect(stage.said).toEqual([]);
  });

  it('tells of a guest without record, without lock, on another host, or of another epoch', () => {
    for (const stage of [
      new Stage(),
      new Stage().locked(null, epoch(1)),
      new Stage().locked(h2, epoch(1)),
      new Stage().locked(h1, epoch(2)),
    ]) {
      stage.guests.changed(h1, stage.guest(epoch(1)));
      expect(stage.said).toHaveLength(1);
      expect(stage.said[0]).toContain('started-with-lock: web was started on h1 at epoch 1');
    }
  });
});

describe('stopped-before-next-lock', () => {
  it('is content with a guest that stands, or has the newest lock', () => {
    const stage = new Stage().locked(h1, epoch(1));
    const guest = stage.guest(epoch(1));
    stage.guests.changed(h1, guest);
    stage.guests.lockCommitted(vm, epoch(1));
    guest.state = 'paused';
    stage.guests.lockCommitted(vm, epoch(2));
    expect(stage.said).toEqual([]);
  });

  it('tells of a guest that runs while a newer lock is committed', () => {
    const stage = new Stage().locked(h1, epoch(1));
    stage.guests.changed(h1, stage.guest(epoch(1)));
    stage.guests.lockCommitted(vm, epoch(2));
    expect(stage.said).toHaveLength(1);
    expect(stage.said[0]).toContain('still runs on h1 (epoch 1), and its lock has epoch 2');
  });
});

describe('ends-only-hung', () => {
  it('tells of one that is ended while it works', () => {
    const stage = new Stage().locked(h1, epoch(1));
    const guest = stage.guest(epoch(1));
    stage.guests.changed(h1, guest);
    stage.guests.takenForHung(vm, epoch(2));
    guest.doesNothing = true;
    stage.guests.takenForHung(vm, epoch(1));
    expect(stage.said).toEqual([]);
    guest.doesNothing = false;
    stage.guests.takenForHung(vm, epoch(1));
    expect(stage.said).toEqual(['ends-only-hung: web works on h1 (epoch 1), and is ended']);
  });
});
