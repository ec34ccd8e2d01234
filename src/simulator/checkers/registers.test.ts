import { describe, expect, it } from 'vitest';
import { linearize, type Operation } from '../../../test/support/linearizability.ts';
import { ballot, h1, h2, namespace, namespaceId as object } from '../../../test/support/records.ts';
import { type HostId, hostId } from '../../model/ids.ts';
import type { NamespaceRecord } from '../../model/record.ts';
import type { ChangeEnd } from '../../ports/probe.ts';
import { SeededRandom } from '../world/random.ts';
import { Registers } from './registers.ts';

/** The record whose content is that text, with a revision as long; null for the empty text. */
function holding(text: string): NamespaceRecord | null {
  return text === '' ? null : namespace(text.length, { name: text });
}

class Story {
  readonly said: string[] = [];
  readonly #registers = new Registers((_, text) => this.said.push(text));
  #ballots = 0;

  invokes(host: HostId, call: number): this {
    this.#registers.invoked(host, object, call);
    return this;
  }

  proposes(host: HostId, text: string): this {
    this.#registers.accepting(host, object, holding(text) as NamespaceRecord);
    return this;
  }

  commits(text: string, counter = ++this.#ballots): this {
    this.#registers.committed(object, ballot(counter), holding(text) as NamespaceRecord);
    return this;
  }

  returns(host: HostId, call: number, outcome: ChangeEnd, read = '', record = ''): this {
    const texts = { record: holding(record), read: holding(read) };
    this.#registers.returned(host, { at: 'register.returned', object, call, outcome, ...texts });
    return this;
  }

  /** One whole change, from nothing to the answer. */
  writes(host: HostId, call: number, read: string, record: string): this {
    this.invokes(host, call).proposes(host, record).commits(record);
    return this.returns(host, call, 'changed', read, record);
  }

  reads(host: HostId, call: number, text: string): this {
    return this.invokes(host, call).returns(host, call, 'refused', text);
  }
}

describe('linearizable-registers', () => {
  it('is content with a chain, with reads of it, and with a record that is kept', () => {
    const story = new Story();
    story.reads(h1, 1, '').writes(h1, 2, '', 'a').writes(h2, 1, 'a', 'ab').reads(h1, 3, 'ab');
    story.invokes(h1, 4).proposes(h1, 'ab').commits('ab').returns(h1, 4, 'changed', 'ab', 'ab');
    story.writes(h1, 5, 'ab', 'abc');
    expect(story.said).toEqual([]);
  });

  it('is content with a writer that dies, and one that hears late of its success', () => {
    const story = new Story().writes(h1, 1, '', 'a');
    story.invokes(h1, 2).proposes(h1, 'ab').commits('ab', 2);
    story.invokes(h1, 1); // its daemon is another one
    story.invokes(h2, 1).proposes(h2, 'abc');
    story.commits('abc', 5).commits('ab', 4).returns(h2, 1, 'changed', 'ab', 'abc');
    expect(story.said).toEqual([]);
  });

  it('tells of two records of one revision', () => {
    const story = new Story().writes(h1, 1, '', 'a').writes(h1, 2, 'a', 'ab');
    story.invokes(h2, 1).proposes(h2, 'ax').commits('ax');
    expect(story.said).not.toEqual([]);
    const two = new Story().writes(h1, 1, '', 'a').invokes(h1, 2).proposes(h1, 'ab');
    two.invokes(h2, 1).proposes(h2, 'ax').commits('ab').commits('ax');
    expect(two.said[0]).toContain('has two contents');
  });

  it('tells of a record made from another than the last', () => {
    const story = new Story().writes(h1, 1, '', 'a').writes(h1, 2, 'a', 'ab');
    story.invokes(h2, 1).proposes(h2, 'abc').commits('abc').returns(h2, 1, 'changed', 'a', 'abc');
    expect(story.said.join()).toContain('made revision 3 from revision 1');
    const again = new Story().invokes(h2, 1).writes(h1, 1, '', 'a').proposes(h2, 'bb');
    again.commits('bb').returns(h2, 1, 'changed', '', 'bb');
    expect(again.said.join()).toContain('from nothing, and so was 1');
  });

  it('tells of a stale read, also where the newer record was only committed', () => {
    const story = new Story().writes(h1, 1, '', 'a').writes(h1, 2, 'a', 'ab').reads(h2, 1, 'a');
    expect(story.said[0]).toContain('read revision 1; before it began there was 2');
    const died = new Story().writes(h1, 1, '', 'a').invokes(h1, 2).proposes(h1, 'ab').commits('ab');
    expect(died.reads(h2, 1, 'a').said).toHaveLength(1);
    expect(new Story().writes(h1, 1, '', 'a').reads(h2, 1, '').said).toHaveLength(1);
    // A read that began before may be older.
    const before = new Story().writes(h1, 1, '', 'a').invokes(h2, 1).writes(h1, 2, 'a', 'ab');
    expect(before.returns(h2, 1, 'refused', 'a').said).toEqual([]);
  });

  it('tells of what a failed call wrote, and of two who wrote the same', () => {
    const story = new Story().writes(h1, 1, '', 'a').invokes(h1, 2).proposes(h1, 'ab');
    story.returns(h1, 2, 'failed').invokes(h2, 1).proposes(h2, 'ab').commits('ab');
    expect(story.said).toEqual([]); // it may be h2's own
    story.returns(h2, 1, 'changed', 'ab', 'ab');
    expect(story.said[0]).toContain('nobody but calls that failed');
    const two = new Story().writes(h1, 1, '', 'a').invokes(h1, 2).proposes(h1, 'ab');
    two.invokes(h2, 1).proposes(h2, 'ab').commits('ab').returns(h2, 1, 'changed', 'a', 'ab');
    expect(two.returns(h1, 2, 'changed', 'a', 'ab').said[0]).toContain('was written by');
  });

  it('tells of what nobody proposed, and of a ballot that goes back', () => {
    expect(new Story().invokes(h1, 1).commits('a').said[0]).toContain('proposed by nobody');
    const story = new Story().writes(h1, 1, '', 'a').writes(h1, 2, 'a', 'ab').commits('a', 9);
    expect(story.said[0]).toContain('later ballot');
  });

  it('forgets what is long settled', () => {
    const story = new Story();
    let text = '';
    for (let call = 1; call <= 200; call += 1) {
      story.writes(h1, call, text, `${text}x`);
      text += 'x';
    }
    expect(story.said).toEqual([]);
  });
});

/** What a client saw of one operation. */
interface Seen {
  readonly host: HostId;
  readonly invokedAt: number;
  readonly returnedAt: number;
  /** What it would write; null: it only reads. */
  readonly proposal: string | null;
  readonly outcome: ChangeEnd | 'none';
  readonly read: string;
}

/** Of one register that truly exists, asked by some who die or do not hear the answer. */
function truth(random: SeededRandom): Seen[] {
  const operations = Array.from({ length: 2 + random.below(5) }, (_, index) => {
    const [invokedAt, at, returnedAt] = [random.next(), random.next(), random.next()].sort(
      (a, b) => a - b,
    );
    return {
      index,
      invokedAt: invokedAt as number,
      at: at as number,
      returnedAt: returnedAt as number,
    };
  });
  let state = '';
  return operations
    .sort((a, b) => a.at - b.at)
    .map(({ index, invokedAt, returnedAt }) => {
      const read = state;
      const base = { host: hostId(`h${index}`), invokedAt, returnedAt, read };
      const kind = random.pick(['read', 'write', 'write', 'failed', 'unknown', 'none'] as const);
      if (kind === 'read') return { ...base, proposal: null, outcome: 'refused' };
      const proposal = state + random.pick(['a', 'b']);
      if (kind === 'write' || (kind !== 'failed' && random.chance(0.5))) state = proposal;
      return { ...base, proposal, outcome: kind === 'write' ? 'changed' : kind };
    });
}

function corrupted(random: SeededRandom, history: readonly Seen[]): Seen[] {
  const index = random.below(history.length);
  const change = (one: Seen): Seen => {
    switch (random.below(5)) {
      case 0: // reads what another read
        return { ...one, read: random.pick(history).read };
      case 1: {
        const delay = random.next();
        return { ...one, invokedAt: one.invokedAt + delay, returnedAt: one.returnedAt + delay };
      }
      case 2:
        return { ...one, outcome: one.proposal === null ? 'refused' : 'failed' };
      case 3: // an answer that came too early
        return { ...one, returnedAt: one.invokedAt + (one.returnedAt - one.invokedAt) / 10 };
      default:
        return one.proposal === null
          ? { ...one, read: `${one.read}a` }
          : { ...one, outcome: 'changed' };
    }
  };
  return history.map((one, at) => (at === index ? change(one) : one));
}

/** What it wrote, as it says, or might have written. */
const written = (one: Seen) => one.proposal ?? one.read;

function isLinearizable(history: readonly Seen[]): boolean {
  const operations = history.flatMap((one): Operation<string>[] => {
    if (one.outcome === 'failed') return [];
    const isOpen = one.outcome === 'none' || one.outcome === 'unknown';
    return [
      {
        name: one.host,
        invokedAt: one.invokedAt,
        returnedAt: isOpen ? Number.POSITIVE_INFINITY : one.returnedAt,
        apply(state) {
          const isStep = state.length + 1 === written(one).length;
          // From what record an open one was made, nobody has told.
          if (isOpen) return isStep ? written(one) : null;
          const fits = state === one.read && (isStep || written(one) === state);
          return fits ? written(one) : null;
        },
      },
    ];
  });
  return linearize('', operations) !== null;
}

function isAccepted(history: readonly Seen[]): boolean {
  const story = new Story();
  const events = history.flatMap((one) => [
    {
      at: one.invokedAt,
      tell() {
        story.invokes(one.host, 1);
        if (one.proposal !== null) story.proposes(one.host, one.proposal);
      },
    },
    {
      at: one.returnedAt,
      tell() {
        if (one.outcome === 'none') return;
        const record = one.outcome === 'changed' ? written(one) : '';
        const read = ['failed', 'unknown'].includes(one.outcome) ? '' : one.read;
        story.returns(one.host, 1, one.outcome, read, record);
      },
    },
  ]);
  for (const { tell } of events.sort((a, b) => a.at - b.at)) tell();
  return story.said.length === 0;
}

describe('the clever against the dumb', () => {
  it('judges small histories, true and corrupted, as a search for an order does', () => {
    const counts = { good: 0, bad: 0 };
    for (let seed = 0; seed < 6000; seed += 1) {
      const random = new SeededRandom(`history ${seed}`);
      let history = truth(random);
      expect(isAccepted(history), `true history ${seed}`).toBe(true);
      for (let times = random.below(3); times > 0; times -= 1) history = corrupted(random, history);
      const isGood = isLinearizable(history);
      expect(isAccepted(history), `seed ${seed}: ${JSON.stringify(history, null, 1)}`).toBe(isGood);
      counts[isGood ? 'good' : 'bad'] += 1;
    }
    expect(Math.min(counts.good, counts.bad)).toBeGreaterThan(500);
  });
});
