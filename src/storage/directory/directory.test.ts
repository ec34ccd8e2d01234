// The directory: the newer ballot wins, equal digests mean equal contents, and two that differ become
// equal.

import { describe, expect, it } from 'vitest';
import { MemoryNetwork } from '../../../test/support/memory-network.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import type { Ballot } from '../../model/ballot.ts';
import { epoch, hostId, incarnation, objectId, revision, vmId } from '../../model/ids.ts';
import { timings } from '../../model/limits.ts';
import { defaultPolicy } from '../../model/policy.ts';
import type { NamespaceRecord, ObjectRecord } from '../../model/record.ts';
import { createPeer } from '../../peer/peer.ts';
import { createDirectory, type Directory, type DirectoryEntry } from './directory.ts';
import { createDirectorySync } from './sync.ts';

function ballot(counter: number, host = 'host-1'): Ballot {
  return { counter, host: hostId(host), incarnation: incarnation(1) };
}

function namespace(name: string, padding = 0): NamespaceRecord {
  return {
    kind: 'namespace',
    id: objectId(name),
    vm: vmId(`vm-${name}`),
    revision: revision(1),
    policy: defaultPolicy,
    voters: [],
    name,
    lifecycle: 'ready',
    lock: { holder: null, epoch: epoch(0) },
    metadata: {},
    files: { padding: '.'.repeat(padding) },
    disks: [],
  };
}

function tombstone(name: string): ObjectRecord {
  const { id, vm, policy, voters } = namespace(name);
  return { kind: 'tombstone', id, vm, policy, voters, revision: revision(2) };
}

const contents = (directory: Directory) =>
  [...directory.entries()]
    .map(({ record, ballot: at }) => `${record.id} ${at.counter} ${at.host}`)
    .sort();

describe('a directory', () => {
  it('keeps the record of the newer ballot, in whichever order they come', () => {
    const directory = createDirectory();
    const changes: string[] = [];
    directory.onChange((record, previous) =>
      changes.push(`${previous?.kind ?? '-'} > ${record.kind}`),
    );
    expect(directory.update({ record: namespace('x'), ballot: ballot(5) })).toBe(true);
    expect(directory.update({ record: tombstone('x'), ballot: ballot(4) })).toBe(false);
    expect(directory.update({ record: tombstone('x'), ballot: ballot(5) })).toBe(false);
    expect(directory.namespace(vmId('vm-x'))?.name).toBe('x');
    expect(directory.update({ record: tombstone('x'), ballot: ballot(6) })).toBe(true);
    expect(directory.namespace(vmId('vm-x'))).toBe(null);
    expect(directory.isDeleted(objectId('x'))).toBe(true);
    expect(directory.namespaces()).toEqual([]);
    expect(changes).toEqual(['- > namespace', 'namespace > tombstone']);
  });

  it('has equal digests for equal contents only', () => {
    const random = new SeededRandom(1);
    const byDigest = new Map<string, string>();
    for (let seed = 0; seed < 3000; seed += 1) {
      const directory = createDirectory();
      for (let step = random.below(6); step >= 0; step -= 1) {
        const record = namespace(random.pick(['x', 'y', 'z']));
        directory.update({
          record,
          ballot: ballot(random.below(10), random.pick(['host-1', 'host-2'])),
        });
      }
      const text = contents(directory).join();
      expect(byDigest.get(directory.digest()) ?? text).toBe(text);
      byDigest.set(directory.digest(), text);
    }
  });

  it('notices ballots that moved by the same bits in two objects', () => {
    const [one, two] = [createDirectory(), createDirectory()];
    one.update({ record: namespace('x'), ballot: ballot(5) });
    one.update({ record: namespace('y'), ballot: ballot(6) });
    two.update({ record: namespace('x'), ballot: ballot(7) });
    two.update({ record: namespace('y'), ballot: ballot(4) });
    expect(one.digest()).not.toBe(two.digest());
  });
});

describe('two hosts with different directories', () => {
  async function converge(
    fill: (one: Directory, two: Directory) => void,
    loss = 0,
  ): Promise<number> {
    const clock = new VirtualClock();
    const network = new MemoryNetwork(clock, new SeededRandom(1), { loss, detectMs: 50 });
    const hosts = ['host-1', 'host-2'].map(hostId);
    const sides = hosts.map((self) => {
      const transport = network.attach(self);
      const log = new SilentLog();
      const peer = createPeer({ self, network: 'storage', transport, clock, log });
      const directory = createDirectory();
      const sync = createDirectorySync({ peer, clock, log, timings, directory });
      peer.start();
      transport.setPeers(new Map(hosts.filter((host) => host !== self).map((host) => [host, ''])));
      return { directory, sync };
    });
    const [one, two] = sides as [(typeof sides)[0], (typeof sides)[0]];
    fill(one.directory, two.directory);
    await clock.run(10);
    for (let beats = 1; beats < 60; beats += 1) {
      one.sync.onDigest(hosts[1] as never, two.directory.digest());
      two.sync.onDigest(hosts[0] as never, one.directory.digest());
      await clock.run(timings.heartbeatIntervalMs);
      if (contents(one.directory).join() === contents(two.directory).join()) return beats;
    }
    return Number.POSITIVE_INFINITY;
  }

  const entry = (name: string, at: number, padding = 0): DirectoryEntry => ({
    record: namespace(name, padding),
    ballot: ballot(at),
  });

  it('become equal, each with what the other lacks', async () => {
    const beats = await converge((one, two) => {
      one.update(entry('both', 3));
      two.update({ record: tombstone('both'), ballot: ballot(4) });
      one.update(entry('only one', 1));
      two.update(entry('only two', 2));
    });
    expect(beats).toBeLessThan(5);
  });

  it('become equal where thousands of records differ', async () => {
    const beats = await converge((one, two) => {
      for (let index = 0; index < 1300; index += 1) {
        one.update(entry(`one ${index}`, index + 1));
        two.update(entry(`two ${index}`, index + 1));
      }
    });
    expect(beats).toBeLessThan(12);
  });

  it('become equal where the records are so large that not many fit into a frame', async () => {
    const beats = await converge((one, two) => {
      for (let index = 0; index < 150; index += 1) {
        one.update(entry(`one ${index}`, index + 1, 250_000));
      }
      two.update(entry('two', 1));
    });
    expect(beats).toBeLessThan(20);
  });

  it('become equal although messages are lost', async () => {
    const beats = await converge((one, two) => {
      for (let index = 0; index < 50; index += 1) {
        (index % 2 === 0 ? one : two).update(entry(`o ${index}`, index + 1));
      }
    }, 0.3);
    expect(beats).toBeLessThan(60);
  });
});
