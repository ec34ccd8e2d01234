// A scenario becomes the text of a file, so that a run that was found by a machine can be read, kept
// and run again by people: one line for each VM entry, step and check, without what is default.

import { Document, isCollection, isMap, isSeq } from 'yaml';
import { formatSize } from '../model/quantities.ts';
import { checkText, matching, timeText } from './check-text.ts';
import {
  defaultCluster,
  defaultDurationMs,
  defaultHost,
  defaultSeed,
  defaultVm,
  gibibyte,
  mebibyte,
  numberedHosts,
} from './defaults.ts';
import {
  type Check,
  productStrategies,
  type Scenario,
  type ScenarioCluster,
  type ScenarioDevice,
  type ScenarioHost,
  type ScenarioVm,
  type Step,
} from './scenario.ts';

/** What YAML is made of; `undefined` leaves a key out. */
type Plain = string | number | boolean | readonly Plain[] | { readonly [key: string]: PlainOrNot };
type PlainOrNot = Plain | undefined;

/**
 * Text that `readScenario` reads as the same scenario, with `comment` as lines at its top.
 *
 * Two things of a scenario that was not read from a file are put right by that: a partition gets
 * the group of the hosts that none of its groups has, and a check of VMs that no pattern stands for
 * becomes one check of each VM.
 */
export function writeScenario(scenario: Scenario, comment: readonly string[] = []): string {
  const { name, seed, pending, durationMs, cluster, strategies, vms, steps, expect } = scenario;
  const names = vms.map((vm) => vm.name);
  const top = without({
    name,
    seed: changed(seed, defaultSeed),
    pending: pending ?? undefined,
    duration: durationMs === defaultDurationMs(steps, expect) ? undefined : timeText(durationMs),
    cluster: writeCluster(cluster),
    strategies: unlessEmpty(changes(strategies, productStrategies)),
    vms: unlessEmpty(grouped(vms)),
    steps: unlessEmpty(steps.map(writeStep)),
    expect: unlessEmpty(expect.flatMap((check) => writeCheck(check, names))),
  });
  const document = new Document(top, { aliasDuplicateObjects: false });
  if (isMap(document.contents)) {
    for (const { value } of document.contents.items) {
      const lines = isSeq(value) ? value.items : [value];
      for (const line of lines) if (isCollection(line)) line.flow = true;
    }
  }
  const comments = comment.flatMap((text) => text.split(/\r?\n|\r/));
  const head = comments.map((text) => `# ${text}`.trimEnd());
  // Without a line width nothing is folded.
  return [...head, document.toString({ lineWidth: 0, flowCollectionPadding: false })].join('\n');
}

// --- cluster -------------------------------------------------------------------------------------

function writeCluster(cluster: ScenarioCluster): Plain {
  const { hosts, options, drift, loss, ...rest } = cluster;
  return without({
    hosts: same(hosts, numberedHosts(hosts.length)) ? hosts.length : hosts.map(writeHost),
    ...changes(rest, defaultCluster),
    options: unlessEmpty(mapped(options, timeText)),
    drift: unlessEmpty(mapped(drift, percentText)),
    loss: unlessEmpty(mapped(changes(loss, defaultCluster.loss), percentText)),
  });
}

function writeHost(host: ScenarioHost): Plain {
  const { kind, cpus, memoryBytes, diskBytes, site } = host;
  return without({
    name: host.name,
    kind: changed(kind, defaultHost.kind),
    cpus: changed(cpus, defaultHost.cpus),
    memoryMiB: memoryBytes === defaultHost.memoryBytes ? undefined : memoryBytes / mebibyte,
    diskGiB: diskBytes === defaultHost.diskBytes ? undefined : diskBytes / gibibyte,
    site: site ?? undefined,
    diskClass: host.diskClass,
    devices: host.devices?.map(writeDevice),
  });
}

function writeDevice({ name, class: deviceClass, diskBytes }: ScenarioDevice): Plain {
  const diskGiB = diskBytes === defaultHost.diskBytes ? undefined : diskBytes / gibibyte;
  return without({ name, class: deviceClass, diskGiB });
}

/** The point is moved in the digits, as the reader moves it back: nothing is rounded. */
function percentText(fraction: number): string {
  if (fraction === 0) return '0%';
  const [mantissa = '', exponent = ''] = Math.abs(fraction).toExponential().split('e');
  const digits = mantissa.replace('.', '');
  const whole = Number(exponent) + 3;
  const padded = digits.padStart(digits.length + Math.max(0, 1 - whole), '0').padEnd(whole, '0');
  const point = Math.max(1, whole);
  const decimals = padded.slice(point);
  const sign = fraction < 0 ? '-' : '';
  return `${sign}${padded.slice(0, point)}${decimals === '' ? '' : `.${decimals}`}%`;
}

// --- VMs -----------------------------------------------------------------------------------------

/** `x-1`, `x-2`, ... that follow each other and are alike become one entry with a count. */
function grouped(vms: readonly ScenarioVm[]): Plain[] {
  const entries: Plain[] = [];
  for (let index = 0; index < vms.length; ) {
    const vm = vms[index] as ScenarioVm;
    const base = vm.name.endsWith('-1') ? vm.name.slice(0, -2) : null;
    let count = 1;
    const isNext = (next: ScenarioVm | undefined) =>
      next?.name === `${base}-${count + 1}` && same({ ...next, name: vm.name }, vm);
    while (base !== null && base !== '' && isNext(vms[index + count])) count += 1;
    entries.push(count > 1 ? writeVm(vm, base ?? vm.name, count) : writeVm(vm, vm.name, 1));
    index += count;
  }
  return entries;
}

function writeVm(vm: ScenarioVm, name: string, count: number): Plain {
  const { memoryBytes, disksBytes, policy, objects, after, powered } = vm;
  return without({
    name,
    count: changed(count, 1),
    on: vm.on ?? undefined,
    cpus: changed(vm.cpus, defaultVm.cpus),
    memoryMiB: memoryBytes === defaultVm.memoryBytes ? undefined : memoryBytes / mebibyte,
    disks: same(disksBytes, defaultVm.disksBytes) ? undefined : disksBytes.map(formatSize),
    policy: unlessEmpty(changes(policy, defaultVm.policy)),
    components: vm.components ?? undefined,
    objects: unlessEmpty(objects),
    required: vm.required ?? undefined,
    storage: changed(vm.storage, defaultVm.storage),
    protected: changed(vm.protected, defaultVm.protected),
    priority: changed(vm.priority, defaultVm.priority),
    after: unlessEmpty(after),
    separate: vm.separate ?? undefined,
    readyWhen: vm.readyWhen ?? undefined,
    affinity: vm.affinity ?? undefined,
    isolationResponse: vm.isolationResponse ?? undefined,
    whenHung: vm.whenHung ?? undefined,
    powered: powered === defaultVm.powered ? undefined : powered ? 'on' : 'off',
  });
}

// --- steps and checks ----------------------------------------------------------------------------

function writeStep(step: Step): Plain {
  const at = timeText(step.atMs);
  switch (step.kind) {
    case 'partition':
      return { at, partition: step.network, groups: step.groups };
    case 'block':
      return { at, block: step.network, from: step.from, to: step.to };
    case 'isolate':
      return { at, isolate: step.host, network: step.network };
    case 'heal':
      return { at, heal: step.network === 'both' ? 'all' : step.network };
    case 'freeze':
      return { at, freeze: step.host, for: timeText(step.forMs) };
    case 'slowDisk':
      return without({ at, slowDisk: step.host, device: step.device, by: timeText(step.byMs) });
    case 'flakyDisk':
      return without({
        at,
        flakyDisk: step.host,
        device: step.device,
        errors: percentText(step.errorShare),
      });
    case 'corruptDisk':
      return without({
        at,
        corruptDisk: step.host,
        device: step.device,
        blocks: changed(step.blocks, 1),
      });
    case 'failDisk':
    case 'repairDisk':
    case 'fillDisk':
    case 'freeDisk':
    case 'pullDisk':
    case 'plugDisk':
      return without({ at, [step.kind]: step.host, device: step.device });
    case 'killGuest':
    case 'hangGuest':
      return { at, [step.kind]: step.vm };
    case 'powerOff':
    case 'powerOn':
      return without({ at, [step.kind]: step.vm, via: step.via ?? undefined });
    case 'setPolicy':
      return without({
        at,
        setPolicy: step.vm,
        disk: changed(step.disk, 'disk0'),
        policy: changes(step.policy, defaultVm.policy),
        via: step.via ?? undefined,
      });
    case 'migrate':
      return { at, migrate: step.vm, to: step.to };
    case 'maintenance':
      return { at, maintenance: step.host, on: step.on };
    default:
      return { at, [step.kind]: step.host };
  }
}

function writeCheck(check: Check, names: readonly string[]): Plain[] {
  switch (check.kind) {
    case 'masters':
      return [{ at: timeText(check.atMs), masters: check.groups }];
    case 'counter': {
      const { counter, min, max } = check;
      return [without({ counter, min: min ?? undefined, max: max ?? undefined })];
    }
    default:
      return patternsOf(check, names).map((vm) => {
        switch (check.kind) {
          case 'state': {
            const { state, on, for: reason } = check;
            const more = { on: on ?? undefined, for: reason ?? undefined };
            return without({ at: timeText(check.atMs), vm, state, ...more });
          }
          case 'never': {
            const { fromMs, toMs, state } = check;
            return { from: timeText(fromMs), to: timeText(toMs), vm, never: state };
          }
          case 'protected':
            return { at: timeText(check.atMs), protected: vm };
          case 'restartedWithin':
            return { vm, restartedWithin: timeText(check.withinMs) };
        }
      });
  }
}

/** The pattern that the check was read with, or another one for its VMs, or each of their names. */
function patternsOf(
  check: Extract<Check, { vms: readonly string[] }>,
  names: readonly string[],
): readonly string[] {
  const { vms, text } = check;
  const isRight = (pattern: string) => same(matching(pattern, names), vms);
  const written = text.split(' ').find((word) => checkText(check, word) === text);
  if (written !== undefined && isRight(written)) return [written];
  const [first = ''] = vms;
  if (vms.length < 2) return vms;
  let shared = first.length;
  while (!vms.every((name) => name.startsWith(first.slice(0, shared)))) shared -= 1;
  const pattern = `${first.slice(0, shared)}*`;
  return isRight(pattern) ? [pattern] : vms;
}

// --- leaving out ---------------------------------------------------------------------------------

/** Equality of what JSON can say, keys in the same order. */
function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function changed<T extends Plain>(value: T, standard: T): T | undefined {
  return value === standard ? undefined : value;
}

/** The values of `all` that are not those of `standard`. */
function changes<T extends object>(all: T, standard: { readonly [Key in keyof T]: unknown }) {
  const pairs = Object.entries(all).filter(([key, value]) => value !== standard[key as keyof T]);
  return Object.fromEntries(pairs);
}

function mapped(all: Readonly<Record<string, number>>, text: (value: number) => string) {
  return Object.fromEntries(Object.entries(all).map(([key, value]) => [key, text(value)]));
}

function unlessEmpty<T extends object>(all: T): T | undefined {
  return Object.keys(all).length === 0 ? undefined : all;
}

function without(all: Readonly<Record<string, PlainOrNot>>): Plain {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}
