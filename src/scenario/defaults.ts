// What a scenario file may leave out. The reader fills it in and the writer leaves it out again, so
// both take it from here.

import { defaultPolicy } from '../model/policy.ts';
import type { Check, ScenarioCluster, ScenarioHost, ScenarioVm, Step } from './scenario.ts';

export const mebibyte = 2 ** 20;
export const gibibyte = 2 ** 30;

export const defaultSeed = 1;

export const defaultHost: Omit<ScenarioHost, 'name'> = {
  kind: 'full',
  cpus: 16,
  memoryBytes: 65536 * mebibyte,
  diskBytes: 2000 * gibibyte,
  site: null,
};

/** The hosts that `hosts: 3` stands for. */
export function numberedHosts(count: number): ScenarioHost[] {
  return Array.from({ length: count }, (_, index) => ({ name: `h${index + 1}`, ...defaultHost }));
}

export const defaultCluster: Omit<ScenarioCluster, 'hosts'> = {
  networks: 'separate',
  options: {},
  drift: {},
  loss: { storage: 0, ha: 0 },
  backend: 'builtin',
  guest: 'qemu',
};

export const defaultVm: Omit<ScenarioVm, 'name'> = {
  on: null,
  cpus: 1,
  memoryBytes: 1024 * mebibyte,
  disksBytes: [gibibyte],
  policy: defaultPolicy,
  components: null,
  objects: {},
  required: null,
  storage: 'object',
  protected: true,
  priority: 'medium',
  after: [],
  separate: null,
  readyWhen: null,
  affinity: null,
  isolationResponse: null,
  whenHung: null,
  powered: true,
};

/** Long enough to see what the last step or check leads to. */
export function defaultDurationMs(steps: readonly Step[], expect: readonly Check[]): number {
  const times = [
    ...steps.map((step) => step.atMs),
    ...expect.map((check) => ('atMs' in check ? check.atMs : 'toMs' in check ? check.toMs : 0)),
  ];
  return times.reduce((latest, time) => Math.max(latest, time), 0) + 60_000;
}
