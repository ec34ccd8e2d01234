// What HA has done for a VM so far, and why it might. It is kept in the VM's own metadata: any later master
// goes on from there, and people can read afterwards why it was done.

import type { Epoch, HostId, Term } from './ids.ts';
import type { JsonValue } from './json.ts';

/** Of the service `ha`. */
export const attemptsKey = 'attempts';
/** Of the service of the host that runs the VM. */
export const restartKey = 'restart';

/** How often in a row; a VM that has run for a while since has none. */
export interface Attempts {
  /** A start of it failed. */
  readonly failed: number;
  /** Its guest ended soon after HA had started it. */
  readonly endedSoon: number;
}

export const noAttempts: Attempts = { failed: 0, endedSoon: 0 };

/** What became of the instance before, as far as the master could tell. */
export type Finding =
  /** It ended on a host that lives. */
  | 'guestEnded'
  /** It hung on a host that lives, which ended it. */
  | 'guestHung'
  /** It stands on a host that lives and can not use its objects. */
  | 'cutOff'
  /** Its host is out of reach on the HA network, and within reach on the storage network. */
  | 'partitioned'
  /** Its host lives, and has closed its sessions: the daemon has ended. */
  | 'daemonEnded'
  /** Nothing is heard of its host on either network: it has no power, or it is cut off from everybody. */
  | 'hostSilent'
  /** Where it ran, nobody knows. */
  | 'unknown';

/** Why the master believed that it might restart a VM, written in the change that took the lock for it. The right
 * to do so came from that lock alone. */
export interface ProofOfDeath {
  readonly finding: Finding;
  /** Where the instance before ran, and the lock's epoch then. */
  readonly host: HostId | null;
  readonly epoch: Epoch;
  /** Sentences: what was seen on the HA network, on the storage network, and of the lock. */
  readonly evidence: readonly string[];
  readonly master: HostId;
  readonly term: Term;
  /** Wall time, milliseconds since 1970; for people. */
  readonly at: number;
}

export function readProofOfDeath(value: JsonValue | undefined): ProofOfDeath | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const { finding, evidence } = value as { readonly [key: string]: JsonValue };
  if (typeof finding !== 'string' || !Array.isArray(evidence)) return null;
  return value as unknown as ProofOfDeath;
}

export function readAttempts(value: JsonValue | undefined): Attempts {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return noAttempts;
  const { failed, endedSoon } = value as { readonly [key: string]: JsonValue };
  if (typeof failed !== 'number' || typeof endedSoon !== 'number') return noAttempts;
  return { failed, endedSoon };
}
