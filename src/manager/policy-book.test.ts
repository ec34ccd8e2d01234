// Hosts that write and tell at random end with the same book, whatever the order.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../test/support/seeded-random.ts';
import {
  chosenDefault,
  digestOf,
  entriesOf,
  merged,
  type PolicyBook,
  policyNamed,
  readBook,
  withDefault,
  withPolicy,
} from './policy-book.ts';

const empty: PolicyBook = new Map();

describe('books of policies', () => {
  it.each(Array.from({ length: 200 }, (_, seed) => seed))('converge (seed %d)', (seed) => {
    const random = new SeededRandom(seed);
    const pick = (count: number) => Math.floor(random.next() * count);
    const names = ['gold', 'silver', 'x'];
    const books = [empty, empty, empty, empty];
    /** What was told and has not arrived: it may arrive late, twice or never. */
    const told: PolicyBook[] = [];
    for (let step = 0; step < 60; step += 1) {
      const at = pick(books.length);
      const book = books[at] as PolicyBook;
      const name = names[pick(names.length)] as string;
      const host = `h${at}`;
      const kind = pick(5);
      if (kind === 0) books[at] = withPolicy(book, name, null, host);
      else if (kind === 1) books[at] = withDefault(book, name, host);
      else if (kind === 2) {
        const policy = { failuresToTolerate: pick(4), stripes: 1 + pick(12) };
        books[at] = withPolicy(
          book,
          name,
          pick(2) === 0 ? policy : { ...policy, thick: true },
          host,
        );
      } else if (kind === 3) told.push(readBook(JSON.parse(JSON.stringify(entriesOf(book)))));
      else if (told.length > 0) books[at] = merged(book, told[pick(told.length)] as PolicyBook);
    }
    const forwards = books.reduce(merged, empty);
    const backwards = [...books].reverse().reduce(merged, empty);
    expect(entriesOf(forwards)).toEqual(entriesOf(backwards));
    expect(digestOf(forwards)).toBe(digestOf(backwards));
    // Nothing that any of them has is news to it, and the very book is given back.
    for (const book of books) expect(merged(forwards, book)).toBe(forwards);
  });

  it('a removal is not undone by an old telling, and a new policy of the name is', () => {
    const gold = { failuresToTolerate: 1, stripes: 2 };
    const made = withPolicy(empty, 'gold', gold, 'h1');
    const removed = withPolicy(made, 'gold', null, 'h2');
    expect(policyNamed(merged(removed, made), 'gold')).toBeNull();
    expect(policyNamed(merged(made, removed), 'gold')).toBeNull();
    const again = withPolicy(removed, 'gold', gold, 'h1');
    expect(policyNamed(merged(removed, again), 'gold')).toEqual(gold);
    expect(chosenDefault(withDefault(again, 'gold', 'h1'))).toBe('gold');
  });

  it.each([
    [null],
    [[['gold', 0, 'h1', null]]],
    [[['gold', 1, 'h1', [4, 1, false]]]],
    [[['gold', 1, 'h1', [1, 13, false]]]],
    [[['gold', 1, 'h1', 'silver']]],
    [[['', 1, 'h1', [1, 1, false]]]],
  ])('refuses %j', (entries) => {
    expect(() => readBook(entries)).toThrow(/polic/);
  });
});
