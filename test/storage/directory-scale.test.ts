// A directory of 10,000 VMs: what it costs in memory, and what two hosts that have been apart for a
// moment tell each other.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { hostId, type ObjectId } from '../../src/model/ids.ts';
import { timings } from '../../src/model/limits.ts';
import { createPeer } from '../../src/peer/peer.ts';
import type { Transport } from '../../src/ports/transport.ts';
import { createAccessibleVms } from '../../src/storage/directory/accessible-vms.ts';
import {
  createDirectory,
  type Directory,
  type DirectoryEntry,
} from '../../src/storage/directory/directory.ts';
import { createDirectorySync } from '../../src/storage/directory/sync.ts';
import { trackUsage } from '../../src/storage/placement/usage.ts';
import { LeaseWorld } from '../support/lease-world.ts';
import { MemoryNetwork } from '../support/memory-network.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { SilentLog } from '../support/silent-log.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

const MiB = 2 ** 20;
const vmCount = 10_000;

/** What a host knows of a protected VM with two disks that is switched on. */
async function recordsOfOneVm(): Promise<string> {
  const world = new LeaseWorld({ seed: 1, hosts: 3 });
  await world.boot();
  const store = world.hosts[0]?.store;
  if (!store) throw new Error('the store did not start');
  const policy = { failuresToTolerate: 1, stripes: 1 };
  const disk = { sizeBytes: 2 * MiB, policy };
  const vm = await world.clock.wait(
    store.createVm({
      name: 'server',
      cpus: 2,
      memoryBytes: 2048 * MiB,
      boot: 'none',
      disks: [
        { name: 'disk0', ...disk },
        { name: 'disk1', ...disk },
      ],
      protected: true,
      priority: 'medium',
    }),
  );
  await world.clock.wait(store.lock(vm));
  const protection = { protected: true, epoch: 1, host: 'host-1', padding: '.'.repeat(200) };
  await world.clock.wait(store.setMetadata(vm, 'ha', 'protection', protection));
  await world.clock.run(100);
  return JSON.stringify(store.knowledge(vm));
}

const aVm = await recordsOfOneVm();

/** The records of so many VMs like it, each made of its own text, as they come from another host. */
function* records(): Generator<DirectoryEntry> {
  const its = (JSON.parse(aVm) as DirectoryEntry[]).map(({ record }) => record);
  const ids = new Set(its.flatMap(({ id, vm }) => [id, vm]));
  for (let index = 0; index < vmCount; index += 1) {
    const name = index.toString(36).padStart(6, '0');
    let text = aVm;
    for (const id of ids) text = text.replaceAll(id, `${id.slice(0, -6)}${name}`);
    yield* JSON.parse(text.replaceAll('"server"', `"server-${name}"`)) as DirectoryEntry[];
  }
}

function usedBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  return process.memoryUsage().heapUsed;
}

function moved(directory: Directory, object: ObjectId): void {
  const { record, ballot } = directory.get(object) as DirectoryEntry;
  directory.update({
    record,
    ballot: { ...ballot, counter: ballot.counter + 1 },
  });
}

describe('a directory of 10,000 VMs with two disks each', () => {
  it('takes at most 64 MiB, with the indexes over it', () => {
    const before = usedBytes();
    const directory = createDirectory();
    const usage = trackUsage(directory);
    const accessibleVms = createAccessibleVms(directory, () => true);
    for (const entry of records()) directory.update(entry);
    const bytes = usedBytes() - before;
    expect(directory.namespaces().length).toBe(vmCount);
    expect(accessibleVms.takeNews().length).toBe(vmCount);
    expect([...usage.places()].length).toBe(3);
    expect(bytes / MiB).toBeLessThan(64);
    expect(bytes / MiB).toBeGreaterThan(10); // less would mean that something else was measured
  });

  it('is compared by a few kilobytes when two hosts meet again', async () => {
    const clock = new VirtualClock();
    const network = new MemoryNetwork(clock, new SeededRandom(1));
    let sentBytes = 0;
    const counted = (transport: Transport): Transport => ({
      ...transport,
      send(to, chunks) {
        for (const chunk of chunks) sentBytes += chunk.length;
        return transport.send(to, chunks);
      },
    });
    const hosts = ['host-1', 'host-2'].map(hostId);
    const log = new SilentLog();
    const [one, two] = hosts.map((self) => {
      const transport = counted(network.attach(self));
      const peer = createPeer({ self, network: 'storage', transport, clock, log });
      const directory = createDirectory();
      const sync = createDirectorySync({ peer, clock, log, timings, directory });
      peer.start();
      transport.setPeers(new Map(hosts.filter((host) => host !== self).map((host) => [host, ''])));
      return { self, directory, sync };
    });
    if (one === undefined || two === undefined) throw new Error('two hosts');
    for (const entry of records()) for (const side of [one, two]) side.directory.update(entry);
    const objects = [...one.directory.entries()].map(({ record }) => record.id);
    for (const index of [0, 7_777, 29_999]) moved(one.directory, objects[index] as ObjectId);
    moved(two.directory, objects[15_000] as ObjectId);
    await clock.run(10);

    for (let beat = 0; beat < 6; beat += 1) {
      one.sync.onDigest(two.self, two.directory.digest());
      two.sync.onDigest(one.self, one.directory.digest());
      await clock.run(timings.heartbeatIntervalMs);
    }
    expect(one.directory.digest()).toBe(two.directory.digest());
    expect(sentBytes).toBeLessThan(64 * 1024);
  });
});
