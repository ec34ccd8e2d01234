// The guard with ordinary processes as guests: what it promises must hold for any program, so that a
// test does not need QEMU to see a deadline kept.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  bootMs,
  cleanUp,
  compileGuard,
  endWithItsGroup,
  groupOf,
  RawClient,
  removeFolders,
  run,
  stateOf,
  tempFolder,
  until,
} from './support.ts';

let guardPath = '';
beforeAll(() => {
  guardPath = compileGuard();
});
afterEach(cleanUp);
afterAll(removeFolders);

const far = 10 * 60 * 1000;
/** Writes to the guest's log for ever, from two processes. */
const ticking = ['sh', '-c', 'while :; do echo tick; sleep 0.02; done'];

interface Started {
  readonly dir: string;
  readonly socket: string;
  readonly log: string;
  readonly guard: number;
  readonly guest: number;
  readonly deadlineMs: number;
}

function argumentsFor(dir: string, deadlineMs: number, command: readonly string[]): string[] {
  return [
    ...['--socket', join(dir, 'guard.sock'), '--vm', 'vm1', '--name', 'one', '--epoch', '7'],
    ...['--deadline-ms', String(deadlineMs), '--log', join(dir, 'guest.log'), '--', ...command],
  ];
}

/** Starts a guard that is expected to come up. */
async function start(
  command: readonly string[],
  withinMs = far,
  dir = tempFolder(),
): Promise<Started> {
  const deadlineMs = bootMs() + withinMs;
  const child = run(guardPath, argumentsFor(dir, deadlineMs, command), true);
  let said = '';
  child.stdout?.on('data', (bytes) => {
    said += bytes;
  });
  const ready = await until(() => /^ready (\d+)\n/.exec(said));
  endWithItsGroup(Number(ready[1]));
  return {
    dir,
    socket: join(dir, 'guard.sock'),
    log: join(dir, 'guest.log'),
    guard: child.pid as number,
    guest: Number(ready[1]),
    deadlineMs,
  };
}

/** Runs a guard that is expected to refuse; returns its exit status and its reason. */
async function refusal(
  args: readonly string[],
): Promise<{ status: number | null; reason: string }> {
  const child = run(guardPath, args);
  let reason = '';
  child.stderr?.on('data', (bytes) => {
    reason += bytes;
  });
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { status, reason };
}

function fields(answer: string): Record<string, string> {
  expect(answer).toMatch(/^ok /);
  return Object.fromEntries(
    answer
      .split(' ')
      .slice(1)
      .map((word) => word.split('=', 2)),
  );
}

async function status(client: RawClient): Promise<Record<string, string>> {
  return fields(await client.ask('status'));
}

const ticks = (started: Started): number => statSync(started.log).size;

/** Proof that the guest goes on. */
async function untilItTicks(started: Started): Promise<void> {
  const before = ticks(started);
  await until(() => ticks(started) > before);
}

describe('start', () => {
  test('says who its guest is, on a socket that only its user may open', async () => {
    const started = await start(ticking);
    expect(statSync(started.socket).mode & 0o777).toBe(0o600);
    const now = await status(new RawClient(started.socket));
    expect(now).toMatchObject({ vm: 'vm1', name: 'one', epoch: '7', state: 'running', exit: '-' });
    expect(now['pid']).toBe(String(started.guest));
    expect(now['deadline']).toBe(String(started.deadlineMs));
    expect(Math.abs(Number(now['now']) - bootMs())).toBeLessThan(far);
    await untilItTicks(started);
  });

  test('refuses what it can not guard, and then starts nothing', async () => {
    const dir = tempFolder();
    const mark = join(dir, 'ran');
    const touch = ['touch', mark];
    const good = argumentsFor(dir, bootMs() + far, touch);
    const cases: [string[], RegExp][] = [
      [argumentsFor(dir, bootMs() - 1, touch), /deadline \d+ has passed/],
      [argumentsFor(dir, bootMs() + far, []), /usage/],
      [good.with(1, join(dir, 'x'.repeat(120))), /longer than 107 bytes/],
      [good.with(1, join(dir, 'missing', 'guard.sock')), /cannot listen/],
      [good.with(5, 'two words'), /--name/],
      [good.with(7, '-1'), /--epoch/],
      [good.with(9, 'soon'), /--deadline-ms/],
      [good.with(11, join(dir, 'missing', 'log')), /cannot open/],
      [good.with(0, '--sock'), /unknown option/],
      [[], /usage/],
    ];
    for (const [args, reason] of cases) {
      const refused = await refusal(args);
      expect(refused.reason).toMatch(reason);
      expect(refused.status).toBe(1);
    }
    expect(existsSync(mark)).toBe(false);
    expect(existsSync(join(dir, 'guard.sock'))).toBe(false);
  });

  test('a program that can not be started leaves no socket', async () => {
    const dir = tempFolder();
    const refused = await refusal(
      argumentsFor(dir, bootMs() + far, [join(dir, 'no-such-program')]),
    );
    expect(refused.reason).toMatch(/cannot start .*no-such-program: No such file/);
    expect(refused.status).toBe(1);
    expect(existsSync(join(dir, 'guard.sock'))).toBe(false);
  });

  test('one guest has one guard', async () => {
    const started = await start(ticking);
    const refused = await refusal(argumentsFor(started.dir, bootMs() + far, ['true']));
    expect(refused.reason).toMatch(/another guard or its guest/);
    expect((await status(new RawClient(started.socket)))['state']).toBe('running');
  });

  test('a dead guard leaves a socket that does not stop the next one', async () => {
    const first = await start(ticking);
    process.kill(first.guard, 'SIGKILL');
    // Also the shell's own child, which still has the log.
    await until(() => groupOf(first.guest).length === 0);
    expect(existsSync(first.socket)).toBe(true);
    const second = await start(ticking, far, first.dir);
    expect((await status(new RawClient(second.socket)))['pid']).toBe(String(second.guest));
  });

  test('lives on when its parent and all of its process group are killed', async () => {
    const dir = tempFolder();
    const quoted = argumentsFor(dir, bootMs() + far, ['sleep', '1000']).join(' ');
    const daemon = run('sh', ['-c', `${guardPath} ${quoted} & wait`], true);
    const client = await until(() =>
      existsSync(join(dir, 'guard.sock')) ? new RawClient(join(dir, 'guard.sock')) : null,
    );
    const { pid } = await status(client);
    process.kill(-(daemon.pid as number), 'SIGHUP');
    process.kill(-(daemon.pid as number), 'SIGKILL');
    await until(() => stateOf(daemon.pid as number) === null);
    expect(await status(client)).toMatchObject({ pid, state: 'running' });
    expect(stateOf(Number(pid))).toBe('S');
  });
});

describe('the deadline', () => {
  test('stops the guest with all its processes; only resume lets it go on', async () => {
    const started = await start(ticking, 300);
    const client = new RawClient(started.socket);
    expect(await client.next()).toBe('paused deadline');
    expect(stateOf(started.guest)).toBe('T');
    // Members of its group are told as soon as it stands; a shell's `sleep` may still be on its way.
    expect(groupOf(started.guest).length).toBeGreaterThan(0);
    await until(() => groupOf(started.guest).every((pid) => stateOf(pid) === 'T'));
    const paused = await status(client);
    expect(paused).toMatchObject({ state: 'paused', pause: 'deadline' });
    expect(Number(paused['now'])).toBeGreaterThanOrEqual(started.deadlineMs);

    const before = ticks(started);
    expect(await client.ask(`extend ${bootMs() + far}`)).toMatch(/^ok state=paused/);
    expect(await client.ask(`resume ${bootMs() - 1}`)).toMatch(/^error the deadline/);
    expect((await status(client))['state']).toBe('paused');
    expect(stateOf(started.guest)).toBe('T');
    expect(ticks(started)).toBe(before);

    expect(await client.ask(`resume ${bootMs() + far}`)).toMatch(/^ok state=running/);
    await untilItTicks(started);
    expect(client.heard.filter((line) => line === 'paused deadline')).toHaveLength(1);
  });

  test('moves with extend, later only, and holds once nobody extends it', async () => {
    const started = await start(ticking, 500);
    const client = new RawClient(started.socket);
    let last = started.deadlineMs;
    await until(async () => {
      last = Math.max(last, bootMs() + 500);
      expect(await client.ask(`extend ${last}`)).toBe(`ok state=running deadline=${last}`);
      return bootMs() > started.deadlineMs + 200;
    });
    expect(await client.ask(`extend ${started.deadlineMs}`)).toBe(
      `ok state=running deadline=${last}`,
    );
    expect(await client.next()).toBe('paused deadline');
    expect(Number((await status(client))['now'])).toBeGreaterThanOrEqual(last);
  });

  test('a resumed guest is stopped again at its new deadline', async () => {
    const started = await start(ticking, 200);
    const client = new RawClient(started.socket);
    for (let round = 0; round < 3; round += 1) {
      expect(await client.next()).toBe('paused deadline');
      expect(await client.ask(`resume ${bootMs() + 100}`)).toMatch(/^ok state=running/);
    }
    expect(await client.next()).toBe('paused deadline');
  });

  test('is kept without any client', async () => {
    const started = await start(ticking, 400);
    const client = new RawClient(started.socket);
    await status(client);
    client.socket.destroy();
    await until(() => stateOf(started.guest) === 'T');
    expect((await status(new RawClient(started.socket)))['pause']).toBe('deadline');
  });

  test('is kept while clients flood, stall and never read', async () => {
    const started = await start(ticking, 800);
    const stalled = new RawClient(started.socket);
    stalled.send('stat');
    const greedy = new RawClient(started.socket);
    greedy.socket.pause();
    const garbage = Buffer.alloc(65_536, 'status\nbogus\n\u0000\n');
    let flooding = true;
    const flood = (): void => {
      while (flooding && !greedy.socket.destroyed && greedy.socket.write(garbage));
    };
    greedy.socket.on('drain', flood);
    flood();
    const endless = new RawClient(started.socket);
    endless.send('x'.repeat(100_000));
    const idle = Array.from({ length: 40 }, () => new RawClient(started.socket));
    await until(() => {
      if (greedy.closed) flooding = false;
      return stateOf(started.guest) === 'T';
    });
    flooding = false;
    expect((await status(new RawClient(started.socket)))['state']).toBe('paused');
    expect(endless.heard.at(-1) ?? '').not.toMatch(/^ok/);
    for (const client of [stalled, greedy, endless, ...idle]) client.socket.destroy();
  });

  test('a SIGCONT from somebody else does not count', async () => {
    const started = await start(ticking, 200);
    const client = new RawClient(started.socket);
    expect(await client.next()).toBe('paused deadline');
    for (let round = 0; round < 20; round += 1) {
      process.kill(started.guest, 'SIGCONT');
      await until(async () => (await status(client))['state'] === 'paused');
      expect(stateOf(started.guest)).toBe('T');
    }
    expect(client.heard.filter((line) => line === 'paused deadline')).toHaveLength(1);
    expect(await client.ask(`resume ${bootMs() + far}`)).toMatch(/^ok/);
    await untilItTicks(started);
  });
});

describe('pause and resume', () => {
  test('pause is answered when the guest stands', async () => {
    const started = await start(ticking);
    const client = new RawClient(started.socket);
    for (let round = 0; round < 20; round += 1) {
      expect(await client.ask('pause')).toMatch(/^ok state=paused/);
      expect(stateOf(started.guest)).toBe('T');
      expect(await client.ask(`resume ${bootMs() + far}`)).toMatch(/^ok state=running/);
    }
    expect(await client.ask('pause')).toMatch(/^ok state=paused/);
    expect(await client.ask('pause')).toMatch(/^ok state=paused/);
    expect(await status(client)).toMatchObject({ state: 'paused', pause: 'command' });
    expect(client.heard).not.toContain('paused deadline');
  });

  test('a guest that somebody else has stopped can be paused and resumed', async () => {
    const started = await start(ticking);
    const client = new RawClient(started.socket);
    process.kill(started.guest, 'SIGSTOP');
    await until(() => stateOf(started.guest) === 'T');
    expect(await client.ask('pause')).toMatch(/^ok state=paused/);
    expect(await client.ask(`resume ${bootMs() + far}`)).toMatch(/^ok/);
    await untilItTicks(started);
  });

  test('clients that race leave what the last command says', async () => {
    const started = await start(ticking);
    const one = new RawClient(started.socket);
    const two = new RawClient(started.socket);
    for (let round = 0; round < 50; round += 1) {
      const answers = await Promise.all([
        one.ask('pause'),
        two.ask(`resume ${bootMs() + far}`),
        new RawClient(started.socket).ask('pause'),
      ]);
      for (const answer of answers) {
        expect(answer).toMatch(/^(ok state=(running|paused)|error resumed by another command)/);
      }
    }
    expect(await two.ask('pause')).toMatch(/^ok state=paused/);
    expect(stateOf(started.guest)).toBe('T');
    expect(await one.ask(`resume ${bootMs() + far}`)).toMatch(/^ok state=running/);
    await untilItTicks(started);
  });

  test('answers come in the order of the commands', async () => {
    const started = await start(ticking);
    const client = new RawClient(started.socket);
    client.send(`status\npause\nstatus\nresume ${bootMs() + far}\nstatus\nkill\nstatus\n`);
    await until(() => client.heard.length === 8);
    const states = client.heard
      .filter((line) => line.startsWith('ok'))
      .map((line) => fields(line)['state']);
    expect(client.heard).toContain('exited signal 9');
    expect(states).toEqual([
      ...['running', 'paused', 'paused', 'running', 'running', 'exited', 'exited'],
    ]);
  });
});

describe('the end', () => {
  test('the guest dies with its guard, running or stopped', async () => {
    for (const withinMs of [far, 100]) {
      const started = await start(ticking, withinMs);
      if (withinMs !== far) await until(() => stateOf(started.guest) === 'T');
      process.kill(started.guard, 'SIGKILL');
      await until(() => stateOf(started.guest) === null);
    }
  });

  test('kill ends a paused guest and is answered when it is gone', async () => {
    const started = await start(ticking);
    const client = new RawClient(started.socket);
    await client.ask('pause');
    expect(await client.ask('kill')).toBe('ok state=exited exit=signal:9');
    expect(stateOf(started.guest)).toBeNull();
    expect(await client.next()).toBe('exited signal 9');
    expect(await client.ask('kill')).toBe('ok state=exited exit=signal:9');
    expect(await client.ask('pause')).toMatch(/^error the guest has exited/);
    expect(await client.ask(`resume ${bootMs() + far}`)).toMatch(/^error the guest has exited/);
  });

  test('how the guest ended is kept until it is released', async () => {
    const started = await start(['sh', '-c', 'echo last words; exit 7']);
    await until(async () => {
      const client = new RawClient(started.socket);
      const { state, exit } = await status(client);
      client.socket.destroy();
      return state === 'exited' && exit === '7';
    });
    expect(readFileSync(started.log, 'utf8')).toBe('last words\n');
    const client = new RawClient(started.socket);
    expect(await client.ask('release')).toBe('ok released');
    await until(() => stateOf(started.guard) === null);
    expect(existsSync(started.socket)).toBe(false);
  });

  test('a guest that runs is not released', async () => {
    const started = await start(ticking);
    const client = new RawClient(started.socket);
    expect(await client.ask('release')).toMatch(/^error the guest has not exited/);
    process.kill(started.guest, 'SIGTERM');
    expect(await client.next()).toBe('exited signal 15');
    expect(await client.ask('release')).toBe('ok released');
  });

  test('what a guest left behind in sessions of its own ends with it', async () => {
    const dir = tempFolder();
    const escape = `setsid sh -c 'echo $$ >${dir}/pid; exec sleep 1000' & while [ ! -s ${dir}/pid ]; do sleep 0.01; done; exit 3`;
    const started = await start(['sh', '-c', escape], far, dir);
    const client = new RawClient(started.socket);
    await until(async () => (await status(client))['state'] === 'exited');
    expect((await status(client))['exit']).toBe('3');
    expect(stateOf(Number(readFileSync(join(dir, 'pid'), 'utf8')))).toBeNull();
  });

  test('SIGTERM ends the guard and its guest', async () => {
    const started = await start(ticking);
    process.kill(started.guard, 'SIGTERM');
    await until(() => stateOf(started.guard) === null);
    expect(stateOf(started.guest)).toBeNull();
    expect(existsSync(started.socket)).toBe(false);
  });
});

test('what is no command is answered with an error and changes nothing', async () => {
  const started = await start(ticking);
  const client = new RawClient(started.socket);
  const bad = [
    '',
    'nonsense',
    'extend',
    'extend x',
    'extend -5',
    'extend 1 2',
    'resume',
    'kill now',
  ];
  bad.push(
    'status please',
    'extend 99999999999999999999',
    'extend 9007199254740992',
    'RESUME 1',
    '\u0000',
  );
  for (const line of bad) expect(await client.ask(line)).toMatch(/^error /);
  expect(await client.ask('status\r')).toMatch(/^ok /);
  expect(await status(client)).toMatchObject({
    state: 'running',
    deadline: String(started.deadlineMs),
  });
  const long = new RawClient(started.socket);
  expect(await long.ask('x'.repeat(300))).toBe('error the line is too long');
  await until(() => long.closed);
  expect(await status(client)).toMatchObject({ state: 'running' });
});
