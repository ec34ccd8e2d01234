import { expect, it } from 'vitest';
import { SilentLog } from '../../test/support/silent-log.ts';
import type { GuestState } from '../model/vm.ts';
import { guestStates, LifeCycle } from './life-cycle.ts';

const states = Object.keys(guestStates) as GuestState[];

it('takes exactly the steps of its table, and tells of each', () => {
  for (const from of states) {
    for (const to of states) {
      let changes = 0;
      const life = new LifeCycle('vm', from, new SilentLog(), () => (changes += 1));
      const allowed = from === to || guestStates[from].next.includes(to);
      expect(life.become(to, 'test')).toBe(allowed);
      expect(life.state).toBe(allowed ? to : from);
      expect(changes).toBe(allowed && from !== to ? 1 : 0);
    }
  }
});

it('never leaves stopping', () => {
  expect(guestStates.stopping.next).toEqual([]);
});
