// `holdfast lab up|status|exec`: a lab that stands until `lab down`.

import { spawnSync } from 'node:child_process';
import type { Command } from '@commander-js/extra-typings';
import { createClient } from '../../api/client.ts';
import { enter, isAtWork, type LabRecord, labs, remove } from '../../lab/labs.ts';
import { inHost } from '../../lab/namespaces.ts';
import { holdfast } from '../../lab/program.ts';
import { bringUp, contextOf, socketOf } from '../../lab/stand.ts';
import { wholeNumber } from '../arguments.ts';
import type { OpenSession } from '../command.ts';
import { AlreadySaid, UsageError } from '../failure.ts';
import { interruption } from '../interruption.ts';
import { startReaper } from '../reaper.ts';
import { readLabScenario } from './lab-scenario.ts';

export function addUp(command: Command, open: OpenSession): void {
  command
    .command('up')
    .description("bring up a scenario's cluster and VMs, and leave them standing")
    .argument('<file>', 'the scenario; its steps and expectations are left alone')
    .option(
      '--guest-interval <ms>',
      'between two writes of a guest; 0: no pause',
      wholeNumber(0, 3_600_000),
    )
    .action(async (file, options, called) => {
      const session = open(called);
      const { io } = session;
      const scenario = await readLabScenario(io, file);
      const hosts = scenario.cluster.hosts.map(({ name }) => name);
      const lab = enter({ kind: 'up', scenario: scenario.name, hosts });
      const reaper = startReaper(holdfast, ['lab', 'down', lab.id]);
      const stop = interruption('The lab');
      const say = (text: string): void => io.err(`${text}\n`);
      const guestIntervalMs = options.guestInterval ?? null;
      const work = bringUp({ lab, scenario, guestIntervalMs, signal: stop.signal, say });
      try {
        await Promise.race([work, stop.promise]);
      } catch (error) {
        stop.abort(new Error('the lab ends'));
        await work.catch(() => undefined);
        await remove(lab);
        throw error;
      } finally {
        stop.release();
        await reaper.dismiss();
      }
      session.print({ ...lab, context: contextOf(lab) }, () => explain(lab));
    });
}

function explain(lab: LabRecord): string {
  const host = lab.hosts[0] ?? 'h1';
  return `Lab ${lab.id} stands. Talk to it with:
  holdfast --context ${contextOf(lab)} cluster status
Do something in the place of a host, such as cutting it off:
  holdfast lab exec ${host} -- ip link set storage0 down
  holdfast lab exec ${host} -- holdfast vm list
Look at it, and end it, with:
  holdfast lab status
  holdfast lab down
`;
}

export function addStatus(command: Command, open: OpenSession): void {
  command
    .command('status')
    .description('which labs there are on this machine, and how they are')
    .action(async (_options, called) => {
      const session = open(called);
      const found = await Promise.all(
        labs().map(async (lab) => ({ ...lab, ...(await look(lab)) })),
      );
      session.print(found, () =>
        found.length === 0 ? 'There is no lab.\n' : found.map(text).join(''),
      );
    });
}

interface Look {
  /** `left`: its command was killed; `lab down` removes it. */
  readonly state: 'running' | 'standing' | 'left';
  readonly answering: readonly string[];
  readonly vms: readonly { name: string; power: string; host: string | null }[];
}

async function look(lab: LabRecord): Promise<Look> {
  const state = lab.kind === 'up' ? 'standing' : isAtWork(lab) ? 'running' : 'left';
  const asked = lab.hosts.map(async (host) => {
    const client = createClient([socketOf(lab, host)], { questionTimeoutMs: 1000 });
    return { host, vms: await client.vms() };
  });
  const answers = (await Promise.allSettled(asked)).flatMap((one) =>
    one.status === 'fulfilled' ? [one.value] : [],
  );
  const vms = answers[0]?.vms.map(({ name, power, host }) => ({ name, power, host })) ?? [];
  return { state, answering: answers.map(({ host }) => host), vms };
}

function text({ id, scenario, folder, hosts, state, answering, vms }: LabRecord & Look): string {
  const lines = [
    `${id}  ${state}  ${scenario}`,
    `  folder ${folder}`,
    `  hosts ${hosts.map((host) => (answering.includes(host) ? host : `${host} (silent)`)).join(', ')}`,
    ...vms.map(
      ({ name, power, host }) => `  ${name} ${power}${host === null ? '' : ` on ${host}`}`,
    ),
  ];
  return `${lines.join('\n')}\n`;
}

export function addExec(command: Command): void {
  command
    .command('exec')
    .description('run a command in the place of a host: in its network, with its daemon to talk to')
    .argument('<host>', 'its name, such as h1')
    .argument('<command...>', 'behind `--`; `holdfast` asks the daemon of this host')
    .option('--lab <lab>', 'where several stand: which')
    .action((host, words, options) => {
      const lab = theOne(options.lab);
      if (!lab.hosts.includes(host)) {
        throw new UsageError(`The lab has no host ${host}.`, `It has ${lab.hosts.join(', ')}.`);
      }
      const [first = '', ...rest] = words;
      const inner = first === 'holdfast' ? [process.execPath, holdfast, ...rest] : words;
      const [program = '', ...args] = [...inHost(lab.id, host), ...inner];
      const context = `${lab.folder}/${host}/context.yaml`;
      const { status, error } = spawnSync(program, args, {
        stdio: 'inherit',
        env: { ...process.env, HOLDFAST_CONTEXT: context },
      });
      if (error !== undefined) throw error;
      if (status !== 0) throw new AlreadySaid();
    });
}

function theOne(id: string | undefined): LabRecord {
  const found = labs().filter((lab) => (id === undefined ? lab.kind === 'up' : lab.id === id));
  const [lab, ...others] = found;
  if (lab === undefined) throw new UsageError('No such lab stands.', 'See `holdfast lab status`.');
  if (others.length > 0) throw new UsageError('Several labs stand.', 'Name one with --lab.');
  return lab;
}
