// The catalogue of errors: each has a code, a sentence that says what happened to whom and why, and
// what to do about it. Code branches on `code`, people read the rest.

export const errorCatalogue = {
  'unknown-vm': 'Run `holdfast vm list` to see the VMs that this host knows.',
  'unknown-host': 'Run `holdfast host list` to see the hosts.',
  'unknown-object':
    'Run `holdfast object list` to see the objects, `holdfast policy list` the policies.',
  'name-in-use': 'Choose another name, or remove what has it.',
  'bad-request': 'Correct the named key.',
  'policy-unsatisfiable': 'Add hosts, bring back the missing ones, or choose a smaller policy.',
  'no-capacity': 'Free some space or memory, or add a host.',
  inaccessible: 'Bring back the named hosts or the storage network between them.',
  'lock-held': 'Stop the VM on the host that runs it, or wait for its lease to end.',
  'not-protected': 'The VM has been switched off meanwhile; nothing needs to be done.',
  conflict: 'Somebody else changed it at the same time; look at it and try again.',
  'already-running': 'Nothing needs to be done.',
  'not-running': 'Nothing needs to be done.',
  'outcome-unknown': 'The change may or may not have happened; look at the object and try again.',
  fenced: 'A newer holder has opened the disk; this host must not use it any more.',
  'not-a-voter': 'The host has another store than the one that the object was placed on.',
  'store-damaged': 'Replace the store: its content can not be trusted any more.',
  'disk-full': 'Free some space on the named host.',
  'disk-error': 'Look at the device of the named host.',
  'bad-block':
    'Look at the device of the named host. Another copy replaces the block where there is one; what overwrites it whole heals it, too.',
  'unsettled-block': 'Nothing needs to be done: the writer of the disk settles it.',
  timeout: 'Look whether the named host is up and reachable.',
  unreachable: 'Look whether the named host is up and reachable.',
  'path-unusable':
    'Mount the storage on the named host, put right what lies there, or start the VM on another host (`vm start --on`).',
  'guest-failed': 'Look into the named log.',
  unauthorized: 'Join the host to the cluster with a new token.',
  'no-master': 'Wait for the election, or look whether the HA network works.',
  stopped: 'The daemon is stopping.',
  internal: 'This is a fault of Holdfast: look into the log of the host that answered.',
} as const;

export type ErrorCode = keyof typeof errorCatalogue;

export class HoldfastError extends Error {
  readonly code: ErrorCode;
  readonly todo: string;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'HoldfastError';
    this.code = code;
    this.todo = errorCatalogue[code];
  }
}

export function isError(error: unknown, code: ErrorCode): error is HoldfastError {
  return error instanceof HoldfastError && error.code === code;
}

/** The error as it is, or wrapped: what is thrown inside is always a HoldfastError. */
export function asHoldfastError(
  error: unknown,
  otherwise: ErrorCode = 'disk-error',
): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new HoldfastError(otherwise, text, { cause: error });
}
