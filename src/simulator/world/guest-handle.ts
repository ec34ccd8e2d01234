// A guest as one run of the daemon holds it. The guest outlives the daemon; what a daemon that is dead
// by now still says to it on its way out is not heard.

import type { DiskActivity, Guest, GuestEvent, ServedDisk } from '../../ports/guests.ts';
import type { VirtualGuest } from './guest.ts';
import type { Process } from './process.ts';

export class GuestHandle implements Guest {
  readonly #guest: VirtualGuest;
  readonly #daemon: Process;

  constructor(guest: VirtualGuest, daemon: Process) {
    this.#guest = guest;
    this.#daemon = daemon;
  }

  get vm() {
    return this.#guest.vm;
  }

  get name() {
    return this.#guest.name;
  }

  get epoch() {
    return this.#guest.epoch;
  }

  get state() {
    return this.#guest.state;
  }

  get disks() {
    return this.#guest.diskNames;
  }

  get wasHeard() {
    return this.#guest.wasHeard;
  }

  async pathActivity(): Promise<DiskActivity | null> {
    return this.#daemon.isAlive ? this.#guest.pathActivity : null;
  }

  extend(deadlineMs: number): void {
    if (this.#daemon.isAlive) this.#guest.extend(deadlineMs);
  }

  async pause(): Promise<void> {
    if (this.#daemon.isAlive) this.#guest.pause();
  }

  async resume(deadlineMs: number): Promise<void> {
    if (this.#daemon.isAlive) this.#guest.resume(deadlineMs);
  }

  async powerDown(): Promise<void> {
    if (this.#daemon.isAlive) this.#guest.powerDown();
  }

  attachDisk(disk: ServedDisk): Promise<void> {
    return this.#daemon.isAlive ? this.#guest.attachDisk(disk) : new Promise(() => {});
  }

  async kill(): Promise<void> {
    if (this.#daemon.isAlive) this.#guest.kill();
  }

  handle(onEvent: (event: GuestEvent) => void): void {
    if (this.#daemon.isAlive) this.#guest.attach(this.#daemon, onEvent);
  }

  detach(): void {
    if (this.#daemon.isAlive) this.#guest.detach();
  }
}
