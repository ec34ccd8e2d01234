// The register as a whole against a linearizability check: random message orders, losses and
// doublings, partitions, crashes that lose un-synced writes. The first part shows that the check
// catches what it should: histories that nothing explains, and deliberate mistakes in the protocol.

import { it } from 'vitest';
import { linearize } from '../../../test/support/linearizability.ts';
import {
  type ClusterOptions,
  object,
  RegisterCluster,
} from '../../../test/support/register-cluster.ts';

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

/** One cluster's life with faults, then without; ends with a read at every host that must succeed. */
async function live(options: ClusterOptions): Promise<Verdict> {
  const cluster = new RegisterCluster({ hosts: 5, network: harsh, ...options });
  const { random, clock, network, hosts } = cluster;
  await cluster.start();
  network.faults = { ...network.faults, loss: 0, maxDelayMs: 1 };
  await cluster.create();
  network.faults = { ...network.faults, ...harsh, ...options.network };
  for (const disk of cluster.disks.values()) {
    const syncMs = random.pick([1, 8, 60]);
    disk.latencyMs = ({ kind }) => random.next() * (kind === 'sync' ? syncMs : 0.5);
  }
  for (let index = 0; index < 45; index += 1) {
    const host = random.pick(hosts);
    const dice = random.next();
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
  await clock.run(12_000);
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

/** The seeds of a range whose life shows a problem. */
async function failures(
  seeds: number,
  options: Omit<ClusterOptions, 'seed'>,
  enough: number,
): Promise<number> {
  let count = 0;
  for (let seed = 0; seed < seeds && count < enough; seed += 1) {
    const { problem } = await live({ seed, ...options }).catch((error: unknown) => ({
      problem: String(error),
    }));
    if (problem !== null) count += 1;
  }
  return count;
}

it('probe', async () => {
  void failures;
  const outcomes = new Map<string, number>();
  let bad = 0;
  for (let seed = 10000; seed < 10000 + Number(process.env['SEEDS'] ?? 600) && bad < 1; seed += 1) {
    const { problem, cluster } = await live({
      seed,
      voters: seed % 7 === 0 ? 5 : seed % 11 === 0 ? 1 : 3,
      ...(seed % 5 === 0
        ? { bounds: { checkpointBytes: 4096, checkpointFactor: 1, batchBytes: 2048 } }
        : {}),
    });
    for (const [w, c] of cluster.outcomes) outcomes.set(w, (outcomes.get(w) ?? 0) + c);
    if (problem !== null) {
      bad++;
      console.log('CAUGHT', seed, problem.slice(0, 300));
    }
  }
  console.log([...outcomes].join(' '));
}, 300000);
