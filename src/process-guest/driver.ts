// The guest driver for labs: all is as with QEMU (guard, QMP, heartbeat port, what a restarted daemon finds), but in
// QEMU's place stands a small program that does what the built-in guest does (guest.c). Hundreds of VMs fit on
// a small machine that way. It is no virtual machine: it can boot nothing else, and nothing holds it in.

import type { GuestDriver, GuestLaunch } from '../ports/guests.ts';
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
  const path = launch.disks.find((disk) => 'path' in disk);
  if (path !== undefined) {
    throw guestFailed(`VM ${launch.name}: a process-guest has no ${path.name} on shared storage`);
  }
  if (image === null) throw guestFailed(`VM ${launch.name}: a process-guest boots no disk`);
  return [
    ...['--qmp', qmpChardev(files)],
    ...['--port', files.heartbeatSocket, '--console', files.serialLog],
    ...['--append', image.append ?? ''],
    ...launch.disks.flatMap((disk) => ('socket' in disk ? ['--disk', disk.name, disk.socket] : [])),
    ...launch.absentDisks.flatMap((name) => ['--slot', name]),
  ];
}
