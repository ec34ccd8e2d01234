// The command line of QEMU for one guest: a pure function, so that a test can read all of it.
//
// What is chosen here and why:
// - I/O waits instead of failing. When the host's NBD server is away (the daemon restarts, the lease
//   lapsed, no majority) QEMU holds the guest's requests back for as long as `reconnect-delay` says:
//   a year, since a guest that sees an I/O error turns its file system read-only, and whether the VM
//   shall go on elsewhere is HA's decision, not a timer's. An error that the server itself reports
//   stops the guest (`rerror`/`werror`) rather than reaching it.
// - A disk at a path is opened with O_DIRECT, so that no page cache keeps back a write that another host
//   should see, and used by threads, which stand still with the process. QEMU's own locks are off: on
//   NFS they outlive their host, and a guest that stands still keeps them, so they would hinder just
//   the restart that the VM's lock allows (docs/decisions/0012-disks-on-shared-storage.md). Its format
//   is named, never guessed.
// - Nothing of the user's or the distribution's configuration: what runs is what stands here.
// - The guest can start no process (`spawn=deny`): SIGSTOP to QEMU stops all of the guest.
// - The process can be recognised from outside: `-name guest=NAME`, `-uuid`, the run directory.

import { basename, dirname } from 'node:path';
import { type VmId, vmId } from '../model/ids.ts';
import type { PathDisk } from '../model/path-disk.ts';
import type { GuestDisk, GuestLaunch, ServedDisk } from '../ports/guests.ts';
import type { PathKind } from './path-kind.ts';
import { type RunFiles, runFiles } from './run-files.ts';

export interface BootImage {
  readonly kernel: string;
  readonly initrd?: string;
  /** The kernel's command line. */
  readonly append?: string;
}

export type Accelerator = 'kvm' | 'tcg';

/** The name of the virtio port on which a guest reports. */
const heartbeatPort = 'org.holdfast.heartbeat';
/** Where the QEMU guest agent looks. */
const agentPort = 'org.qemu.guest_agent.0';

/** Both are called as their character devices are; QEMU tells of a port that has an id who opens and closes it. */
export const reportPorts = ['heartbeat', 'agent'] as const;
export const portId = (port: (typeof reportPorts)[number]): string => `port-${port}`;

const reconnectDelaySeconds = 365 * 24 * 60 * 60;
const mebibyte = 1024 * 1024;

/** The arguments that decide whether an accelerator works; the probe uses the very same. */
export function acceleratorArguments(accelerator: Accelerator): string[] {
  return accelerator === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : // `max`: many distributions do not run on QEMU's default processor. 32 MiB of translated code
      // is enough for a kernel and its services, and far below the default of up to 1 GiB.
      ['-accel', 'tcg,thread=multi,tb-size=32', '-cpu', 'max'];
}

/** QEMU reads a comma as the end of a value; a doubled one stands for itself. */
function escaped(value: string): string {
  return value.replaceAll(',', ',,');
}

/** The argument that names this guest's QMP socket: it occurs in no other process. */
export function qmpChardev(files: RunFiles): string {
  return `socket,id=qmp,path=${escaped(files.qmpSocket)},server=on,wait=off`;
}

/** The VM of which this is the QMP argument, with files in this run directory; null: it is none. */
export function vmOfQmpChardev(argument: string, runDir: string): VmId | null {
  const [, path = ''] = /^socket,id=qmp,path=(.*),server=on,wait=off$/.exec(argument) ?? [];
  const vm = vmId(basename(dirname(path)));
  const { qmpSocket } = runFiles(runDir, vm);
  return path !== '' && escaped(qmpSocket) === path ? vm : null;
}

/** The UUID of a VM whose id is 128 bits in hexadecimal, else null. */
export function uuidOf(vm: string): string | null {
  const hex = vm.replaceAll('-', '').toLowerCase();
  if (!/^[0-9a-f]{32}$/.test(hex)) return null;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** Named as the VM's disks are, not counted: a guest may be started without one of them. */
export function blockNode({ name, socket }: ServedDisk): Readonly<Record<string, unknown>> {
  return {
    driver: 'nbd',
    'node-name': name,
    server: { type: 'unix', path: socket },
    'reconnect-delay': reconnectDelaySeconds,
    discard: 'unmap',
  };
}

function pathNode({ name, path, format }: PathDisk, kind: PathKind): object {
  const driver = kind === 'device' ? 'host_device' : 'file';
  const both = { cache: { direct: true }, discard: 'unmap' };
  const file = { driver, filename: path, locking: 'off', aio: 'threads', ...both };
  return { driver: format, 'node-name': name, ...both, file };
}

export const deviceId = (disk: string): string => `virtio-${disk}`;
/** The root port for a disk that is plugged in later: nothing can be plugged into q35's own bus. */
export const slotId = (disk: string): string => `slot-${disk}`;

/** As QMP wants it: what is `true` there is `on` on the command line. */
export function diskDevice(disk: string): Readonly<Record<string, string | true>> {
  return {
    driver: 'virtio-blk-pci',
    id: deviceId(disk),
    drive: disk,
    serial: disk,
    'write-cache': 'on',
    discard: true,
    'write-zeroes': true,
    rerror: 'stop',
    werror: 'stop',
  };
}

function diskArguments(
  disk: GuestDisk,
  index: number,
  boots: boolean,
  kinds: ReadonlyMap<string, PathKind>,
): string[] {
  const node = 'path' in disk ? pathNode(disk, kinds.get(disk.path) ?? 'file') : blockNode(disk);
  const { driver, ...properties } = diskDevice(disk.name);
  const device = [
    driver,
    ...Object.entries(properties).map(([key, value]) => `${key}=${value === true ? 'on' : value}`),
    // With `-kernel` the first place is taken.
    ...(boots ? [`bootindex=${index}`] : []),
  ];
  return ['-blockdev', JSON.stringify(node), '-device', device.join(',')];
}

function slotArguments(disk: string, index: number): string[] {
  const number = index + 1;
  return ['-device', `pcie-root-port,id=${slotId(disk)},chassis=${number},slot=${number}`];
}

/** The arguments of QEMU, without the program's name. `image` is null to boot from the first disk; `kinds` says
 * what lies at the paths of disks. */
export function commandLine(
  launch: GuestLaunch,
  files: RunFiles,
  accelerator: Accelerator,
  image: BootImage | null,
  kinds: ReadonlyMap<string, PathKind> = new Map(),
): string[] {
  const uuid = uuidOf(launch.vm);
  const heartbeat = `socket,id=heartbeat,path=${escaped(files.heartbeatSocket)},server=on,wait=off`;
  const agent = `socket,id=agent,path=${escaped(files.agentSocket)},server=on,wait=off`;
  return [
    '-name',
    `guest=${escaped(launch.name)},process=holdfast:${escaped(launch.name)},debug-threads=on`,
    ...(uuid === null ? [] : ['-uuid', uuid]),
    ...['-M', 'q35', ...acceleratorArguments(accelerator)],
    ...['-smp', String(launch.cpus), '-m', `${Math.ceil(launch.memoryBytes / mebibyte)}M`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-rtc', 'base=utc'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-msg', 'timestamp=on'],
    ...['-chardev', qmpChardev(files), '-mon', 'chardev=qmp,mode=control'],
    ...['-chardev', `file,id=serial,path=${escaped(files.serialLog)},append=on`],
    ...['-serial', 'chardev:serial'],
    ...['-device', 'virtio-serial-pci', '-chardev', heartbeat],
    ...[
      '-device',
      `virtserialport,id=${portId('heartbeat')},chardev=heartbeat,name=${heartbeatPort}`,
    ],
    ...['-chardev', agent],
    ...['-device', `virtserialport,id=${portId('agent')},chardev=agent,name=${agentPort}`],
    ...['-device', 'virtio-rng-pci'],
    ...['-device', 'pvpanic-pci', '-action', 'panic=pause'],
    ...launch.disks.flatMap((disk, index) => diskArguments(disk, index, image === null, kinds)),
    ...launch.absentDisks.flatMap(slotArguments),
    ...(image === null ? ['-boot', 'strict=on'] : ['-kernel', image.kernel]),
    ...(image?.initrd === undefined ? [] : ['-initrd', image.initrd]),
    ...(image?.append === undefined ? [] : ['-append', image.append]),
  ];
}
