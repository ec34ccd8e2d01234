// One scenario under the product's strategies and under those of others, on the same world with the
// same seed; what differs is put side by side.

import { productStrategies, type Scenario, type Strategies } from '../../scenario/scenario.ts';
import type { StrategyCounters } from '../strategies/shared.ts';
import { type RunOptions, runScenario } from './run.ts';

export interface Way {
  readonly name: string;
  readonly strategies: Strategies;
}

const differing = (name: string, change: Partial<Strategies>): Way => ({
  name,
  strategies: { ...productStrategies, ...change },
});

/** The product's own way is the first. */
export const ways: readonly Way[] = [
  differing('product', {}),
  differing('central file', { protection: 'central-file' }),
  differing('file per VM', { protection: 'per-vm-file' }),
  differing('one writer by witness', { protection: 'witness-file' }),
  differing('file in segments', { protection: 'segmented-file' }),
  differing('conventional failover', { failover: 'conventional' }),
  differing('namespace access only', { accessible: 'namespace-only' }),
  differing('notified per object', { notify: 'object' }),
  differing('notified on an interval', { notify: 'interval' }),
  differing('access by publishing', { access: 'publish' }),
  differing('access by trial', { access: 'trial' }),
  differing('peers without a master', { coordination: 'peers' }),
];

export interface ComparisonRow {
  readonly way: string;
  readonly vmsRestarted: number;
  /** From the failure to the guest's start; null where nothing was restarted. */
  readonly medianMs: number | null;
  readonly worstMs: number | null;
  readonly attemptsFailed: number;
  readonly updatesRefused: number;
  /** Lost or conflicting at a heal. */
  readonly updatesLost: number;
  /** Until a new master knew its VMs; null where one never did. */
  readonly masterKnowsMs: number | null;
  readonly checksFailed: number;
  readonly violations: number;
  readonly counters: StrategyCounters;
}

export function compare(scenario: Scenario, way: Way, options: RunOptions): ComparisonRow {
  const run = runScenario(
    { ...scenario, strategies: way.strategies },
    { ...options, isComparison: true },
  );
  const { result, strategyCounters: counters } = run;
  const restarts = result.recoveries.filter((one) => one.startedAtMs !== null);
  const times = restarts
    .map((one) => (one.startedAtMs as number) - one.failedAtMs)
    .sort((a, b) => a - b);
  return {
    way: way.name,
    vmsRestarted: new Set(restarts.map((one) => one.vm)).size,
    medianMs: times[Math.floor((times.length - 1) / 2)] ?? null,
    worstMs: times.at(-1) ?? null,
    attemptsFailed: result.counters.restartAttemptsFailed,
    updatesRefused: result.counters.metadataSetsRefused,
    updatesLost: counters.protectionUpdatesLost + counters.protectionConflicts,
    masterKnowsMs: counters.mastersThatDoNotKnow > 0 ? null : counters.masterKnowsMs,
    checksFailed: result.checks.filter((check) => !check.ok).length,
    violations: run.violations.length,
    counters,
  };
}
