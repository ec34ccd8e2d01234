// A guest under its guard. The guest reads its disks when it boots, then for ever writes, flushes and
// reads back, and holds what it reads against what it was told before (`DiskTruth`). The guard is a
// process of its own: it stops the guest at the deadline, with or without a daemon.

import { HoldfastError } from '../../model/errors.ts';
import type { Epoch, VmId } from '../../model/ids.ts';
import type {
  DiskActivity,
  Guest,
  GuestDisk,
  GuestEvent,
  GuestLaunch,
  ServedDisk,
} from '../../ports/guests.ts';
import {
  blockBytes,
  type DiskTruth,
  type Stamp,
  stampBlock,
  type WriteToken,
} from './disk-truth.ts';
import { NbdClient } from './nbd-client.ts';
import { type MachineClock, Process } from './process.ts';
import type { SeededRandom } from './random.ts';
import type { DiskClient, SharedDisk } from './shared-disk.ts';
import type { LocalStreams } from './streams.ts';
import type { Receiver, VirtualTime } from './time.ts';

/** What a guest does with its disks. */
export interface Workload {
  /** Between two rounds; each writes one block. */
  readonly intervalMs: number;
  /** Blocks of each disk that it uses, spread over the disk; 0: it leaves its disks alone. */
  readonly blocks: number;
}

export interface GuestSurroundings {
  readonly time: VirtualTime;
  readonly clock: MachineClock;
  readonly streams: LocalStreams;
  readonly truth: DiskTruth;
  readonly random: SeededRandom;
  readonly workload: Workload;
  readonly diskBytes: readonly number[];
  /** On storage that all hosts see. */
  sharedDisk(path: string): SharedDisk;
  /** After each change of its state. */
  changed(guest: VirtualGuest): void;
  /** It read what can not be. */
  misread(guest: VirtualGuest, problem: string): void;
  /** One of its writes was acknowledged, as durable or not. */
  acknowledged(guest: VirtualGuest, stamp: Stamp, isDurable: boolean): void;
}

export class VirtualGuest {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly #with: GuestSurroundings;
  readonly #process: Process;
  readonly #disks: AttachedDisk[];
  #state: Guest['state'] = 'running';
  #deadlineMs: number;
  #program: Program;
  #daemon: { readonly receiver: Receiver; readonly tell: (event: GuestEvent) => void } | null =
    null;
  #last: GuestEvent | null = null;
  #isKilled = false;
  /** It keeps what it has been doing, but does no more of it. */
  isHung = false;
  /** A disk of it failed, and it does not know how to go on. */
  #hasGivenUp = false;
  /** It has completed its first read since it was started. */
  hasRead = false;
  /** A daemon has heard it since then. */
  wasHeard = false;

  constructor(surroundings: GuestSurroundings, launch: GuestLaunch) {
    this.vm = launch.vm;
    this.name = launch.name;
    this.epoch = launch.epoch;
    this.#with = surroundings;
    this.#process = new Process(surroundings.time, surroundings.clock);
    this.#disks = launch.disks.map((disk) => ({ number: numberOf(disk.name), disk }));
    this.#deadlineMs = launch.deadlineMs;
    this.#armGuard();
    this.#program = this.#boot();
  }

  get diskNames(): string[] {
    return this.#disks.map((disk) => `disk${disk.number}`);
  }

  /** Whether the disk of this number is no object. */
  hasOnPath(number: number): boolean {
    return this.#disks.some((one) => one.number === number && 'path' in one.disk);
  }

  get state(): Guest['state'] {
    return this.#state;
  }

  get doesNothing(): boolean {
    return this.isHung || this.#hasGivenUp;
  }

  get pathActivity(): DiskActivity {
    return this.#program.pathActivity;
  }

  extend(deadlineMs: number): void {
    this.#deadlineMs = Math.max(this.#deadlineMs, deadlineMs);
  }

  /** Its processors stand at once. */
  pause(): void {
    this.#stand();
  }

  resume(deadlineMs: number): void {
    if (this.#state !== 'paused' || deadlineMs <= this.#with.clock.now()) return;
    this.#deadlineMs = deadlineMs;
    this.#enter('running');
    this.#armGuard();
    this.#process.thaw();
  }

  /** As plugging in, it takes a processor that runs. */
  async attachDisk(served: ServedDisk): Promise<void> {
    const { name } = served;
    if (this.#state !== 'running') {
      throw new HoldfastError('not-running', `the guest of ${this.name} is ${this.#state}`);
    }
    if (this.diskNames.includes(name)) return;
    const disk = { number: numberOf(name), disk: served };
    this.#disks.push(disk);
    this.#program.attach(disk);
    this.#with.changed(this);
  }

  powerDown(): void {
    if (this.isHung) return;
    this.#with.time.after(
      300,
      () => this.exit(true, 'the guest switched itself off'),
      this.#process,
    );
  }

  kill(): void {
    this.#isKilled = true;
    this.exit(false, 'killed');
  }

  /** Its end is known to a daemon; else the next one has to find it. */
  get isEndKnown(): boolean {
    return this.#state === 'exited' && (this.#isKilled || this.#daemon !== null);
  }

  /** Its process ends, by itself or by somebody else. */
  exit(clean: boolean, detail: string): void {
    if (this.#state === 'exited') return;
    this.#program.end();
    this.#process.kill();
    this.#enter('exited');
    if (this.#isKilled) return;
    this.#last = { type: 'exited', clean, detail };
    this.#tell(this.#last);
  }

  /** Its kernel gives up, and says so. */
  panic(): void {
    this.#tell({ type: 'panicked' });
  }

  /** A daemon has found it, and hears of it from now on. */
  attach(receiver: Receiver, tell: (event: GuestEvent) => void): void {
    this.#daemon = { receiver, tell };
    if (this.#last === null) return;
    this.#tell(this.#last);
    this.#with.changed(this);
  }

  detach(): void {
    this.#daemon = null;
  }

  #boot(): Program {
    this.hasRead = false;
    this.wasHeard = false;
    return new Program(this.#with, this.#process, this.#disks, this.epoch, {
      isHung: () => this.isHung,
      read: () => {
        this.hasRead = true;
      },
      heartbeat: (line) => {
        this.wasHeard ||= this.#daemon !== null;
        this.#tell({ type: 'heartbeat', line });
      },
      gaveUp: () => {
        this.#hasGivenUp = true;
      },
      misread: (problem) => this.#with.misread(this, problem),
      acknowledged: (stamp, isDurable) => this.#with.acknowledged(this, stamp, isDurable),
    });
  }

  #armGuard(): void {
    const { time, clock } = this.#with;
    time.after(clock.trueDelay(this.#deadlineMs - clock.now()), () => {
      if (this.#state !== 'running') return;
      if (this.#deadlineMs > clock.now()) return this.#armGuard();
      this.#stand();
      this.#tell({ type: 'paused' });
    });
  }

  #stand(): void {
    if (this.#state !== 'running') return;
    this.#process.freeze();
    this.#enter('paused');
  }

  #enter(state: Guest['state']): void {
    this.#state = state;
    this.#with.changed(this);
  }

  #tell(event: GuestEvent): void {
    const daemon = this.#daemon;
    if (daemon === null) return;
    this.#with.time.after(0.1, () => daemon.tell(event), daemon.receiver);
  }
}

interface AttachedDisk {
  /** `disk1` is number 1, whichever disks the guest has. */
  readonly number: number;
  readonly disk: GuestDisk;
}

const numberOf = (name: string) => Number(name.replace(/^disk/, ''));

interface ProgramEvents {
  isHung(): boolean;
  read(): void;
  heartbeat(line: string): void;
  gaveUp(): void;
  misread(problem: string): void;
  acknowledged(stamp: Stamp, isDurable: boolean): void;
}

/** What runs inside the guest, from one boot to the next. */
class Program {
  readonly #with: GuestSurroundings;
  readonly #process: Process;
  readonly #events: ProgramEvents;
  readonly #epoch: Epoch;
  /** Which disks of the VM they are: it may have been started without some. */
  readonly #numbers: number[];
  readonly #clients: DiskClient[];
  readonly #paths: DiskActivity[] = [];
  /** Disks from here on were attached while it ran, and have not been read yet. */
  #known: number;
  readonly #boot: number;
  readonly #unflushed: WriteToken[][];
  #round = 0;
  #isOver = false;

  constructor(
    surroundings: GuestSurroundings,
    process: Process,
    disks: readonly AttachedDisk[],
    epoch: Epoch,
    events: ProgramEvents,
  ) {
    this.#with = surroundings;
    this.#process = process;
    this.#epoch = epoch;
    this.#events = events;
    this.#numbers = disks.map((disk) => disk.number);
    this.#clients = disks.map(({ disk }) => this.#open(disk));
    this.#unflushed = disks.map(() => []);
    this.#known = disks.length;
    this.#boot = surroundings.truth.booted();
    this.#readAll(0, 0);
  }

  /** It is read whole before it is written to, as those are that were there at the boot. */
  attach({ number, disk }: AttachedDisk): void {
    if (this.#isOver) return;
    this.#numbers.push(number);
    this.#clients.push(this.#open(disk));
    this.#unflushed.push([]);
  }

  #open(disk: GuestDisk): DiskClient {
    const { time, streams } = this.#with;
    if (!('path' in disk)) return new NbdClient(time, streams, disk.socket, this.#process);
    const client = this.#with.sharedDisk(disk.path).open(this.#epoch, this.#process);
    this.#paths.push(client.activity);
    return client;
  }

  get pathActivity(): DiskActivity {
    const sum = (count: (one: DiskActivity) => number) =>
      this.#paths.reduce((all, one) => all + count(one), 0);
    return { requests: sum((one) => one.requests), inFlight: sum((one) => one.inFlight) };
  }

  end(): void {
    this.#isOver = true;
    for (const client of this.#clients) client.close();
  }

  #numberOf(disk: number): number {
    return this.#numbers[disk] ?? disk;
  }

  /** Block of the disk that the workload calls `index`. */
  #blockAt(disk: number, index: number): number {
    const bytes = this.#with.diskBytes[this.#numberOf(disk)] ?? blockBytes;
    const blocks = Math.floor(bytes / blockBytes);
    return Math.floor((index * blocks) / this.#with.workload.blocks);
  }

  #readAll(disk: number, index: number): void {
    const client = this.#clients[disk];
    if (client === undefined || this.#with.workload.blocks === 0) return this.#idle();
    if (index >= this.#with.workload.blocks) return this.#readAll(disk + 1, 0);
    this.#read(disk, index, () => this.#readAll(disk, index + 1));
  }

  #read(disk: number, index: number, then: () => void): void {
    const block = this.#blockAt(disk, index);
    const number = this.#numberOf(disk);
    this.#clients[disk]?.read(block * blockBytes, blockBytes, (data, error) => {
      if (this.#isOver) return;
      // As most file systems: a disk that fails is not touched any more.
      if (error !== 0) {
        this.#events.gaveUp();
        return this.#events.heartbeat(`disk${number} error ${error}`);
      }
      const problem = this.#with.truth.check(number, block, data);
      if (problem !== null) this.#events.misread(problem);
      this.#events.read();
      then();
    });
  }

  /** Says that it lives, and works again after a while. */
  #idle(): void {
    if (!this.#events.isHung()) this.#events.heartbeat(`round ${this.#round}`);
    const { time, workload } = this.#with;
    time.after(workload.intervalMs, () => this.#work(), this.#process);
  }

  #work(): void {
    if (this.#isOver || this.#events.isHung()) return;
    this.#round += 1;
    const { workload, random, truth } = this.#with;
    if (this.#known < this.#clients.length) {
      const first = this.#known;
      this.#known = this.#clients.length;
      return this.#readAll(first, 0);
    }
    if (workload.blocks === 0 || this.#clients.length === 0) return this.#idle();
    const disk = this.#round % this.#clients.length;
    const index = random.below(workload.blocks);
    const block = this.#blockAt(disk, index);
    const serial = truth.nextSerial();
    const fua = random.chance(0.25);
    const number = this.#numberOf(disk);
    const stamp = { vm: truth.vm, disk: number, block, serial, epoch: this.#epoch };
    const token = truth.write(number, block, serial);
    this.#clients[disk]?.write(block * blockBytes, stampBlock(stamp), fua, (error) => {
      if (this.#isOver) return;
      if (error !== 0) return this.#events.gaveUp();
      truth.acknowledged(token, fua, this.#boot);
      this.#events.acknowledged(stamp, fua);
      if (!fua) this.#unflushed[disk]?.push(token);
      if (fua || random.chance(0.2)) this.#lookBack(disk);
      else this.#flush(disk);
    });
  }

  #flush(disk: number): void {
    const tokens = this.#unflushed[disk] ?? [];
    this.#unflushed[disk] = [];
    this.#clients[disk]?.flush((error) => {
      if (this.#isOver) return;
      if (error !== 0) return this.#events.gaveUp();
      this.#with.truth.flushed(tokens, this.#boot);
      this.#lookBack(disk);
    });
  }

  #lookBack(disk: number): void {
    const { random, workload } = this.#with;
    if (!random.chance(0.25)) return this.#idle();
    this.#read(disk, random.below(workload.blocks), () => this.#idle());
  }
}
