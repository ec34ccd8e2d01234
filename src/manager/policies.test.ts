// Named policies on hosts that meet, part and restart: every part goes on making them, and all agree
// once they meet.

import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryNetwork } from '../../test/support/memory-network.ts';
import { SeededRandom } from '../../test/support/seeded-random.ts';
import { SilentLog } from '../../test/support/silent-log.ts';
import { VirtualClock } from '../../test/support/virtual-clock.ts';
import { type HostId, hostId } from '../model/ids.ts';
import { timings } from '../model/limits.ts';
import { createPeer, type Peer } from '../peer/peer.ts';
import { createPolicies } from './policies.ts';

const names = ['h1', 'h2', 'h3'].map(hostId);
let clock: VirtualClock;
let network: MemoryNetwork;
let hosts: Host[];

class Host {
  readonly name: HostId;
  content: string | null = null;
  failure: Error | null = null;
  policies!: ReturnType<typeof createPolicies>;
  #run: { kill(): void } | null = null;
  #peer: Peer | null = null;

  constructor(name: HostId) {
    this.name = name;
  }

  start(): void {
    const run = clock.process();
    const transport = network.attach(this.name);
    const log = new SilentLog();
    const peer = createPeer({ self: this.name, network: 'storage', transport, clock: run, log });
    this.#run = run;
    this.#peer = peer;
    this.policies = createPolicies({
      peers: [peer],
      file: {
        read: async () => this.content,
        write: async (text) => {
          if (this.failure !== null) throw this.failure;
          this.content = text;
        },
      },
      clock: run,
      timings,
      log,
    });
    peer.start();
    transport.setPeers(
      new Map(names.filter((name) => name !== this.name).map((name) => [name, ''])),
    );
  }

  kill(): void {
    this.policies.stop();
    this.#run?.kill();
    network.detach(this.name);
  }

  get isConnected(): boolean {
    return (this.#peer?.connected().length ?? 0) > 1;
  }
}

const own = async (host: Host) =>
  (await host.policies.list())
    .filter((policy) => !policy.isBuiltIn)
    .map(({ name, failuresToTolerate, isDefault }) => `${name} ${failuresToTolerate} ${isDefault}`);

async function agreed(): Promise<string[]> {
  const [first, ...others] = await Promise.all(hosts.map(own));
  for (const other of others) expect(other).toEqual(first);
  return first ?? [];
}

const policy = (failuresToTolerate: number) => ({ failuresToTolerate, stripes: 1 });

beforeEach(async () => {
  clock = new VirtualClock();
  network = new MemoryNetwork(clock, new SeededRandom(1));
  hosts = names.map((name) => new Host(name));
  for (const host of hosts) host.start();
  await clock.run(100);
});

describe('policies', () => {
  const at = (number: number) => hosts[number - 1] as Host;

  it('are known to all soon, and after a restart of all', async () => {
    await clock.wait(at(1).policies.create('gold', policy(2)));
    await clock.wait(at(1).policies.setDefault('gold'));
    await clock.run(100);
    expect(await agreed()).toEqual(['gold 2 true']);
    expect(await at(3).policies.resolve('policy', undefined)).toEqual(policy(2));
    for (const host of hosts) host.kill();
    for (const host of hosts) host.start();
    expect(await agreed()).toEqual(['gold 2 true']);
  });

  it('of parts of a broken cluster are one once they meet, also of the same name', async () => {
    network.partition([hostId('h1'), hostId('h2')], [hostId('h3')]);
    await clock.run(100);
    await clock.wait(at(1).policies.create('gold', policy(1)));
    await clock.wait(at(3).policies.create('gold', policy(3)));
    await clock.wait(at(3).policies.create('mine', policy(0)));
    await clock.run(20_000);
    expect(await own(at(2))).toEqual(['gold 1 false']);
    expect(await own(at(3))).toEqual(['gold 3 false', 'mine 0 false']);
    network.healAll();
    await clock.run(100);
    // The same counter: the greater name wins.
    expect(await agreed()).toEqual(['gold 3 false', 'mine 0 false']);
  });

  it('a default that another part has removed gives way to the built-in one', async () => {
    await clock.wait(at(1).policies.create('gold', policy(2)));
    await clock.run(100);
    network.partition([hostId('h1'), hostId('h2')], [hostId('h3')]);
    await clock.wait(at(1).policies.setDefault('gold'));
    await clock.wait(at(3).policies.remove('gold'));
    network.healAll();
    await clock.run(100);
    expect(await agreed()).toEqual([]);
    expect(await at(2).policies.get('default')).toMatchObject({ name: 'mirror', isDefault: true });
  });

  it('arrive although messages are lost', async () => {
    network.faults = { ...network.faults, loss: 0.5 };
    await clock.wait(at(1).policies.create('gold', policy(2)));
    await clock.run(600_000);
    expect(await agreed()).toEqual(['gold 2 false']);
  });

  it('that could not be made durable are not there, here or elsewhere', async () => {
    at(1).failure = new Error('no space');
    await expect(clock.wait(at(1).policies.create('gold', policy(2)))).rejects.toThrow('no space');
    await clock.run(20_000);
    expect(await agreed()).toEqual([]);
    at(1).failure = null;
    await clock.wait(at(1).policies.create('gold', policy(2)));
    await clock.run(100);
    expect(await agreed()).toEqual(['gold 2 false']);
  });

  it('come back to a host that lost its file', async () => {
    await clock.wait(at(1).policies.create('gold', policy(2)));
    await clock.run(100);
    at(2).kill();
    at(2).content = 'torn';
    at(2).start();
    await clock.until(() => at(2).isConnected);
    await clock.run(100);
    expect(await agreed()).toEqual(['gold 2 false']);
  });
});
