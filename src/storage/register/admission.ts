// What an acceptor asks before it accepts: whether the leases that it granted allow it. The register
// knows nothing of leases, and leases nothing of ballots; this is the one seam between them.

import type { HostId } from '../../model/ids.ts';
import type { ObjectRecord } from '../../model/record.ts';

export interface Admission {
  /**
   * Milliseconds that must pass before the voter may replace its own accepted record `current` by
   * `next` on behalf of `proposer`; 0 admits it now. Where it admits the end of a lock it has, by
   * then, told the holder's lease to count this voter no more: the caller goes on to accept.
   */
  admit(current: ObjectRecord | null, next: ObjectRecord, proposer: HostId): number;
  /**
   * `next` is chosen already, by voters that admitted it, and replaces `current` without a vote of
   * this one. The holder of a lock that this ends is to count this voter no more.
   */
  learned(current: ObjectRecord | null, next: ObjectRecord): void;
}
