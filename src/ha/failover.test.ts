// Every arrow of the flow charts, on the machine alone: the test gives the answers.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../test/support/seeded-random.ts';
import type { ErrorCode } from '../model/errors.ts';
import { epoch, type HostId, hostId, objectId, type VmId, vmId } from '../model/ids.ts';
import type { RestartPriority } from '../model/vm.ts';
import type { Log } from '../ports/log.ts';
import { noProbe } from '../ports/probe.ts';
import type { Accessibility } from '../storage/api.ts';
import type { AttemptsToSave } from './attempts.ts';
import { Failover } from './failover.ts';
import type { Candidate } from './failover-entry.ts';
import type { Action, LockView, Note, World } from './failover-world.ts';
import { haLimits } from './limits.ts';
import type { Condition } from './membership.ts';
import type { Target } from './placement.ts';

const MiB = 2 ** 20;
const log: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log };
const h1 = hostId('h1');
const h2 = hostId('h2');
const v = vmId('v');

class Bench implements World {
  nowMs = 0;
  hidden = new Set<VmId>();
  locks = new Map<VmId, LockView>();
  rooms: Target[] = [room('h1'), room('h2')];
  data = new Map<VmId, HostId[]>();
  conditions = new Map<HostId, Condition>();
  notes: Note[] = [];
  saves: AttemptsToSave[] = [];
  todo: Action[] = [];
  wanted: Candidate[] = [];
  readonly machine = new Failover(this, 4000, new SeededRandom(1), log, noProbe);

  accessibility = (vms: readonly VmId[]) =>
    new Map(vms.map((vm) => [vm, this.#access(vm)] as const));
  lock = (vm: VmId) => this.locks.get(vm) ?? null;
  targets = () => this.rooms;
  dataHosts = (vm: VmId) => this.data.get(vm) ?? [];
  /** Names of VMs that run. */
  up = new Set<string>();
  isProtected = true;
  /** Of the label of any candidate. */
  apart = new Map<HostId, number>();
  unmet = ({ after = [] }: Candidate) => after.find((name) => !this.up.has(name)) ?? null;
  crowd = () => this.apart;
  condition = (host: HostId) => this.conditions.get(host) ?? 'linked';

  #access(vm: VmId): Accessibility {
    if (!this.hidden.has(vm)) return { accessible: true };
    return { accessible: false, object: objectId('o'), hosts: [], text: `${vm} lacks a majority` };
  }

  want(...candidates: Candidate[]): this {
    this.wanted = candidates;
    this.machine.compare(candidates, () => null, this.nowMs);
    return this.go();
  }

  runs(vm: VmId, on: string): this {
    this.wanted = this.wanted.filter((it) => it.vm !== vm);
    this.machine.compare(this.wanted, (it) => (it === vm ? hostId(on) : null), this.nowMs);
    return this.go();
  }

  go(ms = 0): this {
    this.nowMs += ms;
    for (const action of this.machine.advance(this.nowMs)) {
      if (action.kind === 'note') this.notes.push(action.note);
      else if (action.kind === 'save') this.saves.push(action.save);
      else this.todo.push(action);
    }
    return this;
  }

  take<Kind extends Action['kind']>(kind: Kind): Extract<Action, { kind: Kind }>[] {
    const taken = this.todo.filter((it) => it.kind === kind) as Extract<Action, { kind: Kind }>[];
    this.todo = this.todo.filter((it) => it.kind !== kind);
    return taken;
  }

  lockAnswer(remainingMs: number, holder: HostId | null = h1): this {
    for (const { vm } of this.take('askLock')) {
      const status = { holder, epoch: epoch(1), isProtected: this.isProtected, remainingMs };
      this.machine.lockAnswered(vm, { ok: true, status }, this.nowMs);
    }
    return this.go();
  }

  reachAnswer(hosts?: readonly HostId[]): this {
    for (const { question, vms, hosts: asked } of this.take('askReach')) {
      const yes = new Map((hosts ?? asked).map((host) => [host, new Set(vms)]));
      this.machine.reachAnswered(question, yes, this.nowMs);
    }
    return this.go();
  }

  startAnswer(code?: ErrorCode): this {
    for (const { vm } of this.take('start')) {
      const result =
        code === undefined
          ? { ok: true as const }
          : { ok: false as const, code, text: `says ${code}` };
      this.machine.startAnswered(vm, result, this.nowMs);
    }
    return this.go();
  }

  /** To the order to start, the straight way. */
  toStart(): this {
    return this.lockAnswer(0).reachAnswer();
  }

  waits(): string[] {
    return this.machine.waiting().map((it) => `${it.vm} ${it.reason}: ${it.text}`);
  }

  said(type: Note['type']): number {
    return this.notes.filter((note) => note.type === type).length;
  }
}

function room(host: string, freeMiB = 8192): Target {
  return { host: hostId(host), cpus: 4, memoryBytes: 8192 * MiB, freeMemoryBytes: freeMiB * MiB };
}

function candidate(
  name: string,
  more: Partial<Candidate> & { memoryMiB?: number } = {},
): Candidate {
  const { memoryMiB = 1024, ...rest } = more;
  const base = {
    vm: vmId(name),
    name,
    priority: 'medium' as RestartPriority,
    cpus: 1,
    from: hostId('h9'),
  };
  return {
    ...base,
    memoryBytes: memoryMiB * MiB,
    failedAtMs: 0,
    prefer: null,
    isCutOff: false,
    hasHung: false,
    ...rest,
  };
}

describe('locks', () => {
  test('free -> restart list -> placed -> started -> done', () => {
    const it = new Bench().want(candidate('v')).toStart();
    const lock = { holder: h1, remainingMs: 0 };
    expect(it.take('start')).toMatchObject([{ vm: v, host: h1, candidate: { name: 'v' }, lock }]);
    it.machine.startAnswered(v, { ok: true }, 10);
    it.runs(v, 'h1');
    expect(it.machine.stageOf(v)).toBeNull();
    expect(it.notes.map((note) => note.type)).toEqual([
      'detected',
      'lockFree',
      'accessible',
      'placed',
      'started',
      'over',
    ]);
  });

  test('live -> wait list for the remaining time -> asked again', () => {
    const it = new Bench();
    it.locks.set(v, { holder: h1, epoch: epoch(1), holderIs: 'silent' });
    it.want(candidate('v')).lockAnswer(1500);
    expect(it.waits()).toEqual(['v lock: the lease of h1 has not ended yet']);
    expect(it.said('detected')).toBe(1);
    expect(it.go(1499).take('askLock')).toEqual([]);
    expect(it.go(1).take('askLock')).toHaveLength(1);
  });

  test('live with a host that only storage reaches: held, and no failure is announced', () => {
    const it = new Bench();
    it.locks.set(v, { holder: h1, epoch: epoch(1), holderIs: 'elsewhere' });
    it.want(candidate('v')).lockAnswer(4000).go(4000).lockAnswer(3900);
    expect(it.waits()[0]).toContain('held by h1 in another partition');
    expect(it.said('detected') + it.said('failed')).toBe(0);
    expect(it.said('waiting')).toBe(1);
    expect(it.go(haLimits.heldLookMs).take('askLock')).toEqual([]); // the directory is enough
    it.locks.set(v, { holder: h1, epoch: epoch(1), holderIs: 'silent' }); // then it dies
    it.go(haLimits.heldLookMs).lockAnswer(1500);
    const [detected] = it.notes.filter((note) => note.type === 'detected');
    expect(detected).toMatchObject({ atMs: it.nowMs, candidate: { failedAtMs: it.nowMs - 2500 } });
  });

  test('given back while waited for -> asked again', () => {
    const it = new Bench();
    it.locks.set(v, { holder: h1, epoch: epoch(1), holderIs: 'here' });
    it.want(candidate('v')).lockAnswer(4000);
    it.locks.set(v, { holder: null, epoch: epoch(1), holderIs: 'silent' });
    expect(it.go(haLimits.lockLookMs).lockAnswer(0, null).take('askReach')).toHaveLength(1);
  });

  test('voters not to be reached -> wait list for storage; other trouble -> retry', () => {
    const it = new Bench().want(candidate('v'));
    it.hidden.add(v);
    it.take('askLock');
    it.machine.lockAnswered(v, { ok: false, code: 'inaccessible', text: 'no' }, 0);
    expect(it.waits()).toEqual(['v storage: v lacks a majority']);
    it.hidden.clear();
    it.machine.storageChanged([v]);
    it.go();
    it.take('askLock');
    it.machine.lockAnswered(v, { ok: false, code: 'timeout', text: 'slow' }, 0);
    expect(it.waits()[0]).toContain('v retry');
    expect(it.go(haLimits.retryMinMs).take('askLock')).toHaveLength(1);
  });

  test('the object is gone -> dropped', () => {
    const it = new Bench().want(candidate('v'));
    it.machine.lockAnswered(v, { ok: false, code: 'unknown-vm', text: 'gone' }, 0);
    expect(it.machine.stageOf(v)).toBe('dismissed');
  });

  test('only so many are asked about at once', () => {
    const many = Array.from({ length: 100 }, (_, index) => candidate(`v${index + 100}`));
    const it = new Bench().want(...many);
    expect(it.take('askLock')).toHaveLength(haLimits.lockQuestionsInFlight);
    it.machine.lockAnswered(vmId('v100'), { ok: false, code: 'timeout', text: '' }, 0);
    expect(it.go().take('askLock')).toHaveLength(1);
  });
});

describe('accessibility', () => {
  test('inaccessible -> wait list -> notice -> restart list', () => {
    const it = new Bench();
    it.hidden.add(v);
    it.want(candidate('v')).lockAnswer(0);
    expect(it.waits()).toEqual(['v storage: v lacks a majority']);
    it.machine.storageChanged([v]);
    it.go();
    expect(it.machine.waiting()).toHaveLength(1); // a notice of something else
    it.hidden.clear();
    it.machine.storageChanged(null); // the weak form: some object changed
    expect(it.go().take('askReach')).toHaveLength(1);
  });

  test('a lost notice costs time only', () => {
    const it = new Bench();
    it.hidden.add(v);
    it.want(candidate('v')).lockAnswer(0);
    it.hidden.clear();
    expect(it.go(haLimits.slowLookMs).take('askReach')).toHaveLength(1);
  });

  test('only targets that reach it are chosen; none does -> wait list for storage', () => {
    const it = new Bench().want(candidate('v')).lockAnswer(0).reachAnswer([h2]);
    expect(it.take('start')).toMatchObject([{ host: 'h2' }]);
    const other = new Bench().want(candidate('v')).lockAnswer(0).reachAnswer([]);
    expect(other.waits()).toEqual(['v storage: none of h1, h2 can reach all its objects']);
    expect(other.go(haLimits.retryMinMs).take('askReach')).toHaveLength(1);
  });
});

describe('placement', () => {
  test('data locality first, then load; the host of a guest that ended by itself before both', () => {
    const it = new Bench();
    it.rooms = [room('h1', 4000), room('h2', 8000), room('h3', 2000)];
    it.data.set(v, [hostId('h3'), h1]);
    it.want(candidate('v')).toStart();
    expect(it.take('start')).toMatchObject([{ host: 'h1' }]);
    const local = new Bench().want(candidate('v', { prefer: h2 })).toStart();
    expect(local.take('start')).toMatchObject([{ host: 'h2' }]);
  });

  test('no place -> waits for capacity until a host has more room', () => {
    const it = new Bench();
    it.rooms = [room('h1', 512)];
    it.want(candidate('v')).lockAnswer(0);
    expect(it.waits()[0]).toContain('v capacity: no host that can reach it has 1024 MiB');
    expect(it.go(1000).todo).toEqual([]);
    it.rooms = [room('h1', 512), room('h2', 2048)];
    it.go().reachAnswer();
    expect(it.take('start')).toMatchObject([{ host: 'h2' }]);
  });

  test('the room of those that reach it counts, and what was ordered is taken', () => {
    const it = new Bench();
    it.rooms = [room('h1', 1500), room('h2', 9000)];
    it.want(candidate('a'), candidate('b')).lockAnswer(0).reachAnswer([h1]);
    expect(it.take('start')).toMatchObject([{ vm: 'a', host: 'h1' }]);
    expect(it.waits()[0]).toContain('b capacity');
  });

  test('in order of priority', () => {
    const it = new Bench();
    it.rooms = [room('h1', 1500)];
    it.want(candidate('a', { priority: 'low' }), candidate('b', { priority: 'highest' })).toStart();
    expect(it.take('start')).toMatchObject([{ vm: 'b' }]);
    expect(it.waits()[0]).toContain('a capacity');
  });

  test('four starts at once per host at first, more after quick ones; the others keep their turn', () => {
    const it = new Bench();
    it.rooms = [room('h1')];
    const many = Array.from({ length: 8 }, (_, index) => candidate(`v${index}`));
    it.want(...many).toStart();
    const first = it.take('start');
    expect(first).toHaveLength(4);
    expect(it.waits()).toEqual([]);
    it.machine.startAnswered(first[0]?.vm as VmId, { ok: true }, 0);
    expect(it.go().reachAnswer().take('start')).toHaveLength(2);
  });
});

describe('a start that fails', () => {
  const started = () => new Bench().want(candidate('v')).toStart();

  test('for capacity -> elsewhere if there is room, else waits for a change', () => {
    const it = started().startAnswer('no-capacity').go().reachAnswer();
    expect(it.take('start')).toMatchObject([{ host: 'h2' }]);
    it.machine.startAnswered(v, { ok: false, code: 'no-capacity', text: 'full' }, 0);
    it.go().reachAnswer();
    expect(it.waits()[0]).toContain('v capacity');
    expect(it.go(1000).todo).toEqual([]);
    it.rooms = [room('h1', 8193), room('h2')];
    expect(it.go().reachAnswer().take('start')).toMatchObject([{ host: 'h1' }]);
  });

  test('for a path that the host does not see -> elsewhere at once; there only after a pause', () => {
    const it = started();
    it.rooms = [room('h1', 8193), room('h2')]; // more room than before is no reason
    it.startAnswer('path-unusable').reachAnswer();
    expect(it.todo).toMatchObject([{ kind: 'start', host: 'h2' }]);
    it.startAnswer('path-unusable');
    expect(it.waits()).toEqual(['v retry: says path-unusable']);
    expect(it.go(haLimits.retryMinMs / 2 - 1).todo).toEqual([]);
    expect(it.go(haLimits.retryMinMs).reachAnswer().take('start')).toHaveLength(1);
  });

  test('for the lock -> waits for the lock, then asks', () => {
    const it = started().startAnswer('lock-held');
    expect(it.waits()).toEqual(['v lock: says lock-held']);
    expect(it.go(haLimits.retryMinMs).take('askLock')).toHaveLength(1);
  });

  test('not protected -> dropped, and left alone until the directory has caught up', () => {
    const it = started().startAnswer('not-protected');
    expect(it.machine.stageOf(v)).toBe('dismissed');
    it.want(candidate('v'));
    expect(it.todo).toEqual([]);
    it.machine.metadataChanged([v]); // protected again, by a new power-on
    expect(it.want(candidate('v')).take('askLock')).toHaveLength(1);
  });

  test('already running -> done as soon as the list shows it', () => {
    const it = started().startAnswer('already-running');
    expect(it.machine.stageOf(v)).toBe('unsettled');
    expect(it.runs(v, 'h1').machine.stageOf(v)).toBeNull();
  });

  test('otherwise, and inaccessible now -> wait list for storage', () => {
    const it = started();
    it.hidden.add(v);
    it.startAnswer('disk-error');
    expect(it.waits()).toEqual(['v storage: v lacks a majority']);
    expect(it.said('failed')).toBe(1);
  });

  test('otherwise, and accessible -> back-off that grows, with jitter', () => {
    const it = started();
    const pauses: number[] = [];
    for (let attempt = 0; attempt < 8; attempt += 1) {
      it.startAnswer('guest-failed');
      expect(it.waits()).toEqual(['v retry: says guest-failed']);
      pauses.push(it.machine.nextWakeMs() - it.nowMs);
      it.go(it.machine.nextWakeMs() - it.nowMs).reachAnswer();
    }
    pauses.forEach((pauseMs, index) => {
      const wholeMs = Math.min(haLimits.retryMaxMs, 1000 * 2 ** index);
      expect(pauseMs).toBeGreaterThanOrEqual(wholeMs / 2);
      expect(pauseMs).toBeLessThanOrEqual(wholeMs);
    });
    expect(new Set(pauses.map((pauseMs) => pauseMs % 1000)).size).toBeGreaterThan(4);
  });

  test('its target listed it while it was starting: that does not make it forget the failure', () => {
    const it = started();
    const [order] = it.take('start');
    const target = order?.host as HostId;
    it.todo.push(order as Action);
    const candidates = it.wanted;
    it.runs(v, target).startAnswer('guest-failed');
    expect([it.waits(), it.said('failed')]).toEqual([['v retry: says guest-failed'], 1]);
    it.runs(v, target); // an old list
    expect(it.waits()).toEqual(['v retry: says guest-failed']);
    it.want(...candidates).go(haLimits.settleMs);
    expect(it.machine.stageOf(v)).toBe('reaching');
    it.runs(v, target); // by now it is news
    expect(it.machine.stageOf(v)).toBe(null);
  });

  for (const code of ['timeout', 'unreachable', 'outcome-unknown'] as const) {
    test(`with ${code}: nothing starts elsewhere until the target's list has settled it`, () => {
      const it = started().startAnswer(code);
      expect(it.machine.stageOf(v)).toBe('unsettled');
      expect(it.go(haLimits.settleMs - 1).todo).toEqual([]);
      expect(it.go(1).take('askLock')).toHaveLength(1);
      const shown = started().startAnswer(code).runs(v, 'h1');
      expect([shown.machine.stageOf(v), shown.said('started')]).toEqual([null, 1]);
    });
  }

  test('with an unknown outcome, and the target fails -> its lock is asked for at once', () => {
    const it = started().startAnswer('unreachable');
    it.conditions.set(h1, 'suspected');
    expect(it.go(haLimits.settleMs + 10).todo).toEqual([]);
    it.conditions.set(h1, 'failed');
    expect(it.go(1).take('askLock')).toHaveLength(1);
  });

  test('an answer that comes when the VM runs elsewhere is heard and forgotten', () => {
    const it = started().runs(v, 'h2');
    expect(it.machine.stageOf(v)).toBe('starting');
    expect(it.startAnswer('lock-held').machine.stageOf(v)).toBeNull();
  });
});

describe('a guest that ends by itself', () => {
  const ended = (it: Bench, more: Partial<Candidate> = {}) =>
    it.want(candidate('v', { prefer: h1, failedAtMs: it.nowMs, ...more })).toStart();
  const restarted = () => {
    const it = new Bench();
    it.rooms = [room('h1'), room('h2', 4000)];
    ended(it);
    expect(it.todo).toMatchObject([{ kind: 'start', host: 'h1' }]);
    return it.startAnswer().runs(v, 'h1');
  };

  test('soon after it was restarted where it was: elsewhere, if another host can', () => {
    const it = ended(restarted().go(30_000));
    expect(it.take('start')).toMatchObject([{ host: 'h2' }]);
    const late = ended(restarted().go(haLimits.settledMs));
    expect(late.take('start')).toMatchObject([{ host: 'h1' }]);
    const alone = restarted().go(30_000);
    alone.rooms = [room('h1'), room('h2', 100)];
    expect(ended(alone).take('start')).toMatchObject([{ host: 'h1' }]);
  });

  test('the last sign of it counts, not when that was found out', () => {
    const it = restarted().go(90_000);
    expect(ended(it, { failedAtMs: it.nowMs - 45_000 }).take('start')).toMatchObject([
      { host: 'h2' },
    ]);
  });

  test('and can not be started where it was: elsewhere', () => {
    const it = ended(new Bench()).startAnswer('guest-failed').go(haLimits.retryMaxMs).reachAnswer();
    expect(it.take('start')).toMatchObject([{ host: 'h2' }]);
  });
});

test('a guest that keeps ending soon after its start waits longer and longer', () => {
  const it = new Bench();
  const waits: number[] = [];
  for (let round = 0; round < 6; round += 1) {
    it.want(candidate('v', { prefer: h1 }));
    if (it.machine.stageOf(v) === 'waiting') {
      waits.push((it.machine.nextWakeMs() - it.nowMs) / 1000);
      it.go(it.machine.nextWakeMs() - it.nowMs);
    }
    it.toStart().startAnswer().runs(v, 'h1').go(5000);
  }
  expect(waits).toEqual([30, 60, 120]);
});

test('property: each candidate is in one stage, no VM has two starts, and in the end all run', () => {
  const codes: ErrorCode[] = [
    'no-capacity',
    'lock-held',
    'not-protected',
    'already-running',
    'inaccessible',
    'path-unusable',
    'guest-failed',
    'timeout',
    'unreachable',
    'outcome-unknown',
    'no-master',
  ];
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 8 }), (seed, count) => {
      const random = new SeededRandom(seed);
      const it = new Bench();
      const names = Array.from({ length: count }, (_, index) => `v${index}`);
      const all = names.map((name) => candidate(name, { memoryMiB: 500 + random.below(2000) }));
      it.rooms = ['h1', 'h2', 'h3'].map((name) => room(name, random.below(6000)));
      const inFlight = new Set<VmId>();
      const check = () => {
        it.want(...it.wanted); // as the master does in each turn
        for (const action of it.todo) {
          if (action.kind !== 'start') continue;
          expect(inFlight.has(action.vm), `two starts of ${action.vm}`).toBe(false);
          inFlight.add(action.vm);
        }
        it.todo = it.todo.filter((action) => action.kind !== 'start');
        for (const { vm } of it.wanted) expect(it.machine.stageOf(vm)).not.toBeNull();
        expect(it.machine.nextWakeMs()).toBeGreaterThan(it.nowMs);
      };
      it.want(...all);
      const calm = 150;
      for (let step = 0; step < calm + 400; step += 1) {
        check();
        const isCalm = step >= calm;
        if (isCalm) {
          it.hidden.clear();
          it.conditions.clear();
          it.rooms = [room('h1'), room('h2')];
          it.locks.clear();
        }
        const what = isCalm ? step % 5 : random.below(10);
        if (what === 0) it.lockAnswer(isCalm || random.chance(0.6) ? 0 : random.below(4000));
        else if (what === 1)
          it.reachAnswer(isCalm ? undefined : [h1, h2].filter(() => random.chance(0.7)));
        else if (what === 2 && inFlight.size > 0) {
          const vm = [...inFlight][random.below(inFlight.size)] as VmId;
          inFlight.delete(vm);
          const code = random.pick(codes);
          const isGood = isCalm || random.chance(0.3);
          it.machine.startAnswered(
            vm,
            isGood ? { ok: true } : { ok: false, code, text: code },
            it.nowMs,
          );
          if (isGood && it.wanted.some((one) => one.vm === vm)) it.runs(vm, 'h1');
          else it.go();
        } else if (what === 3) it.go(random.below(isCalm ? 4000 : 1500));
        else if (what === 4) it.want(...it.wanted);
        else if (what === 5)
          it.rooms = ['h1', 'h2', 'h3'].map((name) => room(name, random.below(6000)));
        else if (what === 6) it.conditions.set(h1, random.pick(['linked', 'suspected', 'failed']));
        else if (what === 7) {
          const vm = vmId(random.pick(names));
          if (!it.hidden.delete(vm)) it.hidden.add(vm);
          it.machine.storageChanged(random.chance(0.5) ? [vm] : null);
          it.go();
        } else if (what === 8) {
          it.locks.set(vmId(random.pick(names)), {
            holder: random.pick([h1, h2, null]),
            epoch: epoch(random.below(3)),
            holderIs: random.pick(['here', 'elsewhere', 'silent']),
          });
        } else if (what === 9 && random.chance(0.2)) it.want(...all); // all of them fail again
      }
      expect(it.wanted).toEqual([]);
    }),
    { numRuns: 100 },
  );
});

test('what its voters know to be switched off is left alone, without a word', () => {
  const it = new Bench();
  it.isProtected = false;
  it.want(candidate('v')).toStart();
  expect([it.take('start'), it.machine.stageOf(v)]).toEqual([[], 'dismissed']);
  expect(it.notes.map((note) => note.type)).toEqual(['over']);
});

describe('what it has to do with other VMs', () => {
  test('it starts after those that run before it', () => {
    const it = new Bench().want(candidate('v', { after: ['db'] })).toStart();
    expect(it.machine.waiting()).toMatchObject([{ vm: v, reason: 'dependency', text: 'db' }]);
    expect(it.take('start')).toEqual([]);
    it.up.add('db');
    it.go().toStart();
    expect(it.take('start')).toMatchObject([{ vm: v }]);
  });

  test('it waits for them after it has waited for its storage', () => {
    const it = new Bench();
    it.hidden.add(v);
    it.want(candidate('v', { after: ['db'] })).toStart();
    expect(it.machine.waiting()).toMatchObject([{ reason: 'storage' }]);
    it.hidden.delete(v);
    it.machine.storageChanged(null);
    it.go().toStart();
    expect(it.machine.waiting()).toMatchObject([{ vm: v, reason: 'dependency', text: 'db' }]);
    it.up.add('db');
    it.go().toStart();
    expect(it.take('start')).toMatchObject([{ vm: v }]);
  });

  test('it does not wait for ever for one that never comes', () => {
    const it = new Bench().want(candidate('v', { after: ['db'] })).toStart();
    it.go(haLimits.dependencyMs - 1).toStart();
    expect(it.take('start')).toEqual([]);
    it.go(2).toStart();
    expect(it.take('start')).toMatchObject([{ vm: v }]);
  });

  test('VMs of a label go to different hosts, those on their way included', () => {
    const it = new Bench();
    it.rooms = [room('h1'), room('h2'), room('h3')];
    it.apart = new Map([[h1, 1]]);
    it.want(candidate('a', { separate: 'web' }), candidate('b', { separate: 'web' })).toStart();
    const hosts = it.take('start').map((one) => one.host);
    expect(hosts.toSorted()).toEqual(['h2', 'h3']);
    it.want(candidate('a', { separate: 'web' }), candidate('c', { separate: 'web' })).toStart();
    expect(it.take('start')).toHaveLength(1); // where that can not be, anywhere
  });

  test('it goes to the hosts of its affinity first, and to no other where it must', () => {
    const affinity = { hosts: ['h2'] };
    const it = new Bench();
    it.data.set(v, [h1]);
    it.want(candidate('v', { affinity })).toStart();
    expect(it.take('start')).toMatchObject([{ host: h2 }]);
    const must = new Bench();
    must.rooms = [room('h1')];
    must.want(candidate('v', { affinity: { ...affinity, required: true } })).toStart();
    expect(must.machine.waiting()).toMatchObject([{ reason: 'capacity' }]);
    must.rooms = [room('h1'), room('h2')];
    must.go().toStart();
    expect(must.take('start')).toMatchObject([{ host: h2 }]);
  });
});
