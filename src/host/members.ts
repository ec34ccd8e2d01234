// Who belongs to the cluster. Every host keeps its own durable list; hosts that meet exchange theirs,
// so that a host which joined at one of them is soon known to all.

import type { HostId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Peer } from '../peer/peer.ts';
import type { Log } from '../ports/log.ts';

export interface Member {
  readonly name: HostId;
  readonly kind: 'full' | 'witness';
  readonly storageAddress: string;
  readonly haAddress: string;
  /** What may fail together with it: a building, a room. */
  readonly site?: string;
}

/** The durable list. */
export interface MemberList {
  list(): readonly Member[];
  /** As it is told to other hosts: with those that were removed. */
  all(): JsonValue;
  /** For good; its name is not given again. Resolves when it is durable here. */
  remove(name: HostId): Promise<void>;
  /** Takes over what is new in a list that another host told; true if anything was. Rejects a list
   * that makes no sense. */
  tell(told: JsonValue, teller: HostId): Promise<boolean>;
}

/** Exchanges the lists over one network; `onChange` after this host's list has changed. */
export function shareMembers(options: {
  readonly peer: Peer;
  readonly members: MemberList;
  readonly log: Log;
  readonly onChange: () => void;
}): { tellAll(): void } {
  const { peer, members, log } = options;
  function tellAll(): void {
    for (const host of peer.connected()) {
      if (host !== peer.self) peer.send(host, 'cluster.members', members.all());
    }
  }

  peer.on('cluster.members', (from, body) => {
    members.tell(body, from).then(
      (grown) => {
        if (!grown) return;
        log.info(`learned of new hosts from ${from}: now ${members.list().length}`);
        options.onChange();
        tellAll();
      },
      (error: unknown) => log.warn(`the member list of ${from} was not taken: ${String(error)}`),
    );
  });
  peer.onSession((host, up) => {
    if (up) peer.send(host, 'cluster.members', members.all());
  });
  return { tellAll };
}
