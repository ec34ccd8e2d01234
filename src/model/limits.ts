// All bounds and all default timings in one place, with the relations between them checked below.

export const timings = {
  /** Between two heartbeats of a pair of hosts, on each network. */
  heartbeatIntervalMs: 500,
  /** How long a voter protects the locks of a host after that host's last heartbeat. */
  leaseDurationMs: 4000,
  /** By how much a holder stops earlier than its voters would: drift of clock rates, time to stop. */
  safetyMarginMs: 1000,
  /** Silence after which a host is suspected / counts as failed (HA), or as unreachable (storage). */
  suspectAfterMs: 1500,
  failAfterMs: 2500,
  /** A component that is silent for so long leaves the in-sync set. */
  componentTimeoutMs: 2000,
  /** A voter that heard of no commit for so long finishes the change itself. */
  finishAfterMs: 500,
  /** Of one message of the register protocol. */
  registerTimeoutMs: 1000,
  /** Of a change of a record, with all its retries. */
  changeTimeoutMs: 8000,
  /** Between two comparisons of the directories of two hosts. */
  directorySyncMs: 5000,
  /** Between two attempts to bring an absent copy back. */
  resyncRetryMs: 1000,
  /** A host that is away for so long is replaced as a voter and as the place of a copy. */
  repairDelayMs: 3_600_000,
  /** Between two looks at what is to be repaired. */
  repairIntervalMs: 2000,
  /** Quiet time after which write-intent bits are cleared. */
  bitmapClearMs: 2000,
  /** In which all blocks of a host's components are compared with their checksums once. */
  scrubIntervalMs: 7 * 24 * 3_600_000,
  /** A guest that was heard and is silent for so long, while its process runs, may hang. */
  guestSilentAfterMs: 15000,
  /** It hangs if from then on for so long it is not heard and asks nothing of its disks; longer than QEMU waits
   * between two attempts to reach a disk (16 s), or a guest whose disk was away would count as silent. */
  guestHungAfterMs: 30000,
  /** Grace of a user's power-off before the guest is ended. */
  powerOffGraceMs: 20000,
} as const;

export type Timings = { readonly [key in keyof typeof timings]: number };

export const limits = {
  maxFrameBytes: 34 * 1024 * 1024,
  maxNbdRequestBytes: 32 * 1024 * 1024,
  maxRecordBytes: 256 * 1024,
  /** VMs that one is started after. */
  maxDependencies: 16,
  maxMetadataValueBytes: 16 * 1024,
  /** Of all services of one VM together, where users write. */
  maxMetadataBytes: 128 * 1024,
  maxMetadataNameLength: 128,
  /** Of one call. */
  maxMetadataChanges: 10_000,
  maxDiskBytes: 62 * 2 ** 40,
  minDiskBytes: 1024 * 1024,
  minMemoryBytes: 16 * 1024 * 1024,
  maxMemoryBytes: 16 * 2 ** 40,
  maxCpus: 512,
  maxDisks: 16,
  /** Of a disk on storage that all hosts see. */
  maxPathLength: 1024,
  /** Of one host, beside its main one. */
  maxDevices: 64,
  maxStripes: 12,
  maxFailuresToTolerate: 3,
  /** Named ones, those that were removed included. */
  maxPolicies: 1000,
  /** Region of the write-intent bitmap. */
  regionBytes: 1024 * 1024,
  stripeBytes: 1024 * 1024,
  /** What one checksum is for. */
  blockBytes: 4096,
  maxNameLength: 63,
  /** Used part of a host's device from which on it is said that it gets full / it takes no new objects. */
  nearFullAtPercent: 85,
  fullAtPercent: 95,
} as const;

/** Why these timings can not be used, or null: relations that safety or liveness rest on. */
export function timingsProblem(t: Timings): string | null {
  if (t.safetyMarginMs >= t.leaseDurationMs - 2 * t.heartbeatIntervalMs) {
    return 'leaseDuration must exceed safetyMargin by more than two heartbeat intervals';
  }
  if (t.safetyMarginMs < t.leaseDurationMs / 50) {
    return 'safetyMargin must be at least 2% of leaseDuration, or clock drift eats it';
  }
  if (t.suspectAfterMs < 2 * t.heartbeatIntervalMs) {
    return 'suspectAfter must be at least two heartbeat intervals';
  }
  if (t.repairDelayMs < t.leaseDurationMs + t.failAfterMs) {
    return 'repairDelay must be longer than leaseDuration and failAfter together';
  }
  if (t.failAfterMs <= t.suspectAfterMs) return 'failAfter must be longer than suspectAfter';
  return null;
}
