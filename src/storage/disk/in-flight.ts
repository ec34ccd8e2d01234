// Counts the requests that are under way, and calls who waits for none to be.

export class InFlight {
  private count = 0;
  private waiting: (() => void)[] = [];

  began(): void {
    this.count += 1;
  }

  ended(): void {
    this.count -= 1;
    if (this.count > 0) return;
    const waiting = this.waiting;
    this.waiting = [];
    for (const resume of waiting) resume();
  }

  /** Calls back when nothing is in flight, at once if nothing is. */
  idle(then: () => void): void {
    if (this.count === 0) then();
    else this.waiting.push(then);
  }
}
