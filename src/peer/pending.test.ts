import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Pending } from './pending.ts';

describe('requests that wait for an answer', () => {
  it('are found by their numbers, however many there are and whichever is answered first', () => {
    // How many are asked, and the places (in the order of asking) of those that are answered then.
    const turn = fc.record({ asked: fc.nat(100), answered: fc.array(fc.nat(300)) });
    fc.assert(
      fc.property(fc.array(turn), (turns) => {
        const pending = new Pending<{ requestId: number }>();
        const expected = new Map<number, { requestId: number }>();
        const gone: number[] = [];
        for (const { asked, answered } of turns) {
          for (let count = 0; count < asked; count += 1) {
            const request = { requestId: pending.nextId() };
            expect(gone).not.toContain(request.requestId);
            pending.add(request);
            expected.set(request.requestId, request);
          }
          for (const place of answered) {
            const requestId = [...expected.keys()][place];
            if (requestId === undefined) continue;
            expect(pending.take(requestId)).toBe(expected.get(requestId));
            expected.delete(requestId);
            gone.push(requestId);
          }
          expect(pending.all()).toEqual([...expected.values()]);
          for (const requestId of gone) expect(pending.take(requestId)).toBeNull();
        }
      }),
    );
  });

  it('keep their numbers for as long as they wait', () => {
    const pending = new Pending<{ requestId: number }>();
    const first = { requestId: pending.nextId() };
    pending.add(first);
    for (let count = 0; count < 1000; count += 1) {
      const request = { requestId: pending.nextId() };
      expect(request.requestId).toBeGreaterThan(first.requestId);
      pending.add(request);
      expect(pending.take(request.requestId)).toBe(request);
    }
    expect(pending.get(first.requestId)).toBe(first);
    pending.clear();
    expect(pending.get(first.requestId)).toBeNull();
  });
});
