// The guest driver for QEMU: starts guests under their guards, and finds those again that an earlier
// daemon left behind. All it knows of a guest is in the guest's folder of the run directory and in
// the guard itself, so a daemon can be replaced while its guests run.

import { existsSync } from 'node:fs';
import { access, mkdir, readdir } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { resolve } from 'node:path';
import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import { epoch, type VmId, vmId } from '../model/ids.ts';
import { type PathDisk, unusableText } from '../model/path-disk.ts';
import type { Clock } from '../ports/clock.ts';
import type { Guest, GuestDriver, GuestLaunch } from '../ports/guests.ts';
import type { Log } from '../ports/log.ts';
import { probeAccelerator } from './accelerator.ts';
import { type Accelerator, type BootImage, commandLine } from './command-line.ts';
import { GuardClient, startGuard } from './guard-client.ts';
import { QemuGuest } from './guest.ts';
import { nobodyListens } from './line-socket.ts';
import { type PathKind, pathKind } from './path-kind.ts';
import { endProcessesOf, vmsWithProcesses } from './processes.ts';
import {
  guestFailed,
  isPlainWord,
  type LaunchRecord,
  type RunFiles,
  readLaunch,
  removeRunFiles,
  runFiles,
  socketPathProblem,
  tailOf,
  writeLaunch,
} from './run-files.ts';

/** What runs a guest: a program that is spoken to with QMP and has a heartbeat port, as QEMU. */
export interface GuestMachine {
  /** For people. */
  readonly accelerator: string;
  readonly program: string;
  /** There is a port for the QEMU guest agent. */
  readonly hasAgentPort: boolean;
  /** The program's arguments, `qmpChardev` among them; `image` is null to boot from the first disk, `kinds` says what
   * lies at the paths of disks. */
  commandLine(
    launch: GuestLaunch,
    files: RunFiles,
    image: BootImage | null,
    kinds: ReadonlyMap<string, PathKind>,
  ): string[];
}

export interface GuestDriverOptions {
  /** This host's name, for people. */
  readonly host: string;
  /** One folder per guest is made in it; short, because it holds Unix sockets. */
  readonly runDir: string;
  /** The guard program. */
  readonly guardPath: string;
  /** Its `now()` must be CLOCK_BOOTTIME in ms, and never ahead of it: the guard compares with it. */
  readonly clock: Clock;
  readonly log: Log;
  readonly bootImages: Readonly<Record<string, BootImage>>;
  /** What guests may use of this machine; left out: all processors, and nine tenths of the memory. */
  readonly capacity?: { readonly cpus?: number; readonly memoryBytes?: number };
}

export interface QemuDriverOptions extends GuestDriverOptions {
  /** Left out: KVM if something boots in it, else TCG. */
  readonly accelerator?: Accelerator;
  readonly qemuPath?: string;
}

/** Until QEMU has answered for the first time; on a loaded machine its start takes seconds. */
const startTimeoutMs = 30_000;
const guardTimeoutMs = 10_000;

export async function createQemuDriver(options: QemuDriverOptions): Promise<GuestDriver> {
  const program = options.qemuPath ?? 'qemu-system-x86_64';
  let { accelerator } = options;
  if (accelerator === undefined) {
    const kernel = Object.values(options.bootImages)[0]?.kernel ?? null;
    const probe = await probeAccelerator({ qemu: program, kernel, clock: options.clock });
    accelerator = probe.accelerator;
    const log = options.log.child('qemu');
    log.info(`guests run with ${accelerator}: ${probe.reason}`, { accelerator });
  }
  const chosen = accelerator;
  return createGuestDriver(options, {
    accelerator,
    program,
    hasAgentPort: true,
    commandLine: (launch, files, image, kinds) => commandLine(launch, files, chosen, image, kinds),
  });
}

export async function createGuestDriver(
  options: GuestDriverOptions,
  machine: GuestMachine,
): Promise<GuestDriver> {
  const runDir = resolve(options.runDir);
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  return new QemuDriver({ ...options, runDir, log: options.log.child('qemu') }, machine);
}

function refusal(launch: GuestLaunch, reason: string): HoldfastError {
  return guestFailed(`VM ${launch.name} can not be started: ${reason}`);
}

/** What QEMU has against the disk: it says that behind the whole argument, in its last line. */
function refusalOf({ name }: PathDisk, said: string): string | null {
  const line = said.split('\n').at(-1) ?? '';
  const end = line.lastIndexOf('}: ');
  const isOfDisk = line.includes(`-blockdev {`) && line.includes(`"node-name":"${name}"`);
  return isOfDisk && end >= 0 ? line.slice(end + '}: '.length) : null;
}

class QemuDriver implements GuestDriver {
  readonly accelerator: string;
  readonly #options: GuestDriverOptions;
  readonly #machine: GuestMachine;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #guests = new Map<VmId, QemuGuest>();
  readonly #starting = new Map<VmId, GuestLaunch>();

  constructor(options: GuestDriverOptions, machine: GuestMachine) {
    this.#options = options;
    this.#machine = machine;
    this.#clock = options.clock;
    this.#log = options.log;
    this.accelerator = machine.accelerator;
  }

  capacity(): { readonly cpus: number; readonly memoryBytes: number } {
    return {
      cpus: this.#options.capacity?.cpus ?? availableParallelism(),
      memoryBytes: this.#options.capacity?.memoryBytes ?? Math.floor(totalmem() * 0.9),
    };
  }

  async pathProblem(path: string): Promise<string | null> {
    const kind = await pathKind(path, this.#clock);
    return typeof kind === 'string' ? null : kind.problem;
  }

  async start(launch: GuestLaunch): Promise<Guest> {
    const files = runFiles(this.#options.runDir, launch.vm);
    this.#check(launch, files);
    // Nothing may be awaited between the check and this, or two starts of one VM pass it.
    this.#starting.set(launch.vm, launch);
    try {
      const image = await this.#bootImage(launch);
      const kinds = await this.#pathKinds(launch);
      await this.#clear(launch, files);
      const record = await writeLaunch(files, launch);
      const argv = this.#machine.commandLine(launch, files, image, kinds);
      return await this.#launch(launch, files, record, argv);
    } catch (error) {
      throw asHoldfastError(error, 'guest-failed');
    } finally {
      this.#starting.delete(launch.vm);
    }
  }

  async recover(): Promise<Guest[]> {
    const entries = await readdir(this.#options.runDir, { withFileTypes: true });
    const folders = entries.filter((entry) => entry.isDirectory() && isPlainWord(entry.name));
    const vms = await vmsWithProcesses(this.#options.runDir);
    for (const { name } of folders) vms.add(vmId(name));
    const guests = await Promise.all(
      [...vms].filter((vm) => !this.#isHere(vm)).map((vm) => this.#recover(vm)),
    );
    return guests.filter((guest) => guest !== null);
  }

  #isHere(vm: VmId): boolean {
    return this.#starting.has(vm) || this.#guests.has(vm);
  }

  /** Refuses what can not be started, before anything is made. */
  #check(launch: GuestLaunch, files: RunFiles): void {
    const refuse = (reason: string): HoldfastError => refusal(launch, reason);
    if (!isPlainWord(launch.vm) || !isPlainWord(launch.name))
      throw refuse('its name is not a word');
    const { guardSocket, qmpSocket, heartbeatSocket, agentSocket } = files;
    const sockets = [guardSocket, qmpSocket, heartbeatSocket, agentSocket];
    const served = launch.disks.flatMap((disk) => ('socket' in disk ? [disk.socket] : []));
    for (const path of [...sockets, ...served]) {
      const problem = socketPathProblem(path);
      if (problem !== null) throw refuse(problem);
    }
    const known = this.#guests.get(launch.vm);
    if (this.#starting.has(launch.vm) || (known !== undefined && known.state !== 'exited')) {
      throw refuse('it is running on this host');
    }
    this.#checkMemory(launch);
    if (launch.deadlineMs <= this.#clock.now()) throw refuse('its deadline has passed');
  }

  #checkMemory(launch: GuestLaunch): void {
    const running = [...this.#guests.values()].filter((guest) => guest.state !== 'exited');
    const others = [...running, ...this.#starting.values()];
    const used = others.reduce((sum, guest) => sum + guest.memoryBytes, 0);
    const free = this.capacity().memoryBytes - used;
    if (launch.memoryBytes <= free) return;
    const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;
    throw new HoldfastError(
      'no-capacity',
      `VM ${launch.name} needs ${mebibytes(launch.memoryBytes)} of memory, this host has ` +
        `${mebibytes(Math.max(0, free))} free`,
    );
  }

  async #bootImage(launch: GuestLaunch): Promise<BootImage | null> {
    if (launch.boot === 'disk') return null;
    const image = this.#options.bootImages[launch.boot];
    if (image === undefined) {
      const known = Object.keys(this.#options.bootImages).join(', ') || 'none';
      throw refusal(launch, `this host has no boot image ${launch.boot} (it has: ${known})`);
    }
    for (const path of [image.kernel, image.initrd]) {
      if (path === undefined) continue;
      await access(path).catch((error: Error) => {
        throw refusal(launch, `boot image ${launch.boot}: ${error.message}`);
      });
    }
    return image;
  }

  #unusable(launch: GuestLaunch, disk: PathDisk, why: string): HoldfastError {
    const text = unusableText(launch.name, disk, this.#options.host, why);
    return new HoldfastError('path-unusable', text);
  }

  async #pathKinds(launch: GuestLaunch): Promise<ReadonlyMap<string, PathKind>> {
    const kinds = new Map<string, PathKind>();
    for (const disk of launch.disks) {
      if ('socket' in disk) continue;
      const kind = await pathKind(disk.path, this.#clock);
      if (typeof kind !== 'string') throw this.#unusable(launch, disk, kind.problem);
      kinds.set(disk.path, kind);
    }
    return kinds;
  }

  /** Clears away what an earlier guest of the VM has left: only if it has ended. */
  async #clear(launch: GuestLaunch, files: RunFiles): Promise<void> {
    await this.#guests.get(launch.vm)?.kill();
    // Of what has no folder nothing is left: what an earlier daemon left without one was ended at the start of this
    // one. To look through all processes for it would take longer than all else here.
    if (!existsSync(files.dir)) return;
    let guard: GuardClient;
    try {
      guard = await this.#connectGuard(files);
    } catch (error) {
      if (!nobodyListens(error)) throw error;
      if (!(await endProcessesOf(files, this.#clock))) {
        throw guestFailed(`VM ${launch.name}: processes of an earlier start do not end`);
      }
      await removeRunFiles(files);
      return;
    }
    try {
      const { state } = await guard.status();
      if (state !== 'exited')
        throw guestFailed(`VM ${launch.name} is ${state} on this host already`);
      await guard.release();
    } finally {
      guard.close();
    }
  }

  #connectGuard(files: RunFiles): Promise<GuardClient> {
    const options = { clock: this.#clock, timeoutMs: guardTimeoutMs };
    const nothing = { pausedByDeadline() {}, exited() {}, closed() {} };
    return GuardClient.connect(files.guardSocket, options, nothing);
  }

  async #launch(
    launch: GuestLaunch,
    files: RunFiles,
    record: LaunchRecord,
    argv: readonly string[],
  ): Promise<QemuGuest> {
    const guest = this.#guestOf(launch, files, record);
    let tooLong: HoldfastError | null = null;
    const timer = this.#clock.after(startTimeoutMs, () => {
      tooLong = guestFailed(`VM ${launch.name}: QEMU did not answer within ${startTimeoutMs} ms`);
      void guest.kill().catch(() => {});
    });
    try {
      await startGuard({
        guardPath: this.#options.guardPath,
        socket: files.guardSocket,
        vm: launch.vm,
        name: launch.name,
        epoch: launch.epoch,
        deadlineMs: launch.deadlineMs,
        log: files.guestLog,
        cwd: files.dir,
        command: [this.#machine.program, ...argv],
      }).ready;
      const nowMs = this.#clock.now();
      const status = await guest.connectGuard();
      if (nowMs >= status.nowMs + 1) {
        throw guestFailed(`this host's clock is ${nowMs - status.nowMs} ms ahead of the guard's`);
      }
      await guest.contact();
    } catch (error) {
      await this.#undo(guest, files);
      throw await this.#startError(launch, files, record, tooLong ?? error);
    } finally {
      timer.cancel();
    }
    this.#guests.set(launch.vm, guest);
    return guest;
  }

  /** Leaves no process and no socket of a start that failed. */
  async #undo(guest: QemuGuest, files: RunFiles): Promise<void> {
    await guest.kill().catch((error: unknown) => {
      this.#log.error('a guest whose start failed can not be ended', { error: String(error) });
    });
    await removeRunFiles(files);
  }

  async #startError(
    launch: GuestLaunch,
    files: RunFiles,
    record: LaunchRecord,
    error: unknown,
  ): Promise<HoldfastError> {
    const said = await tailOf(files.guestLog, record.logOffset);
    if (/cannot (allocate|set up guest) memory/i.test(said)) {
      return new HoldfastError('no-capacity', `VM ${launch.name}: ${said}`, { cause: error });
    }
    for (const disk of launch.disks) {
      const why = 'path' in disk ? refusalOf(disk, said) : null;
      if ('path' in disk && why !== null) {
        return this.#unusable(launch, disk, `${why} (log: ${files.guestLog})`);
      }
    }
    return asHoldfastError(error, 'guest-failed');
  }

  #guestOf(
    identity: Pick<GuestLaunch, 'vm' | 'name' | 'epoch'>,
    files: RunFiles,
    launch: LaunchRecord | null,
  ): QemuGuest {
    return new QemuGuest(identity, {
      files,
      clock: this.#clock,
      log: this.#log,
      launch,
      hasAgentPort: this.#machine.hasAgentPort,
      gone: (guest) => {
        if (this.#guests.get(guest.vm) === guest) this.#guests.delete(guest.vm);
      },
    });
  }

  async #recover(vm: VmId): Promise<Guest | null> {
    const files = runFiles(this.#options.runDir, vm);
    const record = await readLaunch(files);
    let probe: GuardClient | null = null;
    try {
      probe = await this.#connectGuard(files);
      const { name, epoch: number } = await probe.status();
      // The guard itself says who its guest is; the file only adds what a guard does not know.
      const guest = this.#guestOf({ vm, name, epoch: epoch(number) }, files, record);
      await guest.connectGuard();
      this.#guests.set(vm, guest);
      return guest;
    } catch (error) {
      // A guard that does not answer does not guard, whatever the reason: its guest must not go on,
      // and until it is certainly gone nobody may take its VM for stopped.
      if (record !== null) {
        this.#log.warn('a guest without its guard is cleared away', { vm, error: String(error) });
      }
      if (!(await endProcessesOf(files, this.#clock))) {
        throw new HoldfastError(
          'guest-failed',
          `The processes of VM ${vm} do not end; look into ${files.dir}, end them, and start again`,
        );
      }
      if (record !== null) await removeRunFiles(files);
      return null;
    } finally {
      probe?.close();
    }
  }
}
