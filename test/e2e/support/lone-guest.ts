// The guest of `guest/` in a bare QEMU, without any Holdfast around it: what it promises to the
// tests above it is checked by itself first.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const kernelLine =
  'console=ttyS0 quiet panic=-1 nokaslr no_timer_check mitigations=off nopti random.trust_cpu=on audit=0';

export interface LoneGuestOptions {
  /** Where the sockets are made. */
  readonly folder: string;
  /** QEMU's `-blockdev` options of the disk, which must name the node `disk`. */
  readonly disk: readonly string[];
  readonly kernelArguments?: string;
  /** Further QEMU arguments. */
  readonly machine?: readonly string[];
  /** Connect to the heartbeat port at once (default), or leave it alone. */
  readonly listen?: boolean;
}

/** Lines in the order of arrival, to be waited for; what has already arrived counts too. */
class Lines {
  readonly all: string[] = [];
  #wake: (() => void)[] = [];

  add(line: string): void {
    this.all.push(line.trimEnd());
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** The first line that matches, from the given position on. */
  async next(pattern: RegExp, from = 0): Promise<string> {
    for (let position = from; ; position += 1) {
      while (position >= this.all.length) {
        await new Promise<void>((resolve) => this.#wake.push(resolve));
      }
      const line = this.all[position] ?? '';
      if (pattern.test(line)) return line;
    }
  }

  /** The highest number reported as written. */
  get lastWritten(): number {
    return Math.max(
      0,
      ...this.all.map((line) => Number(/^(?:holdfast: )?wrote (\d+)$/.exec(line)?.[1] ?? 0)),
    );
  }
}

export class LoneGuest {
  readonly console = new Lines();
  readonly heartbeat = new Lines();
  readonly qmp = new Lines();
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #exited: Promise<unknown>;
  #monitor: Socket | undefined;

  private constructor(process: ChildProcess, folder: string) {
    this.#process = process;
    this.#folder = folder;
    this.#exited = once(process, 'exit');
    if (process.stdout === null) throw new Error('QEMU was started without a serial line');
    createInterface(process.stdout).on('line', (line) => this.console.add(line));
  }

  static async boot(options: LoneGuestOptions): Promise<LoneGuest> {
    for (const name of ['heartbeat', 'qmp']) await rm(join(options.folder, name), { force: true });
    const socket = (name: string) => `path=${join(options.folder, name)},server=on,wait=off`;
    const guest = new LoneGuest(
      spawn(
        'qemu-system-x86_64',
        [
          ...['-M', 'q35', '-accel', 'tcg,tb-size=16', '-m', '96', '-nodefaults'],
          ...['-display', 'none', '-serial', 'stdio', '-no-reboot'],
          ...['-chardev', `socket,id=qmp,${socket('qmp')}`, '-mon', 'qmp,mode=control'],
          ...['-device', 'virtio-serial-pci'],
          ...['-chardev', `socket,id=heartbeat,${socket('heartbeat')}`],
          ...['-device', 'virtserialport,chardev=heartbeat,name=org.holdfast.heartbeat'],
          ...['-device', 'pvpanic-pci', '-action', 'panic=pause'],
          ...options.disk,
          ...['-device', 'virtio-blk-pci,drive=disk,werror=report,rerror=report'],
          ...['-kernel', 'build/guest/vmlinuz', '-initrd', 'build/guest/initrd'],
          ...['-append', `${kernelLine} ${options.kernelArguments ?? ''}`],
          ...(options.machine ?? []),
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      ),
      options.folder,
    );
    guest.#monitor = await guest.connect('qmp');
    createInterface(guest.#monitor).on('line', (line) => guest.qmp.add(line));
    guest.command('qmp_capabilities');
    if (options.listen ?? true) await guest.listen();
    return guest;
  }

  /** Connects to the heartbeat port and collects what it says. */
  async listen(): Promise<void> {
    const socket = await this.connect('heartbeat');
    createInterface(socket).on('line', (line) => this.heartbeat.add(line));
  }

  /** A connection to one of the guest's sockets, which QEMU makes a moment after its start. */
  async connect(name: 'heartbeat' | 'qmp'): Promise<Socket> {
    for (;;) {
      const socket = connect(join(this.#folder, name));
      try {
        await once(socket, 'connect');
        socket.on('error', () => socket.destroy());
        return socket;
      } catch (error) {
        if (this.#process.exitCode !== null) throw error;
        await sleep(20);
      }
    }
  }

  command(execute: string): void {
    this.#monitor?.write(`${JSON.stringify({ execute })}\n`);
  }

  /** Cuts the power. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }

  /** Waits until the guest has switched itself off. */
  async exit(): Promise<void> {
    await this.#exited;
  }
}
