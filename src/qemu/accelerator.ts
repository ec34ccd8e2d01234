// Which accelerator works on this machine. That /dev/kvm exists and answers says little: under some
// hypervisors and sandboxes the guest dies or stands still inside it. So something is booted with the
// very arguments that guests get: the kernel of a boot image, which without a root file system ends in
// a panic that proves 64-bit code, timers and the serial port; or, where there is no boot image, the
// firmware with a boot sector of nine bytes.

import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../ports/clock.ts';
import { type Accelerator, acceleratorArguments } from './command-line.ts';

export interface ProbeResult {
  readonly accelerator: Accelerator;
  /** Why it is that one, for people. */
  readonly reason: string;
}

interface Boot {
  readonly arguments: readonly string[];
  succeeded(status: number | null, output: string): boolean;
}

/** A working KVM needs less than one second for either. */
const timeLimitMs = 15_000;
const bare = ['-M', 'q35', '-m', '128M', '-nodefaults', '-no-user-config', '-display', 'none'];

/** mov dx, 0x501; mov al, 0x2a; out dx, al; hlt; jmp -3: QEMU's `isa-debug-exit` ends it with 0x2a. */
function bootSector(): Uint8Array {
  const image = new Uint8Array(1024 * 1024);
  image.set([0xba, 0x01, 0x05, 0xb0, 0x2a, 0xee, 0xf4, 0xeb, 0xfd]);
  image.set([0x55, 0xaa], 510);
  return image;
}

function firmwareBoot(image: string): Boot {
  const disk = { driver: 'file', filename: image, 'node-name': 'boot', 'read-only': true };
  return {
    arguments: [
      ...['-device', 'isa-debug-exit,iobase=0x501,iosize=1'],
      ...['-blockdev', JSON.stringify(disk), '-device', 'virtio-blk-pci,drive=boot'],
    ],
    succeeded: (status) => status === 2 * 0x2a + 1,
  };
}

function kernelBoot(kernel: string): Boot {
  return {
    arguments: [
      ...['-kernel', kernel, '-append', 'console=ttyS0 panic=-1 no_timer_check'],
      ...['-serial', 'stdio', '-no-reboot'],
    ],
    succeeded: (status, output) => status === 0 && output.includes('Kernel panic'),
  };
}

/** Boots; resolves with null if it worked, else with what went wrong. */
function tryBoot(
  qemu: string,
  accelerator: Accelerator,
  boot: Boot,
  clock: Clock,
): Promise<string | null> {
  return new Promise((resolve) => {
    const child = spawn(qemu, [...bare, ...acceleratorArguments(accelerator), ...boot.arguments], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let complaint = '';
    let tooLong = false;
    const timer = clock.after(timeLimitMs, () => {
      tooLong = true;
      child.kill('SIGKILL');
    });
    child.stdout.on('data', (bytes: Buffer) => {
      output = (output + bytes.toString('latin1')).slice(-65_536);
    });
    child.stderr.on('data', (bytes: Buffer) => {
      complaint = (complaint + bytes.toString('utf8')).slice(-2048);
    });
    child.once('error', (error) => {
      timer.cancel();
      resolve(error.message);
    });
    child.once('close', (status, signal) => {
      timer.cancel();
      if (tooLong) resolve(`a guest stood still for ${timeLimitMs / 1000} s`);
      else if (boot.succeeded(status, output)) resolve(null);
      else resolve(complaint.trim().split('\n').at(-1) || `QEMU ended with ${signal ?? status}`);
    });
  });
}

/** Boots something under the accelerator; null if that worked, else what went wrong. */
export async function bootProblem(
  accelerator: Accelerator,
  options: { readonly qemu: string; readonly kernel: string | null; readonly clock: Clock },
): Promise<string | null> {
  const { qemu, kernel, clock } = options;
  if (kernel !== null) return tryBoot(qemu, accelerator, kernelBoot(kernel), clock);
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-probe-'));
  try {
    const image = join(folder, 'boot.img');
    await writeFile(image, bootSector());
    return await tryBoot(qemu, accelerator, firmwareBoot(image), clock);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** KVM if a guest can be booted in it, else TCG, QEMU's own emulation. */
export async function probeAccelerator(options: {
  readonly qemu: string;
  readonly kernel: string | null;
  readonly clock: Clock;
}): Promise<ProbeResult> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    const reason =
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no' : 'no access to';
    return { accelerator: 'tcg', reason: `${reason} /dev/kvm` };
  }
  const problem = await bootProblem('kvm', options);
  return problem === null
    ? { accelerator: 'kvm', reason: 'a guest was booted in it' }
    : { accelerator: 'tcg', reason: `KVM is not usable: ${problem}` };
}
