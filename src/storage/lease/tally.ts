// How fresh the majority of each lease's voters is: the send time of the oldest heartbeat in the freshest
// majority. Kept apart from the leases, and dense, because nothing is done more often: a host with 156
// VMs counts 940 votes per second, and 64 such hosts in one process 60,000 (as objects and maps
// these took a third of all time, most of it waiting for memory).
//
// A lease has a slot, each of its voters a seat there; the place of both is one number. It knows
// nothing of whether a vote may count: that is the holder's business.

import { majority } from '../../model/record.ts';

const nothing = Number.NEGATIVE_INFINITY;

export class Tally {
  /** Seats per slot: two leases of three voters fit into a line of the processor's cache. */
  #width = 4;
  #slots = 0;
  /** By place: send time of the newest heartbeat that counts; the voter's promise from it stands. */
  #counted = new Float64Array(0);
  /** By slot: the answer. */
  #oldest = new Float64Array(0);
  /** By slot: voters that make a majority. */
  #needed = new Uint16Array(0);
  readonly #free: number[] = [];

  /** A slot in which nothing counts yet. Places that were asked for earlier may move (`width`). */
  open(voters: number): number {
    if (voters > this.#width) this.#layOut(this.#oldest.length, 2 ** Math.ceil(Math.log2(voters)));
    const slot = this.#free.pop() ?? this.#slots++;
    if (slot >= this.#oldest.length) this.#layOut(Math.max(16, 2 * slot), this.#width);
    this.#needed[slot] = majority(voters);
    this.clear(slot);
    return slot;
  }

  /** It may be given out again. */
  close(slot: number): void {
    this.#free.push(slot);
  }

  /** As long as it stays the same, places stay where they are. */
  get width(): number {
    return this.#width;
  }

  place(slot: number, seat: number): number {
    return slot * this.#width + seat;
  }

  slotOf(place: number): number {
    return Math.floor(place / this.#width);
  }

  /** Nothing counts any more that counted before. */
  clear(slot: number): void {
    this.#counted.fill(nothing, slot * this.#width, (slot + 1) * this.#width);
    this.#oldest[slot] = nothing;
  }

  /** A heartbeat of this time counts; returns whether that made the majority fresher. */
  count(place: number, sentAtMs: number): boolean {
    if (sentAtMs <= (this.#counted[place] as number)) return false;
    this.#counted[place] = sentAtMs;
    const slot = this.slotOf(place);
    const before = this.#oldest[slot] as number;
    if (sentAtMs <= before) return false; // a majority is fresher without it
    const after = this.#oldestOfMajority(slot);
    this.#oldest[slot] = after;
    return after > before;
  }

  /** Minus infinity where no majority counts. */
  oldest(slot: number): number {
    return this.#oldest[slot] as number;
  }

  #oldestOfMajority(slot: number): number {
    const counted = this.#counted;
    const needed = this.#needed[slot] as number;
    const first = slot * this.#width;
    const end = first + this.#width; // seats that nobody has never count
    let oldest = nothing;
    for (let one = first; one < end; one += 1) {
      const atMs = counted[one] as number;
      if (atMs <= oldest) continue;
      let notOlder = 0;
      for (let other = first; other < end; other += 1) {
        if ((counted[other] as number) >= atMs) notOlder += 1;
      }
      if (notOlder >= needed) oldest = atMs;
    }
    return oldest;
  }

  #layOut(slots: number, width: number): void {
    const counted = new Float64Array(slots * width).fill(nothing);
    for (let slot = 0; slot < this.#oldest.length; slot += 1) {
      const from = slot * this.#width;
      counted.set(this.#counted.subarray(from, from + this.#width), slot * width);
    }
    const oldest = new Float64Array(slots).fill(nothing);
    oldest.set(this.#oldest);
    const needed = new Uint16Array(slots);
    needed.set(this.#needed);
    this.#counted = counted;
    this.#oldest = oldest;
    this.#needed = needed;
    this.#width = width;
  }
}
