// What every HA module does for the master that it follows: it answers which VMs its host can reach,
// and starts the VMs that it is told to start. Orders of anybody else are refused, so that a master
// that stood still and was replaced finds out before it does anything.

import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import type { Epoch, HostId, VmId } from '../model/ids.ts';
import type { Peer } from '../peer/peer.ts';
import type { Log } from '../ports/log.ts';
import type { Storage } from '../storage/api.ts';
import type { VmRunner } from './api.ts';
import type { HostKind, ReachQuestion, StartAnswer, StartOrder } from './messages.ts';

export function answerMaster(options: {
  readonly self: HostId;
  readonly kind: HostKind;
  readonly peer: Peer;
  readonly storage: Storage;
  readonly runner: VmRunner;
  readonly log: Log;
  /** Null where there is none, or while the module is stopped. */
  readonly master: () => HostId | null;
  readonly onStarted: (vm: VmId, epoch: Epoch) => void;
}): void {
  const { self, kind, peer, storage, runner, log } = options;

  peer.on('ha.canReach', (_from, body, _payload, reply) => {
    const { vms } = body as unknown as ReachQuestion;
    const access = storage.accessibility(vms);
    reply.ok({ vms: vms.filter((vm) => access.get(vm)?.accessible === true) });
  });

  peer.on('ha.start', (from, body, _payload, reply) => {
    const { vm } = body as unknown as StartOrder;
    const master = options.master();
    if (master !== from) {
      const text = `${self} follows ${master ?? 'no master'} and takes no order of ${from}`;
      reply.fail(new HoldfastError('no-master', text));
      return;
    }
    if (kind === 'witness') {
      reply.fail(new HoldfastError('no-capacity', `${self} is a witness and runs no VMs`));
      return;
    }
    log.debug(`starting ${storage.vm(vm)?.name ?? vm} for ${from}`, { vm });
    start(vm).then(
      (epoch) => {
        options.onStarted(vm, epoch);
        const answer: StartAnswer = { epoch };
        reply.ok({ ...answer });
      },
      (error: unknown) => reply.fail(asHoldfastError(error, 'guest-failed')),
    );
  });

  async function start(vm: VmId): Promise<Epoch> {
    return runner.start(vm, { byHa: true }); // async: a throw becomes a refusal as well
  }
}
