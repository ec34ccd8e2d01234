// What befalls the lab: each step of a scenario is one call of `apply`, which resolves when it has been done. What
// a user asks for is not waited for, as no scenario would.

import { setTimeout as delay } from 'node:timers/promises';
import type { StoragePolicy } from '../model/policy.ts';
import type { StepKind } from '../scenario/scenario.ts';
import { stepText } from '../scenario/step-text.ts';
import type { LabCluster } from './cluster.ts';
import type { LabHost } from './host.ts';
import { signal as send } from './processes.ts';

export interface World {
  readonly cluster: LabCluster;
  readonly signal: AbortSignal;
  /** The id of a VM. */
  idOf(vm: string): string;
  tell(text: string): void;
}

export async function apply(step: StepKind, world: World): Promise<void> {
  const { cluster } = world;
  world.tell(stepText(step));
  switch (step.kind) {
    case 'partition':
      cluster.cuts.partition(step.network, step.groups);
      return cluster.filter();
    case 'block':
      cluster.cuts.block(step.network, step.from, step.to);
      return cluster.filter();
    case 'isolate':
      cluster.cuts.isolate(step.network, step.host);
      return cluster.filter();
    case 'heal':
      cluster.cuts.heal(step.network);
      return cluster.filter();
    case 'crash':
      return cluster.host(step.host).crash();
    case 'boot':
      await cluster.host(step.host).powerOn();
      return start(cluster.host(step.host), world);
    case 'stopDaemon':
      return cluster.host(step.host).stopDaemon();
    case 'startDaemon':
      return start(cluster.host(step.host), world);
    case 'freeze':
      return freeze(cluster.host(step.host), step.forMs, world);
    case 'killGuest':
      for (const { pid } of guestsOf(step.vm, world)) send(pid, 'SIGKILL');
      return;
    case 'hangGuest':
      // The process-guest takes this as the order to fall silent.
      for (const { pid } of guestsOf(step.vm, world)) send(pid, 'SIGUSR1');
      return;
    case 'fillDisk':
      return cluster.host(step.host).device(step.device).fill();
    case 'freeDisk':
      return cluster.host(step.host).device(step.device).free();
    case 'slowDisk':
      return cluster.host(step.host).device(step.device).slow(step.byMs);
    case 'failDisk':
      return cluster.host(step.host).device(step.device).fail();
    case 'pullDisk':
      return cluster.host(step.host).device(step.device).pull();
    case 'plugDisk':
      return cluster.host(step.host).device(step.device).plug();
    case 'repairDisk':
      return repair(cluster.host(step.host), step.device, world);
    case 'powerOff':
    case 'powerOn':
    case 'setPolicy':
      return asUser(step, world);
    default:
      throw new Error(`${step.kind} is for the simulator only`);
  }
}

function start(host: LabHost, { cluster, tell }: World): void {
  if (host.daemon !== null) tell(`the daemon of ${host.name} runs already`);
  else cluster.startDaemon(host);
}

/** A main device is replaced while the daemon does not run. */
async function repair(host: LabHost, device: string | undefined, world: World): Promise<void> {
  if (device !== undefined) return host.replaceDevice(device);
  host.stopDaemon();
  await host.device().install();
  if (host.isPowered) start(host, world);
}

function freeze(host: LabHost, forMs: number, { signal, tell }: World): void {
  const frozen = host.daemon;
  host.freeze();
  const thaw = (): void => {
    if (host.daemon !== frozen || !host.isFrozen) return;
    tell(`the daemon of ${host.name} goes on`);
    host.thaw();
  };
  delay(forMs, undefined, { signal }).then(thaw, () => undefined);
}

export function guestsOf(vm: string, { cluster, idOf }: World): { pid: number; host: LabHost }[] {
  return cluster.hosts.flatMap((host) => {
    const pid = host.guestOf(idOf(vm));
    return pid === null ? [] : [{ pid, host }];
  });
}

type UserStep = Extract<StepKind, { readonly via: string | null }>;

function asUser(step: UserStep, world: World): void {
  const { cluster, tell } = world;
  const client = step.via === null ? cluster.client : cluster.host(step.via).client;
  const ask = async (): Promise<string> => {
    if (step.kind === 'powerOn') return (await client.startVm(step.vm)).power;
    if (step.kind === 'powerOff') return (await client.stopVm(step.vm)).power;
    const name = nameOf(step.policy);
    const known = await client.policies();
    if (!known.some((policy) => policy.name === name)) {
      await client.createPolicy({ name, ...step.policy });
    }
    const { problems } = await client.setDiskPolicy(step.vm, step.disk, name);
    return problems.length === 0 ? 'it complies' : problems.join('; ');
  };
  ask().then(
    (seen) => tell(`the user of ${step.vm} sees: ${seen}`),
    (error: unknown) =>
      tell(
        `the user of ${step.vm} is told: ${error instanceof Error ? error.message : String(error)}`,
      ),
  );
}

/** Users give disks policies by name. */
function nameOf({ failuresToTolerate, stripes, thick, deviceClass }: StoragePolicy): string {
  const words = [`lab-f${failuresToTolerate}-s${stripes}`];
  if (thick === true) words.push('thick');
  if (deviceClass !== undefined) words.push(deviceClass);
  return words.join('-');
}
