// The command line of QEMU for one guest: a pure function, so that a test can read all of it.
//
// What is chosen here and why:
// - I/O waits instead of failing. When the host's NBD server is away (the daemon restarts, the lease
//   lapsed, no majority) QEMU holds the guest's requests back for as long as `reconnect-delay` says:
//   a year, since a guest that sees an I/O error turns its file system read-only, and whether the VM
//   shall go on elsewhere is HA's decision, not a timer's. An error that the server itself reports
//   stops the guest (`rerror`/`werror`) rather than reaching it.
// - Nothing of the user's or the distribution's configuration: what runs is what stands here.
// - The guest can start no process (`spawn=deny`): SIGSTOP to QEMU stops all of the guest.
// - The process can be recognised from outside: `-name guest=NAME`, `-uuid`, the run directory.

import type { GuestLaunch } from '../ports/guests.ts';
import type { RunFiles } from './run-files.ts';

export interface BootImage {
  readonly kernel: string;
  readonly initrd?: string;
  /** The kernel's command line. */
  readonly append?: string;
}

export type Accelerator = 'kvm' | 'tcg';

/** The name of the virtio port on which a guest reports. */
const heartbeatPort = 'org.holdfast.heartbeat';

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

/** The UUID of a VM whose id is 128 bits in hexadecimal, else null. */
export function uuidOf(vm: string): string | null {
  const hex = vm.replaceAll('-', '').toLowerCase();
  if (!/^[0-9a-f]{32}$/.test(hex)) return null;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** Named as the VM's disks are, not counted: a guest may be started without one of them. */
function diskArguments(
  disk: GuestLaunch['disks'][number],
  index: number,
  boots: boolean,
): string[] {
  const node = {
    driver: 'nbd',
    'node-name': disk.name,
    server: { type: 'unix', path: disk.socket },
    'reconnect-delay': reconnectDelaySeconds,
    discard: 'unmap',
  };
  const device = [
    'virtio-blk-pci',
    `id=virtio-${disk.name}`,
    `drive=${disk.name}`,
    `serial=${disk.name}`,
    'write-cache=on',
    'discard=on',
    'write-zeroes=on',
    'rerror=stop',
    'werror=stop',
    // With `-kernel` the first place is taken.
    ...(boots ? [`bootindex=${index}`] : []),
  ];
  return ['-blockdev', JSON.stringify(node), '-device', device.join(',')];
}

/** The arguments of QEMU, without the program's name. `image` is null to boot from the first disk. */
export function commandLine(
  launch: GuestLaunch,
  files: RunFiles,
  accelerator: Accelerator,
  image: BootImage | null,
): string[] {
  const uuid = uuidOf(launch.vm);
  const heartbeat = `socket,id=heartbeat,path=${escaped(files.heartbeatSocket)},server=on,wait=off`;
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
    ...['-device', `virtserialport,chardev=heartbeat,name=${heartbeatPort}`],
    ...['-device', 'virtio-rng-pci'],
    ...['-device', 'pvpanic-pci', '-action', 'panic=pause'],
    ...launch.disks.flatMap((disk, index) => diskArguments(disk, index, image === null)),
    ...(image === null ? ['-boot', 'strict=on'] : ['-kernel', image.kernel]),
    ...(image?.initrd === undefined ? [] : ['-initrd', image.initrd]),
    ...(image?.append === undefined ? [] : ['-append', image.append]),
  ];
}
