// All that is seen of a lab while it runs: the processes of its guests, what the guests report, and what the hosts
// write down. It looks ten times a second, and judges nothing but what must never be.

import { type Diary, type Entry, isTold } from './diary.ts';
import type { LabHost } from './host.ts';
import { type Change, Instances } from './instances.ts';
import { Numbers } from './numbers.ts';
import { Observer } from './observer.ts';
import { Tail } from './tail.ts';

export interface WatchedVm {
  readonly id: string;
  readonly name: string;
}

export interface Violation {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly invariant: 'single-instance' | 'no-lost-write';
  readonly text: string;
}

export interface WatchOptions {
  readonly hosts: readonly LabHost[];
  readonly vms: readonly WatchedVm[];
  readonly diary: Diary;
  readonly onViolation: (violation: Violation) => void;
  readonly onEntry: (entry: Entry) => void;
  /** With the VM's name in `vm`. */
  readonly onChange: (change: Change) => void;
}

const lookEveryMs = 100;

export class Watch {
  readonly instances = new Instances();
  readonly observer: Observer;
  readonly #options: WatchOptions;
  readonly #nameOf: ReadonlyMap<string, string>;
  readonly #numbers = new Map<string, Numbers>();
  readonly #consoles: { readonly vm: string; readonly host: string; readonly tail: Tail }[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(options: WatchOptions) {
    this.#options = options;
    const { hosts, vms } = options;
    this.#nameOf = new Map(vms.map(({ id, name }) => [id, name]));
    for (const { id, name } of vms) {
      this.#numbers.set(name, new Numbers(name));
      for (const host of hosts) {
        const tail = new Tail(`${host.runDir}/${id}/serial.log`);
        this.#consoles.push({ vm: name, host: host.name, tail });
      }
    }
    this.observer = new Observer(
      {
        hosts: new Map(hosts.map(({ inode, name }) => [inode, name])),
        vms: vms.map(({ id }) => id),
      },
      {
        change: (change) => this.#changed(change),
        doubled: ({ at, vm, hosts: on }) => {
          const text = `${this.#name(vm)} runs on ${on.join(' and ')} at once`;
          options.onViolation({ at, invariant: 'single-instance', text });
        },
      },
    );
    this.#timer = setInterval(() => this.#look(), lookEveryMs);
  }

  numbers(vm: string): Numbers {
    return this.#numbers.get(vm) as Numbers;
  }

  /** Ends it, after a last look. */
  async finish(): Promise<void> {
    clearInterval(this.#timer);
    await this.observer.finish();
    this.#look();
  }

  /** Where the run did not come to its end. */
  abandon(): void {
    clearInterval(this.#timer);
    void this.observer.finish().catch(() => undefined);
  }

  #name(id: string): string {
    return this.#nameOf.get(id) ?? id;
  }

  #changed(change: Change): void {
    const named = { ...change, vm: this.#name(change.vm) };
    this.instances.take(named);
    this.#options.onChange(named);
  }

  #look(): void {
    for (const entry of this.#options.diary.news()) {
      // Looked at only where it is told: a fault's text may have the ids of VMs.
      const message = isTold(entry)
        ? entry.message.replace(/[0-9a-f]{32}/g, (id) => this.#name(id))
        : entry.message;
      this.#options.onEntry({ ...entry, message });
    }
    const spoken = this.#consoles
      .map(({ vm, host, tail }) => ({ vm, host, lines: tail.lines() }))
      .filter(({ lines }) => lines.length > 0);
    // Where a guest has moved since the last look, what it said before comes first.
    spoken.sort((a, b) => this.#turn(a.vm, a.host) - this.#turn(b.vm, b.host));
    for (const { vm, host, lines } of spoken)
      for (const line of lines) this.#report(vm, host, line);
  }

  #turn(vm: string, host: string): number {
    return this.numbers(vm).speaker === host ? 0 : 1;
  }

  #report(vm: string, host: string, line: string): void {
    const numbers = this.numbers(vm);
    const before = numbers.faults.length;
    numbers.take(host, line);
    for (const { text } of numbers.faults.slice(before)) {
      const violation = { at: Date.now(), invariant: 'no-lost-write' as const };
      this.#options.onViolation({ ...violation, text: `the guest of ${vm} on ${host} ${text}` });
    }
  }
}
