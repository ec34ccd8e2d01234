import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type InLine, Line } from './line.ts';

interface Item extends InLine {
  readonly name: number;
}

const make = (name: number): Item => ({ name, previous: null, next: null });

describe('a line', () => {
  it('does what a set does', () => {
    const step = fc.record({ isAdded: fc.boolean(), name: fc.nat(8) });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const items = Array.from({ length: 9 }, (_, name) => make(name));
        const line = new Line<Item>();
        const set = new Set<Item>();
        for (const { isAdded, name } of steps) {
          const item = items[name] as Item;
          if (!isAdded) expect(line.remove(item)).toBe(set.delete(item));
          else if (!set.has(item)) {
            line.add(item);
            set.add(item);
          }
          expect(line.all()).toEqual([...set]);
          expect(items.map((one) => line.has(one))).toEqual(items.map((one) => set.has(one)));
        }
      }),
    );
  });

  it('is walked through from the first on, and emptied', () => {
    const line = new Line<Item>();
    const items = [1, 2, 3].map(make);
    for (const item of items) line.add(item);
    const names: number[] = [];
    for (let item = line.first; item !== null; item = line.after(item)) names.push(item.name);
    expect(names).toEqual([1, 2, 3]);
    expect(line.removeAll()).toEqual(items);
    expect(line.first).toBeNull();
    line.add(items[1] as Item);
    expect(line.all()).toEqual([items[1]]);
  });
});
