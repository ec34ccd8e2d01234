// Time as one host sees it. Only `now` counts for decisions; it never steps, and it goes on while
// the machine sleeps, so that a lease cannot outlive a suspended host.

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds (with fractions) of this host's monotonic clock that includes suspended time. */
  now(): number;
  /** Milliseconds since 1970: for people and for events, never for decisions. */
  wallTime(): number;
  /** Calls back once, not before `delayMs` have passed. */
  after(delayMs: number, callback: () => void): Timer;
  /** Calls back soon, after what runs now has returned. */
  defer(callback: () => void): void;
}
