// The parts of the lab that judge, on what was written down for them: what guests reported, what was seen of their
// processes, and what follows from both.

import { describe, expect, it } from 'vitest';
import { Cuts } from '../../src/lab/cuts.ts';
import type { Entry } from '../../src/lab/diary.ts';
import { type InstanceState, Instances } from '../../src/lab/instances.ts';
import { Numbers } from '../../src/lab/numbers.ts';
import { type Happened, recordOf } from '../../src/lab/record.ts';
import { refusals } from '../../src/lab/refusals.ts';
import { readScenario } from '../../src/scenario/read.ts';

describe('numbers that guests report', () => {
  function faultsOf(...said: [host: string, line: string][]): string[] {
    const numbers = new Numbers('web');
    for (const [host, line] of said) numbers.take(host, `holdfast: ${line}\r`);
    return numbers.faults.map(({ host, text }) => `${host}: ${text}`);
  }

  it('may be found one higher than they were acknowledged, and go on', () => {
    expect(
      faultsOf(
        ['h1', 'read 0'],
        ['h1', 'wrote 1'],
        ['h1', 'wrote 2'],
        ['h2', 'read 3'],
        ['h2', 'wrote 4'],
      ),
    ).toEqual([]);
  });

  it('are lost where a boot finds less', () => {
    expect(faultsOf(['h1', 'wrote 7'], ['h2', 'read 6'])).toEqual([
      'h2: read 6, and 7 had been acknowledged',
    ]);
  });

  it('never go back, whoever writes them', () => {
    expect(
      faultsOf(['h1', 'wrote 7'], ['h2', 'read 7'], ['h1', 'wrote 8'], ['h2', 'wrote 8']),
    ).toEqual(['h2: wrote 8, and 8 had been acknowledged']);
  });

  it('are worth nothing where blocks behind them are missing', () => {
    expect(faultsOf(['h2', 'read 9'], ['h2', 'verify bad 4'])).toEqual(['h2: says "verify bad 4"']);
  });
});

describe('instances of a VM', () => {
  it('are known in time: where one was, and when it ran or stood still', () => {
    const instances = new Instances();
    const take = (at: number, pid: number, host: string, state: InstanceState) =>
      instances.take({ at, pid, vm: 'web', host, state });
    take(10, 1, 'h1', 'running');
    take(20, 1, 'h1', 'paused');
    take(30, 2, 'h2', 'running');
    take(40, 1, 'h1', 'gone');
    expect(instances.living('web').map(({ host }) => host)).toEqual(['h2']);
    expect(instances.seen('web', 'running', 0, 100)).toEqual({ at: 10, host: 'h1' });
    expect(instances.seen('web', 'running', 20, 25)).toBeNull();
    expect(instances.seen('web', 'paused', 35, 100)).toEqual({ at: 35, host: 'h1' });
    expect(instances.seen('web', 'paused', 40, 100)).toBeNull();
  });
});

describe('the record of a run', () => {
  const zero = 1_000_000;
  const change = (atMs: number, pid: number, host: string, state: InstanceState): Happened => {
    const at = zero + atMs;
    return { what: 'change', at, change: { at, pid, vm: 'web', host, state } };
  };
  const entry = (atMs: number, other: Partial<Entry>): Happened => {
    const at = zero + atMs;
    const rest = { host: 'h2', level: 'info', room: 'x', message: '', event: null, point: null };
    return { what: 'entry', at, entry: { at, ...rest, vm: null, ...other } };
  };

  it('has the restart of a VM from the failure of its host on, whatever was read last', () => {
    const story: Happened[] = [
      change(-500, 1, 'h1', 'running'),
      { what: 'fault', at: zero + 5000, hosts: ['h1'] },
      change(5020, 1, 'h1', 'gone'),
      change(9300, 2, 'h2', 'running'),
      entry(7500, { event: 'failover.detected', vm: 'web' }),
      entry(9000, { event: 'failover.lockFree', vm: 'web' }),
      entry(9010, { event: 'failover.placed', vm: 'web' }),
      entry(9010, { point: 'ha.restarting' }),
      entry(12_000, { event: 'vm.ready', vm: 'web' }),
    ];
    const { recoveries, counters } = recordOf(story, zero);
    expect(recoveries).toEqual([
      {
        vm: 'web',
        from: 'h1',
        to: 'h2',
        failedAtMs: 5000,
        detectedAtMs: 7500,
        lockFreeAtMs: 9000,
        accessibleAtMs: null,
        placedAtMs: 9010,
        startedAtMs: 9300,
        guestReadyAtMs: 12_000,
      },
    ]);
    expect(counters).toMatchObject({ restartAttempts: 1, pauses: 0, resumes: 0 });
  });

  it('counts pauses and resumes, and no start that a user wanted', () => {
    const story: Happened[] = [
      change(-500, 1, 'h1', 'running'),
      change(1000, 1, 'h1', 'paused'),
      change(2000, 1, 'h1', 'running'),
      { what: 'switchedOff', at: zero + 3000, vm: 'web' },
      change(4000, 1, 'h1', 'gone'),
      change(5000, 2, 'h2', 'running'),
      entry(-10, { point: 'ha.elected' }),
    ];
    const { recoveries, counters } = recordOf(story, zero);
    expect(recoveries).toEqual([]);
    expect(counters).toMatchObject({ pauses: 1, resumes: 1, elections: 0 });
  });
});

describe('the filter of a host', () => {
  const whole = { storage: 0, ha: 0 };

  it('drops what a host must not hear, in one direction', () => {
    const cuts = new Cuts(['h1', 'h2', 'h3'], 'separate', whole);
    cuts.block('ha', 'h1', 'h2');
    expect(cuts.rules('h2')).toContain('iifname "ha0" ip saddr { 10.77.2.1 } drop');
    expect(cuts.rules('h1')).not.toContain('drop');
    cuts.isolate('storage', 'h1');
    expect(cuts.rules('h1')).toContain('iifname "storage0" ip saddr { 10.77.1.2, 10.77.1.3 } drop');
    cuts.heal('both');
    expect(['h1', 'h2', 'h3'].map((host) => cuts.rules(host)).join()).not.toContain('drop');
  });

  it('knows one network only where both are one, and hosts in no group as a group', () => {
    const cuts = new Cuts(['h1', 'h2', 'h3'], 'shared', { ...whole, ha: 0.001 });
    cuts.partition('ha', [['h1']]);
    expect(cuts.rules('h1')).toContain('iifname "storage0" ip saddr { 10.77.1.2, 10.77.1.3 } drop');
    expect(cuts.rules('h2')).toContain('ip saddr { 10.77.1.1 } drop');
    expect(cuts.rules('h2')).toContain('numgen random mod 1000000 < 1000 drop');
    expect(cuts.rules('h2')).not.toContain('ha0');
  });
});

describe('what the lab refuses', () => {
  const of = (text: string): string[] => refusals(text, readScenario(text));
  const basic = 'name: x\nvms: [{name: web}]\n';

  it('names each key that is for the simulator only, also where it says what is usual', () => {
    const text = `${basic}seed: 1
cluster: {hosts: 3, drift: {h1: 1%}}
strategies: {failover: accessibility-aware}
`;
    expect(of(text).map((line) => line.split(':')[0])).toEqual([
      'seed',
      'strategies',
      'cluster.drift',
    ]);
  });

  it('names steps that this machine can not do, once', () => {
    const text = `${basic}cluster: {hosts: 3}
steps:
  - {at: 1s, flakyDisk: h1, errors: 5%}
  - {at: 2s, flakyDisk: h2, errors: 0%}
  - {at: 3s, migrate: web, to: h2}
  - {at: 4s, hangGuest: web}
`;
    expect(of(text).map((line) => line.split(': ')[1])).toEqual([
      'flakyDisk',
      'migrate',
      'hangGuest',
    ]);
    expect(of(text.replace('hosts: 3', 'hosts: 3, guest: process'))).toHaveLength(2);
  });

  it('lets the scenario of a dying host pass', () => {
    const text = `${basic}cluster: {hosts: 3}\nsteps: [{at: 1s, crash: h1}]\n`;
    expect(of(text)).toEqual([]);
  });
});
