// One network between the hosts. A session to a peer delivers frames in order or breaks; a frame
// given to a broken session is lost. When a new session with a peer begins, nothing that was sent
// on an older one is delivered any more. The peer's name is authenticated, never claimed.

import type { HostId } from '../model/ids.ts';

/** `closed`: the other end closed it, which only the kernel of a running host does; its daemon ended, or gave the
 * session up. `silent`: nothing came any more, or it was ended here. */
export type SessionEnd = 'closed' | 'silent';

export interface TransportEvents {
  up(host: HostId): void;
  down(host: HostId, how: SessionEnd): void;
  /** One whole frame. The bytes belong to the receiver from here on. */
  frame(from: HostId, frame: Uint8Array): void;
}

export interface Transport {
  /** Begins to accept and to seek sessions. To be called once. */
  start(events: TransportEvents): void;
  /** Sets whom to keep a session with, and where; may be called again when members change. */
  setPeers(peers: ReadonlyMap<HostId, string>): void;
  /** Sends the concatenation of the chunks as one frame; false if there is no session. The chunks
   * must not be changed afterwards. */
  send(to: HostId, chunks: readonly Uint8Array[]): boolean;
  stop(): Promise<void>;
}
