// The guest driver for labs: all is as with QEMU (guard, QMP, heartbeat port, what a restarted daemon finds), but in
// QEMU's place stands a small program that does what the built-in guest does (guest.c). Hundreds of VMs fit on
// a small machine that way. It is no virtual machine: it can boot nothing else, and nothing holds it in.

import type { GuestDisk, GuestDriver, GuestLaunch } from '../ports/guests.ts';
import { type BootImage, qmpChardev } from '../qemu/command-line.ts';
import { createGuestDriver, type GuestDriverOptions } from '../qemu/driver.ts';
import type { RunFiles } from '../qemu/run-files.ts';
import { guestFailed } from '../qemu/run-files.ts';

export interface ProcessDriverOptions extends GuestDriverOptions {
  /** The program, made of guest.c. */
  readonly guestPath: string;
}

export function createProcessDriver(options: ProcessDriverOptions): Promise<GuestDriver> {
  return createGuestDriver(options, {
    accelerator: 'process',
    program: options.guestPath,
    hasAgentPort: false,
    commandLine,
  });
}

function commandLine(launch: GuestLaunch, files: RunFiles, image: BootImage | null): string[] {
  if (image === null) throw guestFailed(`VM ${launch.name}: a process-guest boots no disk`);
  return [
    ...['--qmp', qmpChardev(files)],
    ...['--port', files.heartbeatSocket, '--console', files.serialLog],
    ...['--append', image.append ?? ''],
    ...launch.disks.flatMap((disk) => diskArguments(launch, disk)),
    ...launch.absentDisks.flatMap((name) => ['--slot', name]),
  ];
}

function diskArguments(launch: GuestLaunch, disk: GuestDisk): string[] {
  if ('socket' in disk) return ['--disk', disk.name, disk.socket];
  if (disk.format === 'raw') return ['--file', disk.name, disk.path];
  throw guestFailed(`VM ${launch.name}: a process-guest reads no ${disk.format} of ${disk.name}`);
}
