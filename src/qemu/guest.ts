// One guest as the daemon holds it: some connections to something that lives on without us. The
// guard says whether it may run and how it ended, QMP what the virtual machine monitor knows, and the
// heartbeat port, or its QEMU guest agent, what the guest itself reports. Each connection may break and is sought
// again; only the guard's word decides `state`.
//
// QMP is silent while the guest is paused (QEMU itself is stopped), so nothing here waits for it then.

import { HoldfastError, isError } from '../model/errors.ts';
import type { Epoch, VmId } from '../model/ids.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { DiskActivity, Guest, GuestEvent, ServedDisk } from '../ports/guests.ts';
import type { Log } from '../ports/log.ts';
import { blockActivity } from './block-activity.ts';
import { exitEvent } from './exit.ts';
import { GuardClient, type GuardStatus, type GuestExit } from './guard-client.ts';
import { GuestAgent } from './guest-agent.ts';
import { HeartbeatReader } from './heartbeat.ts';
import { nobodyListens } from './line-socket.ts';
import { plugIn } from './plug-in.ts';
import { endProcessesOf } from './processes.ts';
import { QmpClient, type QmpObject, textOf } from './qmp.ts';
import { ReportPorts } from './report-ports.ts';
import {
  guestFailed,
  type LaunchRecord,
  type RunFiles,
  removeRunFiles,
  writeRecord,
} from './run-files.ts';

export interface GuestContext {
  readonly files: RunFiles;
  readonly clock: Clock;
  readonly log: Log;
  /** How it was started; null where that has been lost. */
  readonly launch: LaunchRecord | null;
  readonly hasAgentPort: boolean;
  /** The guest has been killed or detached: it is no longer the driver's. */
  gone(guest: QemuGuest): void;
}

/** A guard answers in microseconds; one that does not within this time is stopped or starved. */
const guardTimeoutMs = 10_000;
const retryMs = 250;
/** QEMU tells of the same port once a second. */
const portNewsMs = 2000;
/** How long QMP's last words may take to arrive after the guard has said that QEMU is gone. */
const lastWordsMs = 1000;
/** How long QEMU may take to be gone after it has said that it ends. Its version 7.2 never is, where a
 * command was under way at that moment: it waits for its own monitor (`monitor_cleanup`). */
const endsWithinMs = 10_000;

export class QemuGuest implements Guest {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly #context: GuestContext;
  #launch: LaunchRecord | null;
  /** The end of the queue of its writings. */
  #written: Promise<void> = Promise.resolve();
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #heartbeat: HeartbeatReader;
  /** Null: there is no port for one. */
  readonly #agent: GuestAgent | null;
  readonly #ports = new ReportPorts();
  #look: Timer | null = null;
  #state: Guest['state'] = 'running';
  #guard: GuardClient | null = null;
  #qmp: QmpClient | null = null;
  #seeksQmp = false;
  #qmpClosed: (() => void) | null = null;
  /** Killed or detached: no more events, nothing is sought again. */
  #over = false;
  #killing: Promise<void> | null = null;
  #ending: Promise<boolean> | null = null;
  #handler: ((event: GuestEvent) => void) | null = null;
  readonly #queue: GuestEvent[] = [];
  #delivering = false;
  /** Told already; QEMU and we repeat both, for each request and after each reconnect. */
  #panicked = false;
  #stoppedByError = false;
  #shutdownReason: string | null = null;
  readonly #contact: Promise<void>;
  #contactMade: () => void = () => {};
  #contactFailed: (error: HoldfastError) => void = () => {};

  constructor(
    identity: { readonly vm: VmId; readonly name: string; readonly epoch: Epoch },
    context: GuestContext,
  ) {
    this.vm = identity.vm;
    this.name = identity.name;
    this.epoch = identity.epoch;
    this.#context = context;
    this.#launch = context.launch;
    this.#clock = context.clock;
    this.#log = context.log;
    this.#heartbeat = new HeartbeatReader({
      path: context.files.heartbeatSocket,
      clock: context.clock,
      log: context.log,
      onLine: (line) => this.#onHeard(line),
    });
    const path = context.files.agentSocket;
    const onAnswer = () => this.#onHeard('the guest agent answers');
    const isRunning = () => this.#state === 'running';
    this.#agent = context.hasAgentPort
      ? new GuestAgent({ path, clock: context.clock, isRunning, onAnswer })
      : null;
    this.#contact = new Promise((resolve, reject) => {
      this.#contactMade = resolve;
      this.#contactFailed = reject;
    });
    this.#contact.catch(() => {});
  }

  get state(): Guest['state'] {
    return this.#state;
  }

  get memoryBytes(): number {
    return this.#launch?.memoryBytes ?? 0;
  }

  get disks(): readonly string[] | null {
    return this.#launch?.disks ?? null;
  }

  get wasHeard(): boolean {
    return this.#launch?.heard === true;
  }

  async pathActivity(): Promise<DiskActivity | null> {
    return this.#state === 'running' && this.#qmp !== null ? blockActivity(this.#qmp) : null;
  }

  /** Connects to the guard and takes over what it says; rejects as `LineSocket.connect` does. */
  async connectGuard(): Promise<GuardStatus> {
    const options = { clock: this.#clock, timeoutMs: guardTimeoutMs };
    let connected: GuardClient | null = null;
    const guard = await GuardClient.connect(this.#context.files.guardSocket, options, {
      pausedByDeadline: () => this.#onPaused(),
      exited: (exit) => this.#onExit(exit),
      closed: () => this.#onGuardClosed(connected),
    });
    connected = guard;
    let status: GuardStatus;
    try {
      status = await guard.status();
    } catch (error) {
      guard.close();
      throw error;
    }
    if (this.#over) guard.close();
    this.#guard = guard;
    // It may have ended right after it answered: that is known by now, and newer than the answer.
    if (this.#hasExited()) return status;
    if (status.state === 'exited' && status.exit !== null) this.#onExit(status.exit);
    else if (status.state === 'running') this.#state = 'running';
    else if (status.pause === 'deadline') this.#onPaused();
    else if (status.pause === 'command') this.#state = 'paused';
    void this.#seekQmp();
    return status;
  }

  /** Resolves when QEMU has answered or the guest has been paused; rejects when it ended before. */
  contact(): Promise<void> {
    return this.#contact;
  }

  extend(deadlineMs: number): void {
    this.#guard?.extend(deadlineMs).then(
      (state) => {
        if (state === 'paused' && this.#state === 'running') this.#onPaused();
      },
      (error: unknown) =>
        this.#log.debug('the deadline was not extended', { error: String(error) }),
    );
  }

  async pause(): Promise<void> {
    if (this.#state === 'exited') return;
    await this.#needGuard().pause();
    if (this.state !== 'exited') this.#state = 'paused';
  }

  async resume(deadlineMs: number): Promise<void> {
    await this.#needGuard().resume(deadlineMs);
    if (this.#state !== 'exited') this.#state = 'running';
    void this.#seekQmp();
    if (this.#stoppedByError && this.#qmp !== null) await this.#qmp.execute('cont');
  }

  async powerDown(): Promise<void> {
    await this.#needQmp().execute('system_powerdown');
  }

  async attachDisk(disk: ServedDisk): Promise<void> {
    const qmp = this.#needQmp();
    // First of all, so that a daemon that finds the guest later counts with the disk.
    const before = this.#launch?.disks ?? [];
    await this.#remember({ disks: [...new Set([...before, disk.name])] });
    try {
      await plugIn(qmp, disk);
    } catch (error) {
      if (isError(error, 'guest-failed')) await this.#remember({ disks: before });
      throw error;
    }
  }

  /** For a daemon that finds it; one writing at a time. */
  #remember(news: Partial<Pick<LaunchRecord, 'disks' | 'heard'>>): Promise<void> {
    if (this.#launch === null) return Promise.resolve();
    const launch = { ...this.#launch, ...news };
    this.#launch = launch;
    const write = () => writeRecord(this.#context.files, launch);
    const written = this.#written.then(write);
    this.#written = written.catch(() => undefined);
    return written;
  }

  #onHeard(line: string): void {
    this.#rememberHeard(true);
    this.#emit({ type: 'heartbeat', line });
    // Its last words, or its first ones: QEMU says within a second that a port was opened.
    if (this.#qmp !== null && this.#isMute) this.#lookLater();
  }

  #rememberHeard(heard: boolean): void {
    if (this.#over || this.wasHeard === heard) return;
    this.#remember({ heard }).catch((error: unknown) => {
      this.#log.warn('what was heard of a guest is not kept', { error: String(error) });
    });
  }

  kill(): Promise<void> {
    this.#killing ??= this.#kill().catch((error: unknown) => {
      this.#killing = null; // it can be tried again
      throw error;
    });
    return this.#killing;
  }

  handle(onEvent: (event: GuestEvent) => void): void {
    this.#handler = onEvent;
    this.#deliver();
    if (this.#state === 'exited' || this.#over) return;
    this.#heartbeat.start();
    this.#agent?.start();
  }

  detach(): void {
    this.#letGo();
    this.#context.gone(this);
  }

  #letGo(): void {
    this.#over = true;
    this.#queue.length = 0;
    this.#guard?.close();
    this.#qmp?.close();
    this.#heartbeat.stop();
    this.#agent?.stop();
    this.#look?.cancel();
  }

  async #kill(): Promise<void> {
    this.#over = true;
    this.#queue.length = 0;
    try {
      const guard = this.#needGuard();
      await guard.kill();
      await guard.release();
    } catch (error) {
      this.#log.info('the processes of the guest are ended without its guard', {
        vm: this.name,
        error: String(error),
      });
      if (!(await this.#endProcesses())) {
        throw new HoldfastError('timeout', `processes of VM ${this.name} do not end`);
      }
    }
    this.#state = 'exited';
    this.#contactFailed(guestFailed(`VM ${this.name} was killed`));
    this.#letGo();
    await this.#written;
    await removeRunFiles(this.#context.files).catch((error: unknown) => {
      // It has ended all the same; whoever finds them finds that.
      this.#log.warn('the run files of a guest that has ended stay', {
        vm: this.name,
        error: String(error),
      });
    });
    this.#context.gone(this);
  }

  #hasExited(): boolean {
    return this.#state === 'exited';
  }

  #needGuard(): GuardClient {
    if (this.#guard !== null) return this.#guard;
    throw new HoldfastError(
      'unreachable',
      `there is no connection to the guard of VM ${this.name}`,
    );
  }

  #needQmp(): QmpClient {
    if (this.#state !== 'running') {
      throw new HoldfastError('not-running', `VM ${this.name} is ${this.#state}`);
    }
    if (this.#qmp !== null) return this.#qmp;
    throw new HoldfastError('unreachable', `QEMU of VM ${this.name} does not answer`);
  }

  #emit(event: GuestEvent): void {
    if (this.#over) return;
    this.#queue.push(event);
    this.#deliver();
  }

  /** Never inside of somebody's call, and always in order. */
  #deliver(): void {
    if (this.#handler === null || this.#delivering || this.#queue.length === 0) return;
    this.#delivering = true;
    this.#clock.defer(() => {
      this.#delivering = false;
      for (const event of this.#queue.splice(0)) {
        if (!this.#over) this.#handler?.(event);
      }
    });
  }

  #onPaused(): void {
    if (this.#state !== 'running') return;
    this.#state = 'paused';
    this.#contactMade();
    this.#emit({ type: 'paused' });
  }

  /** Null: nobody knows how, because its guard is gone. */
  #onExit(exit: GuestExit | null): void {
    if (this.#state === 'exited') return;
    this.#state = 'exited';
    this.#heartbeat.stop();
    this.#agent?.stop();
    void this.#concludeExit(exit);
  }

  /** QEMU's last words (SHUTDOWN and its reason) may still be in the socket. */
  async #concludeExit(exit: GuestExit | null): Promise<void> {
    if (this.#qmp !== null) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.after(lastWordsMs, resolve);
        this.#qmpClosed = () => {
          timer.cancel();
          resolve();
        };
      });
    }
    const { files } = this.#context;
    const logOffset = this.#launch?.logOffset ?? 0;
    const event = await exitEvent(exit, this.#shutdownReason, files, logOffset);
    this.#contactFailed(guestFailed(`VM ${this.name}: ${event.detail}`));
    this.#emit(event);
  }

  #onGuardClosed(guard: GuardClient | null): void {
    if (guard === null || this.#guard !== guard) return;
    this.#guard = null;
    if (!this.#over && this.#state !== 'exited') void this.#regainGuard();
  }

  /** The guard gave our place to another client, or it is dead and the guest with it. */
  async #regainGuard(): Promise<void> {
    while (!this.#over) {
      try {
        await this.connectGuard();
        return;
      } catch (error) {
        if (nobodyListens(error)) break;
        this.#log.error('the guard does not answer', { vm: this.name, error: String(error) });
      }
      await this.#wait(retryMs);
    }
    while (!this.#over && !(await this.#hasEnded())) await this.#wait(retryMs);
    if (!this.#over) this.#onExit(null);
  }

  async #hasEnded(): Promise<boolean> {
    const problem = await this.#endProcesses().then(
      (ended) => (ended ? null : 'its processes do not end'),
      String,
    );
    if (problem === null) return true;
    this.#log.error('the guard of a guest is gone, and the guest not for certain', {
      vm: this.name,
      problem,
    });
    return false;
  }

  /** One search at a time: a second one could still be at it when the VM's next guest starts. */
  #endProcesses(): Promise<boolean> {
    this.#ending ??= endProcessesOf(this.#context.files, this.#clock).finally(() => {
      this.#ending = null;
    });
    return this.#ending;
  }

  async #seekQmp(): Promise<void> {
    if (this.#seeksQmp) return;
    this.#seeksQmp = true;
    while (!this.#over && this.#state === 'running' && this.#qmp === null) {
      try {
        await this.#connectQmp();
      } catch (error) {
        if (!nobodyListens(error)) {
          this.#log.debug('QEMU does not answer', { vm: this.name, error: String(error) });
        }
        // A new QEMU takes a tenth of a second to listen.
        await this.#wait(isError(error, 'unreachable') ? retryMs / 5 : retryMs);
      }
    }
    this.#seeksQmp = false;
  }

  async #connectQmp(): Promise<void> {
    const options = { clock: this.#clock, log: this.#log };
    const qmp = await QmpClient.connect(this.#context.files.qmpSocket, options, {
      event: (name, data) => this.#onQmpEvent(name, data),
      closed: () => {
        this.#qmp = null;
        this.#qmpClosed?.();
        void this.#wait(retryMs).then(() => this.#seekQmp());
      },
    });
    if (this.#over) {
      qmp.close();
      return;
    }
    this.#qmp = qmp;
    this.#contactMade();
    // What happened while nobody listened.
    const status = (await qmp.execute('query-status')) as QmpObject;
    if (status['status'] === 'guest-panicked') this.#onQmpEvent('GUEST_PANICKED', {});
    if (status['status'] === 'io-error') this.#onQmpEvent('BLOCK_IO_ERROR', {});
    if (!this.#context.hasAgentPort) return;
    await this.#ports.look(qmp);
    this.#lookIfMute();
  }

  #onQmpEvent(name: string, data: QmpObject): void {
    if (name === 'SHUTDOWN') {
      this.#shutdownReason = textOf(data['reason'], 'unknown');
      this.#clock.after(endsWithinMs, () => this.#endHanging());
    } else if (name === 'RESET') {
      this.#panicked = false;
      this.#rememberHeard(false);
      this.#emit({ type: 'reset' });
    } else if (name === 'VSERPORT_CHANGE') {
      this.#ports.changed(data);
      this.#lookIfMute();
    } else if (name === 'RESUME') {
      this.#stoppedByError = false;
    } else if (name === 'GUEST_PANICKED' && !this.#panicked) {
      this.#panicked = true;
      this.#emit({ type: 'panicked' });
    } else if (name === 'BLOCK_IO_ERROR' && !this.#stoppedByError) {
      this.#stoppedByError = true;
      const name = textOf(data['node-name'], '');
      this.#emit({
        type: 'ioError',
        disk: this.disks?.includes(name) ? name : 'unknown',
        detail: textOf(data['reason'], 'an I/O error'),
      });
    }
  }

  get #isMute(): boolean {
    return this.#context.hasAgentPort && this.#ports.isMute;
  }

  #lookLater(): void {
    this.#look ??= this.#clock.after(portNewsMs, () => {
      this.#look = null;
      this.#lookIfMute();
    });
  }

  #lookIfMute(): void {
    if (!this.#isMute || !this.wasHeard) return;
    this.#rememberHeard(false);
    this.#emit({ type: 'mute' });
  }

  /** The guest is down and its disks are flushed by then; the guard tells the end as ever. */
  #endHanging(): void {
    if (this.#over || this.#hasExited()) return;
    this.#log.warn('QEMU hangs while it ends, and is killed', { vm: this.name });
    this.#guard?.kill().catch((error: unknown) => {
      this.#log.error('QEMU hangs while it ends', { vm: this.name, error: String(error) });
    });
  }

  #wait(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.after(delayMs, resolve);
    });
  }
}
