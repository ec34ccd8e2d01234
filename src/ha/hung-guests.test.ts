import { describe, expect, test } from 'vitest';
import { epoch, hostId, vmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { RunningVm } from './api.ts';
import { HungGuests } from './hung-guests.ts';
import { haLimits } from './limits.ts';

const v = vmId('v');
const hour = 3_600_000;

class Bench {
  nowMs = 0;
  row: RunningVm = {
    ...{ vm: v, name: 'v', epoch: epoch(1), state: 'running', ready: false, hung: true },
    ...{ cpus: 1, memoryBytes: 1 },
  };
  state: ProtectionState | null = {
    ...{ protected: true, name: 'v', epoch: epoch(1), memoryBytes: 1, cpus: 1 },
    priority: 'medium',
  };
  isAccessible = true;
  readonly left: string[] = [];
  readonly machine = new HungGuests(
    {
      hung: () => (this.row.hung ? [{ host: hostId('h1'), row: this.row }] : []),
      state: () => this.state,
      isAccessible: () => this.isAccessible,
    },
    (_vm, text) => this.left.push(text),
  );

  /** How many orders there are then. */
  after(ms: number): number {
    this.nowMs += ms;
    return this.machine.advance(this.nowMs).length;
  }

  answer(isEnded: boolean): void {
    this.machine.answered(v, isEnded, this.nowMs);
  }

  /** It is ended, is started again, and hangs again after so long. */
  again(ms: number): number {
    this.row = { ...this.row, epoch: epoch(this.row.epoch + 1) };
    return this.after(ms);
  }
}

describe('a guest that hangs', () => {
  test('is ended where it runs, at its epoch, by one order at a time', () => {
    const it = new Bench();
    expect(it.machine.advance(0)).toEqual([{ vm: v, name: 'v', host: 'h1', epoch: 1 }]);
    expect(it.after(60_000)).toBe(0);
    it.answer(false); // refused, or not answered
    expect(it.after(haLimits.hungAskAgainMs - 1)).toBe(0);
    expect(it.machine.nextWakeMs()).toBe(it.nowMs + 1);
    expect(it.after(1)).toBe(1);
  });

  test('is left alone where it is not protected, or its rules say so, or it does not run', () => {
    for (const change of [
      (it: Bench) => ({ state: null, row: it.row }),
      (it: Bench) => ({
        state: { ...(it.state as ProtectionState), protected: false },
        row: it.row,
      }),
      (it: Bench) => ({
        state: { ...(it.state as ProtectionState), whenHung: 'leave' as const },
        row: it.row,
      }),
      (it: Bench) => ({ state: it.state, row: { ...it.row, state: 'stopping' as const } }),
      (it: Bench) => ({ state: it.state, row: { ...it.row, state: 'paused' as const } }),
      (it: Bench) => ({ state: it.state, row: { ...it.row, hung: false } }),
    ]) {
      const it = new Bench();
      Object.assign(it, change(it));
      expect(it.after(1)).toBe(0);
    }
  });

  test('waits until its objects can be reached: it could not be started again', () => {
    const it = new Bench();
    it.isAccessible = false;
    expect(it.after(1)).toBe(0);
    it.isAccessible = true;
    expect(it.after(1)).toBe(1);
  });

  test('is restarted three times in an hour, then left alone, which is told once', () => {
    const it = new Bench();
    for (let times = 0; times < haLimits.hungRestarts; times += 1) {
      expect(it.again(600_000)).toBe(1);
      it.answer(true);
    }
    // Its host may list it still.
    expect([it.after(1), it.left]).toEqual([0, []]);
    expect(it.again(600_000)).toBe(0);
    expect(it.after(1000)).toBe(0);
    expect(it.left).toEqual([
      'v hangs, and is left alone: it was restarted for that 3 times within an hour.',
    ]);
    const firstMs = 600_000;
    expect(it.machine.nextWakeMs()).toBe(firstMs + hour);
    expect(it.after(firstMs + hour - it.nowMs)).toBe(1);
  });

  test('what was refused does not count', () => {
    const it = new Bench();
    for (let times = 0; times < 2 * haLimits.hungRestarts; times += 1) {
      expect(it.again(60_000)).toBe(1);
      it.answer(false);
    }
    expect(it.left).toEqual([]);
  });
});
