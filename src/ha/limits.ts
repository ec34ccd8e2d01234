// The pace of HA: how much at once, how long to wait, how often to try. What cluster options set
// (heartbeats, suspicion, failure, lease) is in the model's timings; these are HA's own.

export const haLimits = {
  /** How long an agent without master listens before it stands; gives late suspecters their time. */
  electionWaitMs: 1000,
  /** Between two comparisons of what shall run with what does: each list that comes asks for one, and of hundreds of
   * missing VMs it takes milliseconds. */
  comparePauseMs: 50,
  /** Between two sendings of the list of VMs while it keeps changing. */
  listPauseMs: 100,

  /** Starts ordered and not yet answered, per target, and how many they may become as long as they are quick. */
  startsAtFirst: 4,
  startsAtLeast: 2,
  startsAtMost: 16,
  /** From the order to the answer: lock, disks and process. */
  slowStartMs: 3000,
  /** VMs whose voters are being asked about the lock at once. */
  lockQuestionsInFlight: 64,
  /** Of `ha.start`; longer than a change of a record and the start of a process together. */
  startTimeoutMs: 15_000,
  /** Of `ha.canReach`, which is answered from memory. */
  reachTimeoutMs: 300,
  /** For how long the answer to `ha.canReach` may be used. */
  reachFreshMs: 2000,
  /** Between two questions to a lookout that says nothing by itself. */
  outlookMs: 500,
  /** And to one that says that there is news. */
  outlookPauseMs: 50,
  outlookTimeoutMs: 1000,
  outlookVmsAtOnce: 500,
  /** How often a lookout looks at all VMs, should nobody have told it of a change. */
  outlookFullMs: 2000,
  /** Of what an agent does in the place of the master: asks voters, makes a SET. */
  inPlaceTimeoutMs: 5000,
  /** How long others have reached the objects of a paused VM whose host does not. */
  cutOffGraceMs: 3000,
  /** How long a target's list must be without a VM that it was told to start. */
  settleMs: 2000,
  /** A VM that starts after others is started without them after so long: something keeps them back. */
  dependencyMs: 600_000,
  /** How often the directory is looked at for the end of a lock, expected or held elsewhere. */
  lockLookMs: 500,
  heldLookMs: 2000,
  /** At least so often a waiting VM is looked at, and all that shall run is compared with what does, should a
   * notice have been lost. */
  slowLookMs: 10_000,
  /** How long a VM that a start found unprotected is left alone while the directory catches up. */
  dismissMs: 5000,

  /** Back-off of failed starts. */
  retryMinMs: 1000,
  retryMaxMs: 30_000,
  /** A guest whose last sign came sooner than this after its start has ended soon. */
  settledMs: 60_000,
  /** Of a VM that has run for so long the failed attempts are forgotten; a hang of its first minute is known by
   * then. */
  forgetMs: 300_000,
  /** How often it is looked for those that have. */
  sweepMs: 10_000,
  /** Before attempts are recorded again that could not be. */
  saveAgainMs: 5000,
  /** After so many guests that ended soon, in a row, the pauses between attempts become long. */
  quickFailures: 3,
  quickPauseMinMs: 30_000,
  quickPauseMaxMs: 300_000,

  /** A guest that hangs is restarted so often within this time, and then left alone. */
  hungRestarts: 3,
  hungWindowMs: 3_600_000,
  /** Between two orders to end the same guest. */
  hungAskAgainMs: 5000,
  hungTimeoutMs: 10_000,

  /** Back-off of SETs of the protection state that fail. */
  protectRetryMinMs: 500,
  protectRetryMaxMs: 8000,
  protectTimeoutMs: 2000,
  /** Between two reports of the same VM to the same master. */
  reportAgainMs: 5000,

  /** A user's placement that was not used counts for so long as taken room. */
  placementKeptMs: 3000,
  recoveriesKept: 1000,
} as const;
