// Replies as tables for people. Plain columns without frames: they survive `grep` and `awk`.

import Table from 'cli-table3';
import type {
  ClusterReply,
  EventReply,
  HostReply,
  VmDetailReply,
  VmReply,
} from '../api/schemas.ts';
import type { Io } from './io.ts';

type Cell = string | number;

export function columns(
  io: Io,
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
): string {
  const table = new Table({
    chars: frameless,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    head: head.map((text) => io.style('bold', text)),
  });
  table.push(...rows.map((row) => row.map(String)));
  return `${trimmed(table.toString())}\n`;
}

/** Label and value, one pair a line. */
export function pairs(io: Io, rows: readonly (readonly [string, Cell])[]): string {
  const width = Math.max(...rows.map(([label]) => label.length)) + 2;
  return rows
    .map(([label, value]) => `${io.style('bold', label.padEnd(width))}${value}\n`)
    .join('');
}

export function hostTable(io: Io, hosts: readonly HostReply[]): string {
  if (hosts.length === 0) return 'No host is known.\n';
  const hasSites = hosts.some((host) => host.site !== null);
  return columns(
    io,
    [
      'NAME',
      ...(hasSites ? ['SITE'] : []),
      'STATE',
      'STORAGE',
      'VMS',
      'CPUS',
      'MEMORY',
      'DISK FREE',
      'DISK TOTAL',
      'PROBLEM',
    ],
    hosts.map((host) => [
      host.name,
      ...(hasSites ? [host.site ?? '-'] : []),
      stateText(io, host),
      host.storage === 'reachable' ? host.storage : io.style('red', host.storage),
      host.vms,
      host.cpus,
      roundSize(host.memoryBytes),
      roundSize(host.diskFreeBytes),
      roundSize(host.diskTotalBytes),
      problemText(io, host),
    ]),
  );
}

export function hostText(io: Io, host: HostReply): string {
  const overview = pairs(io, [
    ['Name', host.name],
    ...(host.site === null ? [] : [['Site', host.site] as const]),
    ['State', stateText(io, host)],
    ['Storage', host.storage === 'reachable' ? host.storage : io.style('red', host.storage)],
    ['VMs', host.vms],
    ['CPUs', host.cpus],
    ['Memory', roundSize(host.memoryBytes)],
  ]);
  if (host.devices.length === 0) return `${overview}\nNothing is known of its devices.\n`;
  const devices = columns(
    io,
    ['DEVICE', 'CLASS', 'HEALTH', 'FREE', 'TOTAL', 'COMPONENTS', 'LATENCY', 'PROBLEM'],
    host.devices.map((device) => [
      device.name,
      device.class,
      device.problem === null ? io.style('green', 'ok') : io.style('red', 'failed'),
      device.problem === null ? roundSize(device.freeBytes) : '-',
      device.problem === null ? roundSize(device.totalBytes) : '-',
      device.components,
      device.latencyMs === null ? '-' : `${device.latencyMs.toFixed(1)} ms`,
      device.problem ?? fillText(io, device.fill, 'it'),
    ]),
  );
  return `${overview}\n${devices}`;
}

export function vmTable(io: Io, vms: readonly VmReply[]): string {
  if (vms.length === 0) return 'There are no VMs. `holdfast vm create` makes one.\n';
  return columns(
    io,
    ['NAME', 'POWER', 'HOST', 'READY', 'PROTECTION', 'MEMORY', 'DISKS', 'NOTE'],
    vms.map((vm) => [
      vm.name,
      powerText(io, vm),
      vm.host ?? '-',
      vm.ready ? 'yes' : 'no',
      protectionText(io, vm),
      roundSize(vm.spec.memoryBytes),
      vm.spec.disks
        .map((disk) => ('path' in disk ? disk.path : roundSize(disk.sizeBytes)))
        .join(' + '),
      vm.note ?? '',
    ]),
  );
}

export function clusterText(io: Io, cluster: ClusterReply): string {
  const { vms } = cluster;
  const overview = pairs(io, [
    ['Cluster', cluster.cluster],
    ['Answered by', cluster.answeredBy],
    ['Master', cluster.master ?? io.style('red', 'none')],
    ['Accelerator', cluster.accelerator],
    ['VMs', `${vms.total}: ${vms.running} running, ${vms.protected} protected`],
  ]);
  const waiting =
    cluster.waiting.length === 0
      ? ''
      : `\n${columns(
          io,
          ['WAITING', 'FOR', 'BECAUSE'],
          cluster.waiting.map((vm) => [vm.name, vm.reason, vm.text]),
        )}`;
  return `${overview}\n${hostTable(io, cluster.hosts)}${waiting}`;
}

function rules({
  after = [],
  readyWhen,
  separate,
  affinity,
  isolationResponse,
  whenHung,
}: VmDetailReply['spec']): [string, string][] {
  const rows: [string, string | undefined][] = [
    ['Starts after', after.length === 0 ? undefined : after.join(', ')],
    ['Ready when', readyWhen],
    ['Apart from', separate === undefined ? undefined : `VMs with the label ${separate}`],
    [affinity?.required === true ? 'Runs only on' : 'Runs best on', affinity?.hosts.join(', ')],
    ['Cut off', isolationResponse],
    ['Hung', whenHung],
  ];
  return rows.flatMap(([label, value]) => (value === undefined ? [] : [[label, value]]));
}

export function vmText(io: Io, vm: VmDetailReply): string {
  const { spec } = vm;
  const overview = pairs(io, [
    ['Name', vm.name],
    ['Id', vm.id],
    ['Power', powerText(io, vm)],
    ['Host', vm.host ?? '-'],
    ['Ready', vm.ready ? 'yes' : 'no'],
    ['Protection', protectionText(io, vm)],
    ['Accessible', vm.accessible ? 'yes' : io.style('red', 'no')],
    ['Epoch', vm.epoch],
    ['CPUs', spec.cpus],
    ['Memory', roundSize(spec.memoryBytes)],
    ['Boot', spec.boot],
    ['Priority', spec.priority],
    ...rules(spec),
    ...(vm.detached.length === 0
      ? []
      : [['Detached', io.style('yellow', vm.detached.join(', '))] as const]),
    ...(vm.note === null ? [] : [['Note', vm.note] as const]),
    ...(vm.restart === null ? [] : restartRows(vm.restart)),
  ]);
  const objects = columns(
    io,
    ['OBJECT', 'SIZE', 'TOLERATES', 'VOTERS', 'COPIES', 'STATE'],
    vm.objects.map((object) => [
      object.kind === 'namespace' ? 'namespace' : object.name,
      object.kind === 'namespace' ? '-' : roundSize(object.sizeBytes),
      `${object.policy.failuresToTolerate} failures`,
      object.voters.join(' '),
      object.components.map((part) => `${part.host}:${part.state}`).join(' ') || '-',
      object.accessible.accessible ? 'accessible' : io.style('red', object.accessible.text),
    ]),
  );
  const onPaths = spec.disks.flatMap((disk) =>
    'path' in disk ? [[disk.name, disk.path, disk.format]] : [],
  );
  if (onPaths.length === 0) return `${overview}\n${objects}`;
  return `${overview}\n${objects}\n${columns(io, ['DISK', 'PATH', 'FORMAT'], onPaths)}`;
}

export function eventLine(io: Io, event: EventReply): string {
  const time = new Date(event.at).toISOString().slice(0, 23).replace('T', ' ');
  return `${time}  ${event.host.padEnd(10)}  ${io.style('cyan', event.type.padEnd(20))}  ${event.text}\n`;
}

/** Three digits at most, for people: 96 MiB, 1.5 TiB. Never to be parsed. */
export function roundSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 ? Math.round(value) : Math.round(value * 10) / 10} ${units[unit]}`;
}

function problemText(io: Io, host: HostReply): string {
  if (host.problem !== null) return host.problem;
  const failed = host.devices.find(({ problem }) => problem !== null);
  if (failed !== undefined) return io.style('red', `device ${failed.name}: ${failed.problem}`);
  return fillText(io, host.diskFill, 'its disk');
}

function fillText(io: Io, fill: HostReply['diskFill'], what: string): string {
  if (fill === 'full') return io.style('red', `${what} is full for new objects`);
  return fill === 'nearFull' ? io.style('yellow', `${what} gets full`) : '';
}

function stateText(io: Io, host: HostReply): string {
  if (host.state === 'master') return io.style('green', host.state);
  return host.state === 'connectedToMaster' ? host.state : io.style('yellow', host.state);
}

function powerText(io: Io, vm: VmReply): string {
  if (vm.power === 'running') return io.style('green', vm.power);
  return vm.power === 'off' ? vm.power : io.style('yellow', vm.power);
}

function protectionText(io: Io, { protection, note }: VmReply): string {
  if (protection.status === 'protected') return io.style('green', 'protected');
  const { status, reason } = protection;
  const text = reason === note ? status : `${status}: ${reason}`; // the note is told beside it
  return status === 'pending' ? io.style('yellow', text) : text;
}

/** A line for what was found, and one for each thing that was seen. */
function restartRows(proof: NonNullable<VmDetailReply['restart']>): [string, string][] {
  const { at, master, term, finding, evidence } = proof;
  const time = new Date(at).toISOString().slice(0, 19).replace('T', ' ');
  const found = `${time} by ${master} in term ${term}: ${finding}`;
  return [['Restarted', found], ...evidence.map((seen): [string, string] => ['', seen])];
}

const trimmed = (text: string): string => text.replace(/[ \t]+$/gm, '');

const frameless = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '',
};
