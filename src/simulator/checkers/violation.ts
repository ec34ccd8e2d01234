// What can be broken, and how it is told. A checker looks at the cluster from outside and says what it
// saw; when that was, and what becomes of it, is not its business.

export const invariantNames = [
  /** At most one guest of a VM runs, at any instant, anywhere. */
  'single-instance',
  /** A guest that runs was begun under its VM's lock. */
  'started-with-lock',
  /** When a newer lock of its VM is committed, a guest of an older one stands still. */
  'stopped-before-next-lock',
  /** A guest is ended for hanging only if it does nothing any more. */
  'ends-only-hung',
  /** HA takes the lock only of what is protected at that very step. */
  'ha-starts-protected',
  /** No guest reads what its truth forbids. */
  'no-lost-write',
  /** What an older epoch wrote changes nothing that a newer one has begun to read. */
  'no-stale-write',
  /** Each record's history is that of one copy of it. */
  'linearizable-registers',
  /** What counts as committed is with a majority, and stays there. */
  'commit-has-majority',
  /** Acknowledged protection stays until the user ends it. */
  'protection-kept',
  /** The record says which copies count before a guest is answered without the others. */
  'in-sync-before-acknowledge',
  /** A write through is on the medium of each copy that counts when the guest is answered. */
  'flushed-is-durable',
] as const;

export type InvariantName = (typeof invariantNames)[number];

export interface Violation {
  /** Milliseconds of the story. */
  readonly atMs: number;
  readonly invariant: InvariantName;
  readonly text: string;
}

export type Report = (invariant: InvariantName, text: string) => void;
