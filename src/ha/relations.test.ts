import { describe, expect, test } from 'vitest';
import { epoch, hostId, type VmId, vmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { GuestState, HaRules } from '../model/vm.ts';
import { Relations } from './relations.ts';

const running = new Map<VmId, { host: string; state: GuestState; ready: boolean }>();
const elsewhere = new Set<VmId>();
const relations = () => {
  running.clear();
  elsewhere.clear();
  const report = (vm: VmId) => {
    const found = running.get(vm);
    if (found === undefined) return null;
    const { host, state, ready } = found;
    const row = {
      vm,
      name: vm,
      epoch: epoch(1),
      state,
      ready,
      hung: false,
      cpus: 1,
      memoryBytes: 1,
    };
    return { host: hostId(host), row };
  };
  return new Relations(report, (vm) => elsewhere.has(vm));
};

function know(it: Relations, name: string, rules: Partial<HaRules> & { isOff?: boolean } = {}) {
  const { isOff = false, ...rest } = rules;
  const state: ProtectionState = {
    ...{ protected: !isOff, name, epoch: epoch(1), memoryBytes: 1, cpus: 1, priority: 'medium' },
    ...rest,
  };
  it.know(vmId(name), state);
}

const run = (name: string, host = 'h1', state: GuestState = 'running', ready = false) =>
  running.set(vmId(name), { host, state, ready });
const unmet = (it: Relations, ...after: string[]) =>
  it.unmet({ name: 'web', priority: 'medium', after });

describe('what a VM starts after', () => {
  test('is waited for until it runs, and where it says so until its guest reports', () => {
    const it = relations();
    know(it, 'db');
    know(it, 'dns', { readyWhen: 'heard' });
    expect(unmet(it, 'db', 'dns')).toBe('db, which it starts after, does not run yet');
    run('db', 'h1', 'starting');
    expect(unmet(it, 'db')).not.toBeNull();
    run('db');
    run('dns');
    expect(unmet(it, 'db', 'dns')).toContain('the guest of dns');
    run('dns', 'h1', 'running', true);
    expect(unmet(it, 'db', 'dns')).toBeNull();
  });

  test('is not waited for where nobody will start it', () => {
    const it = relations();
    know(it, 'db', { isOff: true });
    expect(unmet(it, 'db', 'unheard-of')).toBeNull();
    know(it, 'db');
    expect(unmet(it, 'db')).not.toBeNull();
    it.know(vmId('db'), null);
    expect(unmet(it, 'db')).toBeNull();
  });

  test('is not waited for where another partition runs it', () => {
    const it = relations();
    know(it, 'db');
    elsewhere.add(vmId('db'));
    expect(unmet(it, 'db')).toBeNull();
  });

  test('is not waited for in a circle', () => {
    const it = relations();
    know(it, 'web', { after: ['db'] });
    know(it, 'db', { after: ['app', 'dns'] });
    know(it, 'app', { after: ['web'] });
    know(it, 'dns', { after: ['ntp', 'dns'] });
    expect(unmet(it, 'db')).toBeNull();
    expect(unmet(it, 'dns')).not.toBeNull();
  });
});

test('hosts are counted by how many VMs of a label they have', () => {
  const it = relations();
  for (const name of ['a', 'b', 'c', 'd']) know(it, name, { separate: 'web' });
  run('a');
  run('b');
  run('c', 'h2');
  run('d', 'h3');
  const crowd = (label: string | undefined) => [...it.crowd(label, vmId('d'))];
  expect(crowd('web')).toEqual([
    ['h1', 2],
    ['h2', 1],
  ]);
  expect([crowd(undefined), crowd('other')]).toEqual([[], []]);
  know(it, 'a', {});
  expect(crowd('web')).toEqual([
    ['h1', 1],
    ['h2', 1],
  ]);
});
