// What becomes of changes whose proposer died, of creations that were broken off, and of what a
// minority took against a lease: on whole hosts.

import { describe, expect, it } from 'vitest';
import { object, RegisterCluster } from '../../../test/support/register-cluster.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import {
  epoch,
  type HostId,
  hostId,
  incarnation,
  type ObjectId,
  objectId,
  storeId,
} from '../../model/ids.ts';
import { timings } from '../../model/limits.ts';
import type { Lock, NamespaceRecord } from '../../model/record.ts';
import { DiskError } from '../../ports/disk.ts';
import { lockOf } from './acceptor.ts';
import type { Admission } from './admission.ts';
import { createFinisher } from './finisher.ts';
import type { Outcome } from './outcome.ts';
import { sameLock } from './quorum.ts';

const [h1, h2, h3, h4, h5] = ['host-1', 'host-2', 'host-3', 'host-4', 'host-5'].map((name) =>
  hostId(name),
) as [HostId, HostId, HostId, HostId, HostId];

async function cluster(options: Partial<ConstructorParameters<typeof RegisterCluster>[0]> = {}) {
  const made = new RegisterCluster({ seed: 1, hosts: 5, ...options });
  await made.start();
  return made;
}

const nameAt = (hosts: RegisterCluster, host: HostId) =>
  (hosts.registers(host).accepted(object)?.record as NamespaceRecord | undefined)?.name;

describe('finishing', () => {
  it('completes what a dead proposer left, within finishAfterMs and a little', async () => {
    const hosts = await cluster();
    await hosts.create();
    await hosts.clock.run(100);
    // host-4 reaches everybody, but what it would hear is lost: it never learns the outcome.
    for (const host of [h1, h2, h3]) hosts.network.cut(host, h4, true);
    void hosts.change(h4, (current) => ({ ...current, name: 'from the dead' }));
    hosts.network.healAll();
    hosts.clock.advance(1.2);
    hosts.crash(h4);
    hosts.committed.length = 0;
    const beganMs = hosts.clock.now();
    await hosts.clock.until(() =>
      [h1, h2, h3].every((host) => hosts.registers(host).openCount === 0),
    );
    expect(hosts.clock.now() - beganMs).toBeLessThan(2 * timings.finishAfterMs + 300);
    const names = new Set([h1, h2, h3].map((host) => nameAt(hosts, host)));
    expect(names.size).toBe(1);
  });

  it('finishes at once when the session to the proposer breaks, and at start', async () => {
    const hosts = await cluster();
    await hosts.create();
    await hosts.clock.run(100);
    const change = hosts.change(h4, (current) => ({ ...current, name: 'x' }));
    await hosts.clock.until(() => nameAt(hosts, h1) === 'x');
    hosts.crash(h4);
    hosts.crash(h1);
    hosts.crash(h2);
    hosts.crash(h3);
    void change;
    for (const host of [h1, h2, h3]) await hosts.startHost(host);
    await hosts.clock.run(2 * timings.finishAfterMs + 500);
    for (const host of [h1, h2, h3]) expect(hosts.registers(host).openCount).toBe(0);
    expect(new Set([h1, h2, h3].map((host) => nameAt(hosts, host))).size).toBe(1);
  });

  it('finishes many registers a few at a time, and those that fail ever later', () => {
    const clock = new VirtualClock();
    const asked: { object: ObjectId; atMs: number; done: (outcome: Outcome) => void }[] = [];
    let running = 0;
    let most = 0;
    const finisher = createFinisher({
      clock,
      random: new SeededRandom(1),
      log: new SilentLog(),
      timings,
      proposer: {
        saw: () => {},
        pending: 0,
        stop: () => {},
        change({ object: which }, _decide, _options, done) {
          running += 1;
          most = Math.max(most, running);
          asked.push({ object: which, atMs: clock.now(), done });
          clock.after(50, () => {
            running -= 1;
            done({ status: 'failed', error: new HoldfastError('inaccessible', 'nobody there') });
          });
        },
      },
      state: () => ({
        voter,
        voting: { voters: [voter] },
        promised: null,
        accepted: { ballot, record, history: [] },
        committed: false,
      }),
    });
    const voter = { host: h1, store: storeId('s'), joined: 1 };
    const ballot = { counter: 1, host: h1, incarnation: incarnation(1) };
    const record = { voters: [voter] } as unknown as NamespaceRecord;
    for (let index = 0; index < 200; index += 1)
      finisher.noticed(objectId(`object-${index}`), true);
    clock.advance(10_000);
    expect(asked.length).toBe(0); // not started
    finisher.start();
    clock.advance(3000);
    expect(most).toBe(16);
    expect(new Set(asked.map((request) => request.object)).size).toBe(200);
    clock.advance(200_000);
    const times = asked.filter((request) => request.object === 'object-7').map(({ atMs }) => atMs);
    const gaps = times.slice(1).map((atMs, index) => atMs - (times[index] as number));
    expect(gaps[0]).toBeGreaterThan(1000);
    expect(gaps.at(-1)).toBeGreaterThan(29_000);
  });
});

describe('a creation', () => {
  it('that was broken off gets a tombstone, and can not be completed later', async () => {
    const hosts = await cluster();
    hosts.network.partition([h1, h4], [h2, h3, h5]);
    await hosts.clock.run(10);
    await expect(hosts.create(h4)).rejects.toThrow('inaccessible');
    await hosts.clock.run(5);
    expect(hosts.registers(h1).count).toBe(1);
    hosts.network.healAll();
    await hosts.clock.run(55_000);
    expect(hosts.registers(h1).accepted(object)).toBe(null);
    await hosts.clock.run(30_000);
    for (const host of [h1, h2, h3]) {
      expect(hosts.registers(host).accepted(object)).toMatchObject({
        committed: true,
        record: { kind: 'tombstone', voters: hosts.voters },
      });
    }
    await expect(hosts.create(h4)).rejects.toThrow('tombstone');
  });

  it('that one voter missed reaches it later', async () => {
    const hosts = await cluster();
    hosts.network.partition([h1, h2, h4], [h3]);
    await hosts.clock.run(10);
    await hosts.create(h4);
    expect(hosts.registers(h3).count).toBe(0);
    hosts.network.healAll();
    await hosts.clock.run(10);
    hosts.append(h4);
    await hosts.clock.run(50);
    expect(hosts.registers(h3).accepted(object)?.committed).toBe(true);
    hosts.crash(h1);
    hosts.append(h4);
    await hosts.clock.run(2000);
    expect(hosts.outcomes.get('committed')).toBe(2);
  });

  it('with the voters of another store is refused by these', async () => {
    const hosts = await cluster();
    hosts.voters = hosts.voters.map((voter) => ({ ...voter, joined: voter.joined }));
    await hosts.create();
    hosts.crash(h3);
    hosts.disk(h3).files.clear();
    await hosts.startHost(h3);
    hosts.append(h4);
    await hosts.clock.run(1000);
    expect(hosts.registers(h3).count).toBe(0);
    expect(hosts.outcomes.get('committed')).toBe(1);
    hosts.crash(h2);
    hosts.append(h4);
    await hosts.clock.run(9000);
    // One of three voters took it: not committed, and not excluded.
    expect(hosts.outcomes.get('outcome-unknown')).toBe(1);
    hosts.append(h4);
    await hosts.clock.run(9000);
    expect(hosts.outcomes.get('inaccessible')).toBe(1);
  });
});

describe('a full disk', () => {
  it('of one voter stops nobody, and the voter catches up when it has space', async () => {
    const hosts = await cluster();
    await hosts.create();
    await hosts.clock.run(50);
    hosts.disk(h3).fault = ({ kind }) =>
      kind === 'write' ? new DiskError('full', 'no space') : null;
    for (let round = 0; round < 5; round += 1) hosts.append(h4);
    await hosts.clock.run(5000);
    expect(hosts.outcomes.get('committed')).toBe(5);
    hosts.disk(h3).fault = () => null;
    hosts.append(h4);
    await hosts.clock.run(5000);
    expect(nameAt(hosts, h3)?.length).toBe(6);
    expect(hosts.registers(h3).accepted(object)?.durable).toBe(true);
  });
});

describe('a lock under a lease', () => {
  const lockA: Lock = { holder: h4, epoch: epoch(1) };
  const lockB: Lock = { holder: h5, epoch: epoch(2) };

  /** host-4 holds the lock, alive, but host-3 does not know that and admits everything. */
  async function held() {
    let alive = true;
    const admission = (host: HostId): Admission => ({
      admit: (current, next, proposer) => {
        const lock = lockOf(current);
        if (!alive || lock === null || lock.holder === null || proposer === lock.holder) return 0;
        if (host === h3 && lock.holder === h4) return 0;
        return sameLock(lock, lockOf(next)) ? 0 : 1000;
      },
      learned: () => {},
    });
    const hosts = await cluster({ admission });
    await hosts.create();
    await hosts.clock.wait(hosts.change(h4, (current) => ({ ...current, name: 'a', lock: lockA })));
    await hosts.clock.run(50);
    return { hosts, die: () => (alive = false) };
  }

  it('is not lost to a rival that one voter admitted, and the rival hears a definite no', async () => {
    const { hosts } = await held();
    const outcome = await hosts.clock.wait(
      hosts.change(h5, (current) => ({ ...current, name: 'b', lock: lockB })),
    );
    expect(outcome).toMatchObject({
      status: 'failed',
      error: { code: 'lock-held' },
      remainingMs: 1000,
    });
    await hosts.clock.run(3000);
    for (const host of [h1, h2, h3]) {
      expect(hosts.registers(host).accepted(object)).toMatchObject({
        committed: true,
        record: { name: 'a', lock: lockA },
      });
    }
  });

  it('goes on for its holder, for others and for readers while a dead rival’s record lies about', async () => {
    const { hosts } = await held();
    void hosts.change(h5, (current) => ({ ...current, name: 'b', lock: lockB }));
    await hosts.clock.until(() => nameAt(hosts, h3) === 'b');
    hosts.crash(h5);
    const mine = await hosts.clock.wait(
      hosts.change(h4, (current) => ({ ...current, name: `${current.name}4` })),
    );
    expect(mine).toMatchObject({ status: 'committed', record: { name: 'a4', lock: lockA } });
    const others = await hosts.clock.wait(
      hosts.change(h1, (current) => ({ ...current, name: `${current.name}1` })),
    );
    expect(others).toMatchObject({ status: 'committed', record: { name: 'a41', lock: lockA } });
    hosts.read(h2);
    await hosts.clock.run(5000);
    expect(hosts.history.at(-1)?.name).toBe('host-2 reads a41');
    for (const host of [h1, h2, h3]) expect(nameAt(hosts, host)).toBe('a41');
  });

  it('is finished by nobody against the lease, and by anybody after it', async () => {
    const { hosts, die } = await held();
    void hosts.change(h5, (current) => ({ ...current, name: 'b', lock: lockB }));
    await hosts.clock.until(() => nameAt(hosts, h3) === 'b');
    hosts.crash(h5);
    await hosts.clock.run(10_000);
    expect(nameAt(hosts, h1)).toBe('a');
    expect(nameAt(hosts, h3)).toBe('a');
    die();
    const taken = await hosts.clock.wait(
      hosts.change(h1, (current) => ({
        ...current,
        name: 'c',
        lock: { holder: h1, epoch: epoch(3) },
      })),
    );
    expect(taken.status).toBe('committed');
  });
});
