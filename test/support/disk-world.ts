// Hosts that have nothing but components of one disk, and a writer that moves between them. The
// record is a variable whose changes may fail, be late, or happen without being heard of; the lease
// is a gate in the test's hand.

import { HoldfastError } from '../../src/model/errors.ts';
import {
  componentId,
  epoch,
  type HostId,
  hostId,
  objectId,
  revision,
  storeId,
  vmId,
} from '../../src/model/ids.ts';
import type { JsonValue } from '../../src/model/json.ts';
import { timings } from '../../src/model/limits.ts';
import {
  type Blueprint,
  type Component,
  components,
  type DiskRecord,
} from '../../src/model/record.ts';
import { createPeer, type Peer } from '../../src/peer/peer.ts';
import type { Clock } from '../../src/ports/clock.ts';
import { noProbe } from '../../src/ports/probe.ts';
import { soleDevice } from '../../src/storage/devices/pool.ts';
import { createComponentStore } from '../../src/storage/disk/component-store.ts';
import { openDisk } from '../../src/storage/disk/disk.ts';
import type { BadBlock } from '../../src/storage/disk/messages.ts';
import type { Gate } from '../../src/storage/disk/mirror.ts';
import type { OpenDisk } from '../../src/storage/disk/open-disk.ts';
import { BlockOracle, blockBytes } from './block-oracle.ts';
import { MemoryDisk } from './memory-disk.ts';
import { MemoryNetwork } from './memory-network.ts';
import { SeededRandom } from './seeded-random.ts';
import { SilentLog } from './silent-log.ts';
import { VirtualClock } from './virtual-clock.ts';

export interface DiskWorldOptions {
  readonly seed: number | string;
  /** Hosts 1 to `copies` hold a copy each, of 3 hosts. */
  readonly copies?: number;
  readonly stripes?: number;
  readonly stripeBytes?: number;
  readonly sizeBytes?: number;
}

/** Bits are cleared, and copies brought back, soon: so that it happens amid the faults. */
const hasty = { ...timings, bitmapClearMs: 60, resyncRetryMs: 100 };

interface Running {
  readonly clock: Clock & { kill(): void };
  readonly peer: Peer & { start(): void };
}

/** One opening of the disk by one host. */
export class Session {
  disk: OpenDisk | null = null;
  isOpen = true;
  isOver = false;
  /** Its disk must not answer any more. */
  isMute = false;
  pending = 0;
  lost = 0;
  /** When the last flush that was acknowledged was issued. */
  flushedAtMs = -1;
  readonly #waiting: (() => void)[] = [];
  readonly host: HostId;

  constructor(host: HostId) {
    this.host = host;
  }

  readonly gate: Gate = {
    isOpen: () => this.isOpen,
    pass: (proceed) => {
      if (this.isOpen) proceed();
      else this.#waiting.push(() => this.gate.pass(proceed));
    },
  };

  setGate(isOpen: boolean): void {
    this.isOpen = isOpen;
    if (isOpen) for (const proceed of this.#waiting.splice(0)) proceed();
  }
}

export class DiskWorld {
  readonly clock = new VirtualClock();
  readonly random: SeededRandom;
  readonly network: MemoryNetwork;
  readonly log = new SilentLog();
  readonly hosts = ['host-1', 'host-2', 'host-3'].map(hostId);
  readonly disks = new Map<HostId, MemoryDisk>();
  readonly running = new Map<HostId, Running>();
  readonly oracle: BlockOracle;
  readonly trace: string[] = [];
  record: DiskRecord;
  session: Session | null = null;
  /** Of one operation of a disk now and then. */
  slowestMs = 1;
  /** Probability that a change of the record fails, or does not tell its outcome. */
  changeTrouble = 0;
  /** Blocks may be bad on all copies: reads may fail, and must not return what is wrong. */
  mayBeUnreadable = false;
  /** What becomes of the next changes of the record; then chance decides. */
  readonly fates: ('refused' | 'applied' | 'late')[] = [];
  /** By default there is no scrub. */
  scrubIntervalMs = 1e9;
  /** When a host was last started. */
  startedAtMs = 0;
  /** Blocks in which bits were flipped and that were not repaired since, as events name them. */
  readonly corrupted = new Set<string>();
  #isCorrupted = false;
  #epoch = 0;
  #runs = 0;
  #stamp = 0;

  constructor(options: DiskWorldOptions) {
    this.random = new SeededRandom(options.seed);
    this.network = new MemoryNetwork(this.clock, this.random.stream('network'), { detectMs: 30 });
    const stripes = options.stripes ?? 1;
    const sizeBytes = options.sizeBytes ?? 24 * 1024;
    const mirrors = this.hosts.slice(0, options.copies ?? 2).map((host, mirror) => ({
      stripes: Array.from({ length: stripes }, (_, stripe) => ({
        id: componentId(`disk.m${mirror}.s${stripe}`),
        host,
        store: storeId(host),
        sizeBytes: sizeBytes / stripes,
      })),
    }));
    this.record = {
      kind: 'disk',
      id: objectId('disk'),
      vm: vmId('vm'),
      name: 'disk0',
      revision: revision(1),
      policy: { failuresToTolerate: mirrors.length - 1, stripes },
      voters: [],
      sizeBytes,
      blueprint: { stripeBytes: options.stripeBytes ?? 4096, mirrors },
      inSync: mirrors.flatMap((mirror) => mirror.stripes.map((component) => component.id)),
      fence: { epoch: epoch(0), open: 0 },
    };
    this.oracle = new BlockOracle(sizeBytes);
  }

  async start(): Promise<void> {
    for (const host of this.hosts) {
      const disk = new MemoryDisk(this.clock);
      const dice = this.random.stream(`latency of ${host}`);
      disk.latencyMs = () => dice.next() * dice.pick([0.1, 1, 1, this.slowestMs]);
      this.disks.set(host, disk);
      this.startHost(host);
    }
    await this.clock.run(1);
    const peer = (this.running.get(this.hosts[0] as HostId) as Running).peer;
    for (const { id, host, sizeBytes } of components(this.record.blueprint)) {
      const request: JsonValue = { component: id, object: 'disk', sizeBytes };
      await this.clock.wait(peer.ask(host, 'component.create', request, 5000));
    }
  }

  note(text: string): void {
    this.trace.push(`${this.clock.now().toFixed(1)} ${text}`);
  }

  startHost(host: HostId): void {
    this.note(`start ${host}`);
    this.startedAtMs = this.clock.now();
    const clock = this.clock.process();
    const transport = this.network.attach(host);
    const peer = createPeer({ self: host, network: 'storage', transport, clock, log: this.log });
    this.#runs += 1;
    createComponentStore({
      peer,
      clock,
      scrubIntervalMs: this.scrubIntervalMs,
      onBadBlock: (_object, text) => this.note(`found: ${text}`),
      pool: soleDevice(this.disk(host).attach()),
      log: this.log,
      incarnation: this.#runs,
      isDeleted: () => false,
      diskOf: () => null,
    });
    peer.on('component.bad', (_from, body) => {
      const { component, offset } = body as unknown as BadBlock;
      if (this.session?.host === host) this.session.disk?.verify(component, offset);
    });
    this.running.set(host, { clock, peer });
    peer.start();
    transport.setPeers(
      new Map(this.hosts.filter((other) => other !== host).map((other) => [other, ''])),
    );
  }

  /** `power`: what was not synced may be lost; else only the daemon ends. */
  crash(host: HostId, power: boolean): void {
    this.note(`${power ? 'cut power of' : 'kill'} ${host}`);
    this.running.get(host)?.clock.kill();
    this.running.delete(host);
    this.network.detach(host);
    if (power) this.disk(host).cutPower(this.random.stream('disk'));
    else this.disk(host).kill(this.random.stream('disk'));
    if (this.session?.host === host) this.endSession();
  }

  disk(host: HostId): MemoryDisk {
    return this.disks.get(host) as MemoryDisk;
  }

  /** The present writer is over: its lease ended, or its host did. */
  endSession(): void {
    if (this.session === null) return;
    this.note(`writer on ${this.session.host} is over`);
    this.session.isOver = true;
    this.session.setGate(false);
    this.session = null;
  }

  /** Opens the disk on a host, after the lease of the writer before has ended. */
  open(host: HostId, sameEpoch = false): void {
    this.endSession();
    const running = this.running.get(host);
    if (running === undefined) return;
    if (!sameEpoch) this.#epoch += 1;
    const session = new Session(host);
    this.session = session;
    this.note(`open on ${host} with epoch ${this.#epoch}`);
    const end = (why: string) => {
      this.note(`writer on ${host} ends: ${why}`);
      if (this.session === session) this.endSession();
    };
    void openDisk({
      object: this.record.id,
      name: 'disk',
      epoch: epoch(this.#epoch),
      guestRuns: true,
      onWritesLost: () => {
        this.note('writes lost');
        session.lost += 1;
        // A writer that is over may learn of it last: the guest of the next one is a new one.
        if (!session.isOver || this.session?.disk == null) this.oracle.writesLost();
        session.isMute = true;
        // Its guest is ended, and started anew.
        running.clock.after(1, () => {
          if (this.session === session) this.open(host);
        });
      },
      onFenced: () => end('fenced'),
      onEvent: (type, text) => {
        this.note(`${type}: ${text}`);
        const isOfBlock = type === 'repaired' || type === 'unreadable';
        if (isOfBlock && !this.#isCorrupted) this.oracle.problems.push(`nothing is wrong: ${text}`);
        if (type !== 'repaired') return;
        for (const one of [...this.corrupted]) if (text.includes(one)) this.corrupted.delete(one);
      },
      gate: session.gate,
      change: (_object, change) => this.#change(running.clock, change),
      isReachable: (other) => running.peer.isConnected(other),
      peer: running.peer,
      clock: running.clock,
      timings: hasty,
      log: this.log,
      probe: noProbe,
    }).then(
      (disk) => {
        session.disk = disk;
        this.note(`opened on ${host}`);
      },
      (error: unknown) => end(String(error)),
    );
  }

  write(fua: boolean): void {
    const session = this.session;
    if (session?.disk == null || session.pending > 20) return;
    const { offset, length } = this.#range();
    this.#stamp = (this.#stamp % 255) + 1;
    const bytes = new Uint8Array(length).fill(this.#stamp);
    const stamp = this.#stamp;
    this.note(`write ${stamp} to ${offset / blockBytes}+${length / blockBytes}`);
    const acknowledged = this.oracle.write(offset, bytes, fua);
    session.pending += 1;
    session.disk.write(offset, bytes, fua, (error) => {
      this.#answered(session, error);
      if (error !== null || session.isOver) return;
      this.note(`wrote ${stamp}`);
      acknowledged();
    });
  }

  zero(): void {
    const session = this.session;
    if (session?.disk == null || session.pending > 20) return;
    const { offset, length } = this.#range();
    const options = { unmap: this.random.chance(0.7), fua: this.random.chance(0.1) };
    const what = `zeros to ${offset / blockBytes}+${length / blockBytes}`;
    this.note(`${options.unmap ? 'unmaps ' : ''}${what}`);
    const acknowledged = this.oracle.write(offset, new Uint8Array(length), options.fua);
    session.pending += 1;
    session.disk.zero(offset, length, options, (error) => {
      this.#answered(session, error);
      if (error !== null || session.isOver) return;
      this.note(`wrote ${what}`);
      acknowledged();
    });
  }

  read(all = false): void {
    const session = this.session;
    if (session?.disk == null || session.pending > 20) return;
    const { offset, length } = all ? { offset: 0, length: this.record.sizeBytes } : this.#range();
    const check = this.oracle.read(
      offset,
      length,
      `read of ${session.host} at ${this.clock.now()}`,
    );
    session.pending += 1;
    session.disk.read(offset, length, (error, bytes) => {
      this.#answered(session, error);
      if (session.isOver) return;
      if (error === null) check(bytes);
      else if (!this.mayBeUnreadable && error.code !== 'stopped') {
        this.oracle.problems.push(`a read fails: ${error.message}`);
      }
    });
  }

  flush(): void {
    const session = this.session;
    if (session?.disk == null || session.pending > 20) return;
    const flushed = this.oracle.flush();
    const issuedAtMs = this.clock.now();
    session.pending += 1;
    session.disk.flush((error) => {
      this.#answered(session, error);
      if (error !== null || session.isOver) return;
      this.note('flushed');
      session.flushedAtMs = issuedAtMs;
      flushed();
    });
  }

  #answered(session: Session, error: HoldfastError | null): void {
    session.pending -= 1;
    if (error === null && session.isMute)
      this.oracle.problems.push('answers after a loss of writes');
  }

  /** Something that another policy may ask for, with this many mirrors at least. */
  changeTree(leastMirrors: number): void {
    const { session, random } = this;
    const disk = session?.disk;
    if (session === null || disk == null) return;
    const { blueprint } = this.record;
    const hosts = this.hosts.filter((host) => !blueprint.mirrors.some((it) => isOn(it, host)));
    const told = (what: string, change: Promise<void>) => {
      change.then(
        () => this.note(`${what}: done`),
        (error: Error) => this.note(`${what}: ${error.message}`),
      );
    };
    const dice = random.next();
    const filling = disk.filling();
    if (filling !== null) {
      if (dice < 0.15) told('give up', disk.giveUpNext(filling.next, 'nobody wants it'));
    } else if (dice < 0.5) {
      const mirrors = leastMirrors + random.below(4 - leastMirrors);
      const next = this.#tree(disk, 1 + random.below(3), this.#shuffledHosts().slice(0, mirrors));
      const parts = components(next).map((part) => `${part.id} on ${part.host}`);
      this.note(`restripe to ${parts.join(', ')}`);
      const make = () => this.#makeAll(session.host, components(next));
      told('restripe', disk.restripe(next, make));
    } else if (dice < 0.75 && hosts.length > 0) {
      const host = random.pick(hosts);
      const [model] = blueprint.mirrors;
      const suffix = disk.newSuffix();
      const stripes = (model?.stripes ?? []).map((one, stripe) => {
        const id = componentId(`disk.m9.s${stripe}.${suffix}`);
        return { id, host, store: storeId(host), sizeBytes: one.sizeBytes };
      });
      this.note(`add a mirror on ${host}`);
      const made = this.#makeAll(session.host, stripes);
      told(
        'add',
        made.then(() => disk.addMirror(stripes)),
      );
    } else if (blueprint.mirrors.length > leastMirrors) {
      const mirror = random.pick(blueprint.mirrors);
      this.note(`remove the mirror on ${mirror.stripes[0]?.host}`);
      const gone = new Set(mirror.stripes.map(({ id }) => id));
      told('remove', disk.removeMirror(gone));
    }
  }

  #shuffledHosts(): HostId[] {
    const weights = new Map(this.hosts.map((host) => [host, this.random.next()]));
    return [...this.hosts].sort((a, b) => (weights.get(a) ?? 0) - (weights.get(b) ?? 0));
  }

  #tree(disk: OpenDisk, stripes: number, hosts: readonly HostId[]): Blueprint {
    const { sizeBytes, blueprint } = this.record;
    const chunks = Math.ceil(sizeBytes / blueprint.stripeBytes);
    const suffix = disk.newSuffix();
    return {
      stripeBytes: blueprint.stripeBytes,
      mirrors: hosts.map((host, mirror) => ({
        stripes: Array.from({ length: stripes }, (_, stripe) => ({
          id: componentId(`disk.m${mirror}.s${stripe}.${suffix}`),
          host,
          store: storeId(host),
          sizeBytes: Math.ceil((chunks - stripe) / stripes) * blueprint.stripeBytes,
        })),
      })),
    };
  }

  async #makeAll(from: HostId, parts: readonly Component[]): Promise<void> {
    const peer = this.running.get(from)?.peer;
    for (const { id, host, sizeBytes } of parts) {
      const request: JsonValue = { component: id, object: 'disk', sizeBytes, mustCopyAll: true };
      await peer?.ask(host, 'component.create', request, 1000);
    }
  }

  isWhole(): boolean {
    return this.record.inSync.length === components(this.record.blueprint).length;
  }

  /** Where two copies of a stripe differ; null if they do not. */
  difference(): string | null {
    const [first, ...others] = this.record.blueprint.mirrors;
    for (const [stripe, component] of (first?.stripes ?? []).entries()) {
      const bytes = this.dataOf(component);
      for (const mirror of others) {
        const other = mirror.stripes[stripe] as typeof component;
        const copy = this.dataOf(other);
        const at = bytes.findIndex((byte, index) => byte !== copy[index]);
        if (at >= 0)
          return `${component.id} and ${other.id} differ at ${at}: ${bytes[at]}, ${copy[at]}`;
      }
    }
    return null;
  }

  /** Flips bits of a copy: of the data at rest, in some block. */
  corrupt(host: HostId): void {
    const here = components(this.record.blueprint).filter((one) => one.host === host);
    if (here.length === 0) return;
    const component = this.random.pick(here);
    const block = this.random.below(component.sizeBytes / 4096);
    this.note(`corrupt block ${block} of ${component.id} on ${host}`);
    for (let flips = this.random.pick([1, 1, 3, 20]); flips > 0; flips -= 1) {
      const offset = block * 4096 + this.random.below(4096);
      this.disk(host).damage(`components/${component.id}.data`, offset, 1 + this.random.below(255));
    }
    this.#isCorrupted = true;
    const { mirrors } = this.record.blueprint;
    const stripe = mirrors
      .find((one) => one.stripes.includes(component))
      ?.stripes.indexOf(component);
    const of = (mirrors[0]?.stripes.length ?? 1) > 1 ? ` of stripe ${stripe}` : '';
    this.corrupted.add(`offset ${block * 4096}${of} on ${host}`);
  }

  /** What a copy holds, without its checksums. */
  dataOf({ id, host, sizeBytes }: Component): Uint8Array {
    return this.disk(host).bytesOf(`components/${id}.data`).subarray(0, sizeBytes);
  }

  /** As the register does it: applied, refused, or of unknown outcome; what is unknown may happen
   * later, until something else is committed. */
  async #change(clock: Clock, change: (record: DiskRecord) => DiskRecord): Promise<DiskRecord> {
    const { random } = this;
    const pause = (ms: number) => new Promise<void>((resolve) => clock.after(ms, resolve));
    await pause(random.next() * random.pick([2, 5, 300]));
    const apply = () => {
      const next = change(this.record);
      if (next !== this.record)
        this.record = { ...next, revision: revision(this.record.revision + 1) };
      this.note(
        `record: fence ${next.fence.epoch}.${next.fence.open} inSync ${next.inSync.join()}`,
      );
      return this.record;
    };
    const planned = this.fates.shift();
    if (planned === undefined && !random.chance(this.changeTrouble)) {
      const record = apply();
      await pause(random.next() * random.pick([1, 20, 500]));
      return record;
    }
    const fate = planned ?? random.pick(['refused', 'applied', 'applied', 'late'] as const);
    const then = this.record;
    if (fate === 'refused') {
      await pause(random.next() * 300);
      throw new HoldfastError('inaccessible', 'no majority');
    }
    if (fate === 'applied') apply();
    else {
      this.clock.after(random.next() * 3000, () => {
        if (this.record !== then) return;
        this.note('a change of unknown outcome happens:');
        try {
          apply();
        } catch {
          // refused: it did not happen
        }
      });
    }
    await pause(random.next() * 1000);
    throw new HoldfastError('outcome-unknown', 'no answer');
  }

  #range(): { offset: number; length: number } {
    const blocks = this.record.sizeBytes / blockBytes;
    const first = this.random.below(blocks);
    const count = Math.min(blocks - first, 1 + this.random.below(this.random.pick([1, 4, 12])));
    return { offset: first * blockBytes, length: count * blockBytes };
  }
}

function isOn({ stripes }: Blueprint['mirrors'][number], host: HostId): boolean {
  return stripes.some((one) => one.host === host);
}
