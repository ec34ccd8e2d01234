// What every HA module does for the master that it follows: it answers which VMs its host can reach, starts the VMs
// that it is told to start, and does in the master's place what that one's host can not reach. Orders of
// anybody else are refused, so that a master that stood still and was replaced finds out before it does anything.

import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import type { Epoch, HostId, VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { ProofOfDeath } from '../model/restart.ts';
import type { Peer, Reply } from '../peer/peer.ts';
import type { Log } from '../ports/log.ts';
import type { Storage } from '../storage/api.ts';
import type { VmRunner } from './api.ts';
import type {
  AttemptsOrder,
  EndOrder,
  HostKind,
  LockQuestion,
  OutlookQuestion,
  ReachQuestion,
  SetOrder,
  StartAnswer,
  StartOrder,
} from './messages.ts';
import type { Outlook } from './outlook.ts';
import type { Sight } from './sight.ts';

export function answerMaster(options: {
  readonly self: HostId;
  readonly kind: HostKind;
  readonly peer: Peer;
  readonly storage: Storage;
  readonly own: Sight;
  readonly outlook: Outlook;
  readonly runner: VmRunner;
  readonly log: Log;
  /** Null where there is none, or while the module is stopped. */
  readonly master: () => HostId | null;
  readonly onStarted: (vm: VmId, epoch: Epoch) => void;
}): void {
  const { self, kind, peer, storage, own, runner, log } = options;

  peer.on('ha.canReach', (_from, body, _payload, reply) => {
    const { vms } = body as unknown as ReachQuestion;
    // What it reaches and can not open is of no use here.
    const access = storage.hasStore() ? storage.accessibility(vms) : new Map();
    reply.ok({ vms: vms.filter((vm) => access.get(vm)?.accessible === true) });
  });

  peer.on('ha.outlook', (from, body, _payload, reply) => {
    if (!isOfMaster(from, reply)) return;
    reply.ok(
      options.outlook.answer(from, body as unknown as OutlookQuestion) as unknown as JsonValue,
    );
  });

  byOrder('ha.lockStatus', async (body) => {
    const { vm } = body as unknown as LockQuestion;
    return { ...(await own.lockStatus(vm)) };
  });

  byOrder('ha.setProtection', async (body) => {
    const { vm, state } = body as unknown as SetOrder;
    await own.protect(vm, state);
    return null;
  });

  byOrder('ha.saveAttempts', async (body) => {
    const { vm, attempts } = body as unknown as AttemptsOrder;
    await own.saveAttempts(vm, attempts);
    return null;
  });

  byOrder('ha.endHung', async (body) => {
    const { vm, epoch } = body as unknown as EndOrder;
    await runner.endHung(vm, epoch);
    return null;
  });

  peer.on('ha.start', (from, body, _payload, reply) => {
    const { vm, proof } = body as unknown as StartOrder;
    if (!isOfMaster(from, reply)) return;
    if (kind === 'witness') {
      reply.fail(new HoldfastError('no-capacity', `${self} is a witness and runs no VMs`));
      return;
    }
    log.debug(`starting ${storage.vm(vm)?.name ?? vm} for ${from}`, { vm });
    start(vm, proof).then(
      (epoch) => {
        options.onStarted(vm, epoch);
        const answer: StartAnswer = { epoch };
        reply.ok({ ...answer });
      },
      (error: unknown) => reply.fail(asHoldfastError(error, 'guest-failed')),
    );
  });

  /** Done by order of the master alone. */
  function byOrder(type: string, act: (body: JsonValue) => Promise<JsonValue>): void {
    peer.on(type, (from, body, _payload, reply) => {
      if (!isOfMaster(from, reply)) return;
      act(body).then(
        (answer) => reply.ok(answer),
        (error: unknown) => reply.fail(asHoldfastError(error)),
      );
    });
  }

  function isOfMaster(from: HostId, reply: Reply): boolean {
    const master = options.master();
    if (master === from) return true;
    const text = `${self} follows ${master ?? 'no master'} and takes no order of ${from}`;
    reply.fail(new HoldfastError('no-master', text));
    return false;
  }

  async function start(vm: VmId, proof: ProofOfDeath): Promise<Epoch> {
    return runner.start(vm, { byHa: true, proof }); // async: a throw becomes a refusal as well
  }
}
