// What the guests of a VM report of their disk, one after the other, held together: the witness for "no
// acknowledged and flushed write is lost". `wrote N` comes after N was flushed, `read N` after each boot. A
// number that is not found again was lost; one that is reported once more was written by somebody who did not
// know that it was there. Pure.

export interface Fault {
  readonly vm: string;
  readonly host: string;
  readonly text: string;
}

export class Numbers {
  readonly #vm: string;
  /** The last number that was acknowledged, and where. */
  #wrote = 0;
  #host = '';
  boots = 0;
  readonly faults: Fault[] = [];

  constructor(vm: string) {
    this.#vm = vm;
  }

  get wrote(): number {
    return this.#wrote;
  }

  /** Whose lines are the next to be taken where several hosts have some: who spoke last goes on. */
  get speaker(): string {
    return this.#host;
  }

  /** A line of the serial console of a guest of this VM. Returns whether it is one of its reports. */
  take(host: string, line: string): boolean {
    const [, word, rest = ''] = /holdfast: (read|wrote|verify) (.*?)\r*$/.exec(line) ?? [];
    if (word === undefined) return false;
    const number = /^\d+$/.test(rest) ? Number(rest) : null;
    this.#host = host;
    if (word === 'verify' && rest.startsWith('bad')) this.#fault(host, `says "verify ${rest}"`);
    if (word === 'read' && number !== null) {
      this.boots += 1;
      if (number < this.#wrote) {
        this.#fault(host, `read ${number}, and ${this.#wrote} had been acknowledged`);
      }
    }
    if (word === 'wrote' && number !== null) {
      if (number <= this.#wrote) {
        this.#fault(host, `wrote ${number}, and ${this.#wrote} had been acknowledged`);
      }
      this.#wrote = Math.max(this.#wrote, number);
    }
    return true;
  }

  #fault(host: string, text: string): void {
    this.faults.push({ vm: this.#vm, host, text });
  }
}
