// The text of a scenario file becomes a scenario. Whatever can be known to be wrong without running
// it is an error here: unknown keys, names of hosts and VMs that do not exist, times that do not
// come. A misspelt scenario that runs would look like one that holds.

import { defaultDurationMs, defaultSeed } from './defaults.ts';
import {
  duration,
  integer,
  line,
  oneOf,
  optional,
  orNull,
  parts,
  raw,
  record,
  required,
} from './fields.ts';
import { timeBefore } from './names.ts';
import { readChecks } from './read-checks.ts';
import { readCluster } from './read-cluster.ts';
import { readSteps } from './read-steps.ts';
import { readVms } from './read-vms.ts';
import { productStrategies, type Scenario } from './scenario.ts';
import { parseSource, ScenarioError } from './source.ts';

export { ScenarioError } from './source.ts';

const strategies = record({
  protection: optional(
    oneOf('namespace-metadata', 'central-file', 'per-vm-file', 'witness-file', 'segmented-file'),
    productStrategies.protection,
  ),
  failover: optional(oneOf('accessibility-aware', 'conventional'), productStrategies.failover),
  coordination: optional(oneOf('master', 'peers'), productStrategies.coordination),
  access: optional(oneOf('query', 'publish', 'trial'), productStrategies.access),
  notify: optional(oneOf('vm', 'object', 'interval'), productStrategies.notify),
  accessible: optional(oneOf('all', 'namespace-only'), productStrategies.accessible),
});

const shape = {
  name: required(line),
  seed: optional(integer(0), defaultSeed),
  pending: orNull(line),
  duration: orNull(duration(1)),
  cluster: required(raw),
  strategies: optional(strategies, productStrategies),
  vms: orNull(raw),
  steps: orNull(raw),
  expect: orNull(raw),
};

/**
 * Reads docs/scenarios.md's format, fills in every default and resolves every unit.
 * Throws ScenarioError with all problems of the file.
 */
export function readScenario(text: string): Scenario {
  const root = parseSource(text);
  const top = parts(root, shape);
  const { cluster, names: hosts } = readCluster(top.cluster ?? null);
  const { vms, names } = readVms(top.vms ?? null, hosts);
  const time = timeBefore(top.duration ?? null);
  const steps = readSteps(top.steps ?? null, time, hosts, names).filter(
    (step) => step !== undefined,
  );
  const expect = readChecks(top.expect ?? null, time, hosts, names).filter(
    (check) => check !== undefined,
  );
  const { name, seed, pending, duration: durationMs, strategies } = top;
  if (
    root.problems.length > 0 ||
    name === undefined ||
    seed === undefined ||
    pending === undefined ||
    strategies === undefined ||
    cluster === undefined ||
    vms === undefined
  ) {
    throw new ScenarioError(root.problems);
  }
  return {
    name,
    seed,
    pending,
    durationMs: durationMs ?? defaultDurationMs(steps, expect),
    cluster,
    strategies,
    vms,
    steps: steps.toSorted((a, b) => a.atMs - b.atMs),
    expect,
  };
}
