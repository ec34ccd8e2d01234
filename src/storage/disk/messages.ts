// What the writer of a disk and the hosts of its components say to each other (`component.*`).

import type { ComponentId, ObjectId } from '../../model/ids.ts';
import type { Fence } from '../../model/record.ts';

export interface CreateComponent {
  readonly component: ComponentId;
  readonly object: ObjectId;
  readonly sizeBytes: number;
}

export interface TakeComponent {
  readonly component: ComponentId;
  readonly fence: Fence;
}

/** The payload of the answer is the write-intent bitmap's set regions as 32-bit numbers. */
export interface TakeAnswer {
  /** To be named in all requests of this writer; another take makes it void. */
  readonly token: string;
  readonly incarnation: string;
  /** Acknowledged writes that were not flushed may be lost; said at each take until a flush. */
  readonly mayHaveLost: boolean;
}

export interface ReadComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly length: number;
}

/** The payload is the data. */
export interface WriteComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly fua: boolean;
}

export interface FlushComponent {
  readonly component: ComponentId;
  readonly token: string;
}

export interface ClearIntent {
  readonly component: ComponentId;
  readonly token: string;
  readonly regions: readonly number[];
}
