// The register as a whole against a linearizability check: random message orders, losses and
// doublings, partitions, crashes that lose un-synced writes. The first part shows that the check
// catches what it should: histories that nothing explains, and deliberate mistakes in the protocol.

import { describe, expect, it } from 'vitest';
import { linearize, type Operation } from '../../../test/support/linearizability.ts';
import {
  type ClusterOptions,
  object,
  RegisterCluster,
} from '../../../test/support/register-cluster.ts';
import type { Journal } from '../journal/journal.ts';

const harsh = {
  minDelayMs: 0.1,
  maxDelayMs: 30,
  loss: 0.03,
  duplicate: 0.05,
  reorder: true,
  detectMs: 50,
};

interface Verdict {
  readonly problem: string | null;
  readonly cluster: RegisterCluster;
}

/** What makes some mistakes more likely to show. */
interface Weather {
  /** Of the slowest disks: un-synced writes are many. */
  readonly syncMs?: number;
  /** Voters restart all the time, at once, while many change the register. */
  readonly restarts?: boolean;
  /** The voters are replaced one by one. */
  readonly votersChange?: boolean;
}

/** One cluster's life with faults, then without; ends with a read at every host that must succeed. */
async function live(options: ClusterOptions & Weather): Promise<Verdict> {
  const cluster = new RegisterCluster({ hosts: 5, network: harsh, ...options });
  const { random, clock, network, hosts } = cluster;
  await cluster.start();
  network.faults = { ...network.faults, loss: 0, maxDelayMs: 1 };
  await cluster.create();
  network.faults = { ...network.faults, ...harsh, ...options.network };
  for (const disk of cluster.disks.values()) {
    const syncMs = options.syncMs ?? random.pick([1, 8, 60]);
    disk.latencyMs = ({ kind }) => random.next() * (kind === 'sync' ? syncMs : 0.5);
  }
  for (let index = 0; index < 45; index += 1) {
    const host = random.pick(hosts);
    const dice = random.next();
    if (options.restarts === true && random.chance(0.7)) {
      for (const other of hosts)
        if (random.chance(0.5) && cluster.running.has(other)) cluster.append(other);
      await clock.run(random.next() * 25);
      const voter = random.pick(hosts.slice(0, 3));
      if (cluster.running.has(voter)) cluster.crash(voter, false);
      else await cluster.startHost(voter);
    }
    if (options.votersChange === true && random.chance(0.4)) {
      if (cluster.running.has(host)) cluster.changeVoters(host);
    }
    if (dice < 0.5) {
      // A wild preference must do no harm: it chooses only among what may be chosen.
      const prefer = () => random.chance(0.5);
      const options = random.chance(0.4) ? { prefer } : {};
      if (cluster.running.has(host)) cluster.append(host, random.chance(0.4), options);
    } else if (dice < 0.6) {
      if (cluster.running.has(host)) cluster.read(host);
    } else if (dice < 0.78) {
      // Now and then the power of several hosts fails at once.
      const victims = random.chance(0.3) ? hosts.filter(() => random.chance(0.6)) : [host];
      for (const victim of victims) {
        if (cluster.running.has(victim)) cluster.crash(victim, random.chance(0.8));
      }
      if (random.chance(0.6)) await clock.run(random.next() * 15);
      for (const victim of victims) {
        if (!cluster.running.has(victim) && random.chance(0.8)) await cluster.startHost(victim);
      }
    } else if (dice < 0.88) {
      const cut = random.below(hosts.length);
      network.partition(hosts.slice(0, cut), hosts.slice(cut));
    } else if (dice < 0.95) {
      network.healAll();
    } else if (!cluster.running.has(host)) {
      await cluster.startHost(host);
    }
    await clock.run(random.next() * random.pick([2, 10, 40, 150]));
  }
  network.faults = { ...network.faults, loss: 0, duplicate: 0, maxDelayMs: 1 };
  network.healAll();
  for (const host of hosts) if (!cluster.running.has(host)) await cluster.startHost(host);
  await clock.run(6_000);
  cluster.tellNewest();
  await clock.run(6_000);
  const before = cluster.history.length;
  for (const host of hosts) cluster.read(host);
  await clock.run(9_000);
  if (cluster.history.length !== before + hosts.length) {
    return { problem: `a read failed at last: ${[...cluster.outcomes].join(' ')}`, cluster };
  }
  const chain = cluster.checkCommitted();
  if (chain !== null) return { problem: chain, cluster };
  const open = hosts.filter((host) => cluster.registers(host).openCount > 0);
  if (open.length > 0) return { problem: `not finished at ${open.join()}`, cluster };
  // Texts only grow, so every state before the last reads is a beginning of what they read: this
  // spares the search all orders of appends that never happened.
  const texts = hosts.map((host) => cluster.registers(host).accepted(object)?.record);
  const last = texts.reduce((longest, record) => {
    const name = record?.kind === 'namespace' ? record.name : '';
    return name.length > longest.length ? name : longest;
  }, '');
  const history = cluster.history.map((operation) => ({
    ...operation,
    apply(state: string) {
      const next = operation.apply(state);
      return next !== null && last.startsWith(next) ? next : null;
    },
  }));
  if (linearize('', history) !== null) return { problem: null, cluster };
  const names = cluster.history.map(
    ({ name, invokedAt, returnedAt }) =>
      `${invokedAt.toFixed(1)}..${returnedAt.toFixed(1)} ${name}`,
  );
  return { problem: `not linearizable:\n${names.join('\n')}`, cluster };
}

/** How many seeds show that safety is broken, up to `enough`. */
async function failures(
  seeds: number,
  options: Omit<ClusterOptions, 'seed'> & Weather,
  enough: number,
): Promise<number> {
  let count = 0;
  for (let seed = 0; seed < seeds && count < enough; seed += 1) {
    const { problem } = await live({ seed, ...options }).catch((error: unknown) => ({
      problem: String(error),
    }));
    // Only what breaks safety counts here, not what merely stands still.
    if (problem !== null && /not linearizable|does not follow/.test(problem)) count += 1;
  }
  return count;
}

describe('the check itself', () => {
  const write = (name: string, invokedAt: number, returnedAt: number): Operation<string> => ({
    name,
    invokedAt,
    returnedAt,
    apply: (state) => state + name,
  });
  const read = (text: string, invokedAt: number, returnedAt: number): Operation<string> => ({
    name: `read ${text}`,
    invokedAt,
    returnedAt,
    apply: (state) => (state === text ? state : null),
  });

  it('explains what can be explained', () => {
    expect(linearize('', [write('a', 0, 5), write('b', 1, 4), read('ba', 6, 7)])).not.toBe(null);
    expect(linearize('', [write('a', 0, Infinity), read('', 6, 7), read('a', 8, 9)])).not.toBe(
      null,
    );
    expect(linearize('', [write('a', 0, Infinity), read('', 6, 7)])).not.toBe(null);
    expect(linearize('', [write('a', 0, 9), read('a', 1, 2), read('a', 3, 4)])).not.toBe(null);
  });

  it('catches a stale read, a lost write, a write undone and a read from the future', () => {
    expect(linearize('', [write('a', 0, 1), read('', 2, 3)])).toBe(null);
    expect(linearize('', [write('a', 0, 1), write('b', 2, 3), read('b', 4, 5)])).toBe(null);
    expect(linearize('', [write('a', 0, 9), read('a', 1, 2), read('', 3, 4)])).toBe(null);
    expect(linearize('', [read('a', 0, 1), write('a', 2, 3)])).toBe(null);
    expect(linearize('', [write('a', 0, Infinity), read('a', 6, 7), read('', 8, 9)])).toBe(null);
    expect(linearize('', [read('x', 0, 1)])).toBe(null);
  });

  it('agrees with trying all orders', () => {
    // Small random histories against the obvious algorithm.
    for (let seed = 0; seed < 400; seed += 1) {
      let value = seed * 7919 + 1;
      const next = (bound: number) => {
        value = (value * 1103515245 + 12345) % 2147483648;
        return Math.floor((value / 2147483648) * bound);
      };
      const operations = Array.from({ length: 4 }, (_, index) => {
        const at = next(8);
        const end = at + 1 + next(5);
        const letter = 'abcd'[index] as string;
        return next(2) === 0
          ? write(letter, at, end)
          : read(['', 'a', 'b', 'ab', 'ba'][next(5)] ?? '', at, end);
      });
      expect(linearize('', operations) !== null).toBe(anyOrder('', operations));
    }
  });

  function anyOrder(state: string, rest: Operation<string>[]): boolean {
    if (rest.length === 0) return true;
    return rest.some((operation) => {
      if (rest.some((other) => other.returnedAt < operation.invokedAt)) return false;
      const next = operation.apply(state);
      return (
        next !== null &&
        anyOrder(
          next,
          rest.filter((other) => other !== operation),
        )
      );
    });
  }
});

describe('deliberate mistakes are caught', () => {
  it('an acceptor that answers before its state is durable', async () => {
    const journal = (real: Journal): Journal => ({
      ...facade(real),
      append(entry, done) {
        real.append(entry, () => {});
        done(null);
      },
    });
    expect(await failures(60, { journal, syncMs: 400 }, 1)).toBeGreaterThan(0);
  }, 120_000);

  it('an acceptor that forgets its promises at a restart', async () => {
    const journal = (real: Journal): Journal => ({
      ...facade(real),
      begin: (replay, live) =>
        real.begin((bytes) => {
          const entry = JSON.parse(new TextDecoder().decode(bytes));
          if ('state' in entry) entry.state.promised = null;
          replay(new TextEncoder().encode(JSON.stringify(entry)));
        }, live),
    });
    expect(await failures(60, { journal, restarts: true, syncMs: 1 }, 1)).toBeGreaterThan(0);
  }, 120_000);

  it('a voter that comes back with an empty register', async () => {
    const journal = (real: Journal): Journal => ({
      ...facade(real),
      begin: (replay, live) =>
        real.begin((bytes) => {
          const entry = JSON.parse(new TextDecoder().decode(bytes));
          if ('state' in entry) Object.assign(entry.state, { accepted: null, committed: false });
          replay(new TextEncoder().encode(JSON.stringify(entry)));
        }, live),
    });
    expect(await failures(60, { journal }, 1)).toBeGreaterThan(0);
  }, 120_000);

  function facade(real: Journal): Journal {
    return {
      superblock: real.superblock,
      failure: null,
      begin: (replay, live) => real.begin(replay, live),
      append: (entry, done) => real.append(entry, done),
      appendLazily: (entry) => real.appendLazily(entry),
      close: () => real.close(),
    };
  }
});

describe('the register is linearizable', () => {
  it('with lost, doubled and overtaking messages, partitions, crashes and lost writes', async () => {
    const outcomes = new Map<string, number>();
    for (let seed = 1000; seed < 1250; seed += 1) {
      const { problem, cluster } = await live({ seed });
      expect(problem, `seed ${seed}`).toBe(null);
      for (const [what, count] of cluster.outcomes)
        outcomes.set(what, (outcomes.get(what) ?? 0) + count);
    }
    // The faults left enough to be checked.
    expect(outcomes.get('committed')).toBeGreaterThan(1000);
    expect(outcomes.get('outcome-unknown')).toBeGreaterThan(10);
  }, 120_000);

  it('with voters that restart all the time, and with very slow disks', async () => {
    for (let seed = 4000; seed < 4040; seed += 1) {
      const weather = seed % 2 === 0 ? { restarts: true, syncMs: 1 } : { syncMs: 400 };
      expect((await live({ seed, ...weather })).problem, `seed ${seed}`).toBe(null);
    }
  }, 120_000);

  it('with a journal that is compacted all the time', async () => {
    const bounds = { checkpointBytes: 4096, checkpointFactor: 1, batchBytes: 2048 };
    for (let seed = 2000; seed < 2040; seed += 1) {
      expect((await live({ seed, bounds })).problem, `seed ${seed}`).toBe(null);
    }
  }, 120_000);

  it('with five voters', async () => {
    for (let seed = 3000; seed < 3040; seed += 1) {
      expect((await live({ seed, voters: 5 })).problem, `seed ${seed}`).toBe(null);
    }
  }, 120_000);

  it('while the voters are replaced one by one', async () => {
    let changes = 0;
    const bound = Number(process.env['SEEDS'] ?? 80);
    for (let seed = 4000; seed < 4000 + bound; seed += 1) {
      const { problem, cluster } = await live({ seed, hosts: 6, votersChange: true });
      expect(problem, `seed ${seed}`).toBe(null);
      changes += cluster.outcomes.get('voters committed') ?? 0;
    }
    expect(changes).toBeGreaterThan(2 * bound);
  }, 240_000);
});
