// Changes of an open disk's record by its writer, one at a time. What may have been done is asked for again until
// it is known.

import { isError } from '../../model/errors.ts';
import type { DiskRecord } from '../../model/record.ts';
import { type DiskState, stopped } from './disk-state.ts';

export class RecordChanges {
  private readonly state: DiskState;
  private changing = false;
  /** Called when one has ended: somebody may wait for that. */
  onFree: () => void = () => {};

  constructor(state: DiskState) {
    this.state = state;
  }

  get isBusy(): boolean {
    return this.changing;
  }

  /** One try; to be called while none is under way. */
  attempt(
    step: (current: DiskRecord) => DiskRecord,
    done: (record: DiskRecord) => void,
    failed: (error: unknown) => void,
  ): void {
    const { object, change } = this.state.options;
    this.changing = true;
    change(object, step).then(
      (record) => {
        this.changing = false;
        done(record);
      },
      (error: unknown) => {
        this.changing = false;
        failed(error);
      },
    );
  }

  /** Tried until it is known whether it was done; rejects if it never will be. Null: it can not be. */
  async settled(step: (current: DiskRecord) => DiskRecord | null): Promise<DiskRecord> {
    const { object, change, clock, timings } = this.state.options;
    const pause = () =>
      new Promise<void>((resolve) => clock.after(timings.heartbeatIntervalMs / 2, resolve));
    const refused = this.state.inUse('its record is not as it was expected to be');
    let mayBeDone = false;
    for (;;) {
      while (this.changing && !this.state.isClosed) await pause();
      if (this.state.isClosed) throw stopped();
      this.changing = true;
      try {
        return await change(object, (current) => {
          const next = step(current);
          if (next === null) throw refused;
          return next;
        });
      } catch (error) {
        // After one try of unknown outcome only the record itself says that it did not happen.
        mayBeDone ||= isError(error, 'outcome-unknown');
        const isOver = isError(error, 'fenced') || isError(error, 'unknown-vm');
        if (error === refused || isOver || !mayBeDone) throw error;
      } finally {
        this.changing = false;
        this.onFree();
      }
      await pause();
    }
  }
}
