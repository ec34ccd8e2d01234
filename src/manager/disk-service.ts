// One disk of a VM that is switched off, served to any NBD client for as long as somebody wants it
// (`holdfast disk serve`). It holds the VM's lock like a guest would: so nothing else runs the VM or
// writes to it meanwhile, and a power-on is refused. Who serves it stands in the VM's metadata, beside the
// epoch of the lock, so that every host can name it; with another epoch in the lock it is void.

import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import type { Epoch, HostId, VmId } from '../model/ids.ts';
import { objectDisks } from '../model/vm.ts';
import type { Log } from '../ports/log.ts';
import type { OpenDisks, Storage, VmView } from '../storage/api.ts';

/** Of the metadata that names who serves. */
export const serveService = 'serve';
const key = 'disk';

export interface DiskServiceRequest {
  readonly disk: string;
  /** Where to listen, on the machine of the host that is asked. */
  readonly socket: string;
  readonly readOnly: boolean;
  /** It ends by itself: the lock was lost, or writes were. `close` is done already. */
  readonly onEnded: (reason: HoldfastError) => void;
}

export interface DiskService {
  readonly vm: string;
  readonly disk: string;
  readonly socket: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Hangs up on the clients, and gives the lock back. */
  close(): Promise<void>;
}

export interface DiskServices {
  /** The VM is switched off, as far as is known; the lock decides. */
  serve(view: VmView, request: DiskServiceRequest): Promise<DiskService>;
  /** A sentence that names who serves a disk of the VM; null if nobody does. */
  servedBy(view: VmView): string | null;
  stop(): Promise<void>;
}

interface Running {
  readonly view: VmView;
  readonly request: DiskServiceRequest;
  readonly epoch: Epoch;
  disks: OpenDisks | null;
  /** The caller has it: from then on its end has to be told. */
  isServed: boolean;
  closing: Promise<void> | null;
}

export function createDiskServices(options: {
  readonly storage: Storage;
  readonly self: HostId;
  readonly log: Log;
}): DiskServices {
  const { storage, self, log } = options;
  const running = new Map<VmId, Running>();
  let isStopped = false;

  storage.onLease({
    extended() {},
    // Requests wait in the disk until it is valid again: nothing has to be stopped.
    lapsed() {},
    regained() {},
    lost(vm) {
      const one = running.get(vm);
      if (one === undefined) return;
      end(one, new HoldfastError('fenced', `VM ${one.view.name}: another host has taken its lock`));
    },
  });

  function end(one: Running, reason: HoldfastError): void {
    if (one.closing !== null) return;
    log.warn(`${one.view.name}/${one.request.disk} is served no longer: ${reason.message}`);
    void close(one).then(() => {
      if (one.isServed) one.request.onEnded(reason);
    });
  }

  function close(one: Running): Promise<void> {
    one.closing ??= (async () => {
      await one.disks?.close();
      await storage.unlock(one.view.vm, one.epoch).catch((error: unknown) => {
        const { message } = asHoldfastError(error);
        log.warn(`the lock of ${one.view.name} is given back later: ${message}`);
      });
      if (running.get(one.view.vm) === one) running.delete(one.view.vm);
    })();
    return one.closing;
  }

  async function serve(view: VmView, request: DiskServiceRequest): Promise<DiskService> {
    const { disk, socket, readOnly } = request;
    const { vm, name } = view;
    const disks = objectDisks(view.spec.disks);
    const spec = disks.find((one) => one.name === disk);
    if (spec === undefined) {
      const names = disks.map((one) => one.name).join(', ');
      throw new HoldfastError(
        'unknown-object',
        `VM ${name} has no disk "${disk}"; it has ${names}`,
      );
    }
    if (isStopped) throw new HoldfastError('stopped', 'The daemon is stopping');
    const epoch = await storage.lock(vm);
    const one: Running = { view, request, epoch, disks: null, isServed: false, closing: null };
    running.set(vm, one);
    try {
      // The lock guards; this only explains. So it must not wait for the disk to be opened.
      await storage.setMetadata(
        vm,
        serveService,
        key,
        { epoch, host: self, disk, socket },
        {
          heldAtEpoch: epoch,
        },
      );
      one.disks = await storage.openDisks(vm, {
        epoch,
        guestRuns: false,
        onWritesLost: () =>
          end(
            one,
            new HoldfastError('disk-error', `${name}/${disk}: acknowledged writes were lost`),
          ),
        only: { disk, socket, readOnly },
      });
      if (one.closing !== null || isStopped) {
        throw new HoldfastError('stopped', `${name}/${disk}: its service ended while it began`);
      }
    } catch (error) {
      await one.disks?.close();
      await close(one);
      throw error;
    }
    one.isServed = true;
    log.info(`serving ${name}/${disk} at ${socket}`, { vm, epoch });
    return {
      vm: name,
      disk,
      socket,
      sizeBytes: spec.sizeBytes,
      readOnly,
      close: () => close(one),
    };
  }

  return {
    serve,
    servedBy(view) {
      if (view.lock.holder === null) return null;
      const value = storage.getMetadata(serveService, key, [view.vm]).values[0]?.value;
      const known = value as { epoch: Epoch; disk: string; socket: string } | undefined;
      if (known === undefined || known.epoch !== view.lock.epoch) return null;
      return `its ${known.disk} is served by \`holdfast disk serve\` on ${view.lock.holder} at ${known.socket}`;
    },
    async stop() {
      isStopped = true;
      const reason = new HoldfastError('stopped', `The daemon of ${self} is stopping`);
      await Promise.all(
        [...running.values()].map(async (one) => {
          await close(one);
          if (one.isServed) one.request.onEnded(reason);
        }),
      );
    },
  };
}
