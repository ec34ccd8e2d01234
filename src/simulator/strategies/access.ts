// How a master learns which other hosts can reach a VM. The product asks them at that moment.
//
// `publish`: each host publishes the set of VMs that it can reach once a second, and its answer is
// what it has published last. `trial`: nobody knows; every host is taken for able, and it is tried.
// In both, the master's own host is asked as ever: what is in question is the knowledge of others.

import type { ReachQuestion } from '../../ha/messages.ts';
import type { HostId, VmId } from '../../model/ids.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Storage } from '../../storage/api.ts';
import type { Life } from './life.ts';

const publishIntervalMs = 1000;

type Answer = (vms: readonly VmId[]) => readonly VmId[];

/** Answers what it has published. */
export function published(storage: Storage, life: Life): Answer {
  let reached = new Set<VmId>();
  life.every(publishIntervalMs, () => {
    const all = storage.vms().map((view) => view.vm);
    const access = storage.accessibility(all);
    reached = new Set(all.filter((vm) => access.get(vm)?.accessible === true));
  });
  return (vms) => vms.filter((vm) => reached.has(vm));
}

export const alwaysYes: Answer = (vms) => vms;

/** The peer over which the question of another host is answered in this way. */
export function answering(peer: Peer, self: HostId, answer: Answer): Peer {
  return {
    ...peer,
    on(type, handler) {
      if (type !== 'ha.canReach') return peer.on(type, handler);
      peer.on(type, (from, body, payload, reply) => {
        if (from === self) return handler(from, body, payload, reply);
        const { vms } = body as unknown as ReachQuestion;
        reply.ok({ vms: [...answer(vms)] });
      });
    },
  };
}
