// Why the master believed that it might restart a VM: a finding, and what was seen that speaks for it. The right
// to restart comes from the lock alone, so a wrong finding harms nobody; but whoever asks the next day why a VM
// was started elsewhere finds here whether its host was dead, cut off, or only without its daemon.

import type { HostId, Term } from '../model/ids.ts';
import type { Finding, ProofOfDeath } from '../model/restart.ts';
import type { LockStatus } from '../storage/api.ts';
import type { Candidate } from './failover-entry.ts';

/** What the master has of a host. */
export interface Sign {
  readonly isHeard: boolean;
  /** On the HA network, milliseconds; null: it was never heard. */
  readonly silentForMs: number | null;
  /** Its kernel ended our sessions of the HA network after it was last heard. */
  readonly hasClosed: boolean;
  /** Somebody of the partition reaches it over the storage network. */
  readonly isReached: boolean;
}

export function proofOfDeath(seen: {
  readonly candidate: Candidate;
  readonly lock: LockStatus;
  /** Of the host that it ran on; null: nobody knows which that was. */
  readonly sign: Sign | null;
  readonly master: HostId;
  readonly term: Term;
  readonly at: number;
}): ProofOfDeath {
  const { candidate, lock, sign, master, term, at } = seen;
  const { from: host } = candidate;
  const finding = host === null || sign === null ? 'unknown' : findingOf(candidate, sign);
  const ofHost =
    host === null || sign === null ? [] : [haText(host, sign), storageText(host, sign)];
  const evidence = [guestText(candidate), ...ofHost, lockText(lock)];
  return { finding, host, epoch: lock.epoch, evidence, master, term, at };
}

function findingOf({ prefer, isCutOff, hasHung }: Candidate, sign: Sign): Finding {
  if (isCutOff) return 'cutOff';
  if (hasHung) return 'guestHung';
  if (prefer !== null || sign.isHeard) return 'guestEnded';
  if (sign.isReached) return 'partitioned';
  return sign.hasClosed ? 'daemonEnded' : 'hostSilent';
}

function guestText({ from, prefer, isCutOff, hasHung }: Candidate): string {
  if (hasHung) return `its guest hung on ${from}, and was ended`;
  if (isCutOff) return `its guest stands on ${from}, which can not use its objects`;
  if (prefer !== null) return `its guest ended by itself on ${from}`;
  return from === null ? 'nobody knows where it ran' : `it ran on ${from}`;
}

function haText(host: HostId, { isHeard, silentForMs, hasClosed }: Sign): string {
  if (isHeard) return `${host} is heard on the HA network`;
  if (silentForMs === null) return `${host} was never heard on the HA network`;
  const seconds = (silentForMs / 1000).toFixed(1);
  const closed = hasClosed ? ', and its kernel has closed its sessions' : '';
  return `${host} has been silent on the HA network for ${seconds} s${closed}`;
}

function storageText(host: HostId, { isReached }: Sign): string {
  return isReached
    ? `${host} is reached over the storage network`
    : `${host} is not reached over the storage network`;
}

function lockText({ holder, epoch }: LockStatus): string {
  return holder === null
    ? `its lock was given back after epoch ${epoch}`
    : `the lease of ${holder}, epoch ${epoch}, has ended by the word of its voters`;
}
