// A step as people read it in the story of a run.

import { policyText } from '../model/policy.ts';
import type { Network, NetworkChoice, Step, StepKind } from './scenario.ts';

export function stepText(step: StepKind | Step): string {
  const on = (network: NetworkChoice) =>
    network === 'both' ? 'both networks' : `the ${name(network)} network`;
  switch (step.kind) {
    case 'partition':
      return `${on(step.network)} ${verb(step.network, 'split')}: ${step.groups.map((group) => group.join(' ')).join(' | ')}`;
    case 'block':
      return `${on(step.network)} ${verb(step.network, 'carry')} nothing from ${step.from} to ${step.to}`;
    case 'isolate':
      return `${step.host} is cut off from ${on(step.network)}`;
    case 'heal':
      return `${on(step.network)} ${step.network === 'both' ? 'are' : 'is'} whole again`;
    case 'crash':
      return `${step.host} loses its power`;
    case 'boot':
      return `${step.host} has power again`;
    case 'stopDaemon':
      return `the daemon of ${step.host} is killed`;
    case 'startDaemon':
      return `the daemon of ${step.host} is started`;
    case 'freeze':
      return `the daemon of ${step.host} stands still for ${step.forMs / 1000} s`;
    case 'killGuest':
      return `the guest of ${step.vm} is killed`;
    case 'hangGuest':
      return `the guest of ${step.vm} hangs`;
    case 'powerOff':
      return `a user switches ${step.vm} off${step.via === null ? '' : ` at ${step.via}`}`;
    case 'powerOn':
      return `a user switches ${step.vm} on${step.via === null ? '' : ` at ${step.via}`}`;
    case 'setPolicy':
      return `a user gives ${step.vm}/${step.disk} the policy ${policyText(step.policy)}`;
    case 'failDisk':
      return `${disk(step)} fails`;
    case 'repairDisk':
      return step.device === undefined
        ? `${step.host} gets an empty disk`
        : `an empty disk is put in the place of ${disk(step)}`;
    case 'slowDisk':
      return step.byMs === 0
        ? `${disk(step)} is fast again`
        : `${disk(step)} is slower by ${step.byMs} ms`;
    case 'flakyDisk':
      return step.errorShare === 0
        ? `${disk(step)} makes no errors any more`
        : `${disk(step)} fails ${step.errorShare * 100}% of what it is asked for`;
    case 'corruptDisk':
      return `${disk(step)} rots`;
    case 'fillDisk':
      return `${disk(step)} is full`;
    case 'freeDisk':
      return `${disk(step)} has room again`;
    case 'pullDisk':
      return `${disk(step)} is taken out`;
    case 'plugDisk':
      return `${disk(step)} is put back`;
    case 'migrate':
      return `a user moves ${step.vm} to ${step.to}`;
    case 'maintenance':
      return `${step.host} ${step.on ? 'goes into' : 'leaves'} maintenance`;
  }
}

function disk(step: { readonly host: string; readonly device?: string }): string {
  return step.device === undefined
    ? `the disk of ${step.host}`
    : `device ${step.device} of ${step.host}`;
}

function verb(network: string, base: 'split' | 'carry'): string {
  if (network === 'both') return base;
  return base === 'split' ? 'splits' : 'carries';
}

function name(network: Network): string {
  return network === 'ha' ? 'HA' : network;
}
