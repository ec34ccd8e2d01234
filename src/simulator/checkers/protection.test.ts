import { describe, expect, it } from 'vitest';
import { h1, h2, namespace, vm } from '../../../test/support/records.ts';
import { type Epoch, epoch, type HostId } from '../../model/ids.ts';
import type { NamespaceRecord } from '../../model/record.ts';
import { Protection } from './protection.ts';

const e1 = epoch(1);
const e2 = epoch(2);

class Story {
  readonly said: string[] = [];
  readonly #protection: Protection;
  #record: NamespaceRecord | null = null;
  guest: { readonly on: HostId; readonly at: Epoch } | null = null;

  constructor() {
    this.#protection = new Protection(
      (_, text) => this.said.push(text),
      () => this.#record,
      (_, at) => (this.guest?.at === at ? this.guest.on : null),
    );
  }

  commits(change: Parameters<typeof namespace>[1]): this {
    const before = this.#record;
    this.#record = namespace((before?.revision ?? 0) + 1, change);
    this.#protection.committed(this.#record, before);
    return this;
  }

  startedByHa(at: Epoch): this {
    this.#protection.takenByHa(vm, at);
    return this;
  }

  acknowledges(at: Epoch, isProtected = true): this {
    this.#protection.set(vm, isProtected, at);
    return this;
  }
}

const held = (holder: HostId | null, at: Epoch) => ({ lock: { holder, epoch: at } });

describe('protection-kept', () => {
  it('follows a VM through protection, failover and power-off', () => {
    const story = new Story();
    story.commits(held(h1, e1)).commits({ ...held(h1, e1), at: e1 });
    story.acknowledges(e1);
    story.commits({ ...held(h2, e2), at: e1 }).commits({ ...held(h2, e2), at: e2 });
    story.acknowledges(e2);
    story.commits({ ...held(null, e2), at: e2, state: false });
    // The news of the SET may come after that of the power-off.
    story.acknowledges(e2, false).acknowledges(e2);
    story.commits({ ...held(h1, epoch(3)), at: e2, state: false });
    expect(story.said).toEqual([]);
  });

  it('tells of an acknowledgement of nothing', () => {
    expect(new Story().acknowledges(e1).said).toHaveLength(1);
    expect(new Story().commits(held(h1, e1)).acknowledges(e1).said).toHaveLength(1);
  });

  it('tells of a state that is lost, or falls back', () => {
    const protectedAt2 = () => new Story().commits({ ...held(h1, e2), at: e2 }).acknowledges(e2);
    expect(protectedAt2().commits(held(h1, e2)).said[0]).toContain('no state');
    expect(protectedAt2().commits({ ...held(h1, e2), at: e1 }).said[0]).toContain('of epoch 1');
  });

  it('tells of an end that no power-off made', () => {
    const story = new Story().commits({ ...held(h1, e1), at: e1 }).acknowledges(e1);
    story.commits({ ...held(h1, e1), at: e1, state: false });
    expect(story.said[0]).toContain('while h1 has its lock');
  });

  it('tells of an end while the guest is still there', () => {
    const story = new Story().commits({ ...held(h1, e1), at: e1 }).acknowledges(e1);
    story.guest = { on: h1, at: e1 };
    story.commits({ ...held(null, e1), at: e1, state: false });
    expect(story.said[0]).toContain('its guest of that epoch is there on h1');
  });

  it('tells of a late SET that protects a VM again', () => {
    const story = new Story().commits({ ...held(h1, e1), at: e1 }).acknowledges(e1);
    story.commits({ ...held(null, e1), at: e1, state: false }).acknowledges(e1, false);
    expect(story.said).toEqual([]);
    story.commits({ ...held(h2, e2), at: e1 });
    expect(story.said[0]).toContain('protected again');
  });

  it('tells of a state of an epoch that never was', () => {
    expect(new Story().commits({ ...held(h1, e1), at: e2 }).said).toHaveLength(1);
  });
});

describe('ha-starts-protected', () => {
  const off = { at: e1, state: false };

  it('is content where the record is protected, or has moved on', () => {
    const story = new Story().commits({ ...held(h2, e2), at: e1 }).startedByHa(e2);
    story.commits({ ...held(null, e2), ...off }).startedByHa(e1);
    expect(story.said).toEqual([]);
  });

  it('tells of a start of what its user has switched off', () => {
    const story = new Story().commits({ ...held(h2, e2), ...off }).startedByHa(e2);
    expect(story.said).toHaveLength(1);
    expect(story.said[0]).toContain('is not protected');
  });
});
