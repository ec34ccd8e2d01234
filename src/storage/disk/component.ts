// One component on this host: its data file, its head (identity and fence) and its write-intent
// bitmap. It serves whoever took it last with the newest fence; a take first waits for what older
// writers have in flight, so that nothing of theirs lands afterwards.

import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import { limits } from '../../model/limits.ts';
import { compareFences, type Fence } from '../../model/record.ts';
import { DiskError, type DiskFile, type LocalDisk } from '../../ports/disk.ts';
import { type ComponentMeta, decodeSlots, encodeSlot, slotBytes } from './component-meta.ts';
import type { TakeAnswer } from './messages.ts';
import { createWriteIntent, type WriteIntent } from './write-intent.ts';

type Done = (error: HoldfastError | null) => void;

const headOf = (component: string) => `components/${component}.head`;
const dataOf = (component: string) => `components/${component}.data`;
const bitmapOffset = 2 * slotBytes;

export interface Component {
  readonly meta: ComponentMeta;
  take(fence: Fence): Promise<{ answer: TakeAnswer; regions: number[] }>;
  read(
    token: string,
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void;
  write(token: string, offset: number, bytes: Uint8Array, fua: boolean, done: Done): void;
  flush(token: string, done: Done): void;
  clearIntent(token: string, regions: readonly number[]): void;
  close(): Promise<void>;
}

export async function createComponentFiles(
  disk: LocalDisk,
  meta: Omit<ComponentMeta, 'fence' | 'incarnation'> & { readonly fence: Fence },
): Promise<void> {
  const data = await disk.open(dataOf(meta.component), { create: true });
  await data.resize(meta.sizeBytes);
  await synced(data);
  await data.close();
  // The head comes last: a component exists when its head does.
  const head = await disk.open(headOf(meta.component), { create: true });
  await head.resize(bitmapOffset + bitmapBytes(meta.sizeBytes));
  await written(head, 0, encodeSlot({ ...meta, incarnation: disk.incarnation }, 1));
  await synced(head);
  await head.close();
}

export async function removeComponentFiles(disk: LocalDisk, component: string): Promise<void> {
  await disk.remove(headOf(component));
  await disk.remove(dataOf(component));
}

/** Rejects with DiskError `missing`, or with `store-damaged`. `newToken` never repeats. */
export async function openComponent(
  disk: LocalDisk,
  component: string,
  newToken: () => string,
): Promise<Component> {
  const head = await disk.open(headOf(component), { create: false });
  const slots = new Uint8Array(2 * slotBytes);
  await readInto(head, 0, slots);
  let { meta, sequence } = decodeSlots(slots, component);
  // A daemon that died may have left it written and not synced: the other slot is not to be written
  // before this one is durable.
  await written(head, (sequence % 2) * slotBytes, encodeSlot(meta, sequence));
  await synced(head);
  const data = await disk.open(dataOf(component), { create: false });
  const bits = new Uint8Array(bitmapBytes(meta.sizeBytes));
  await readInto(head, bitmapOffset, bits);
  const intent: WriteIntent = createWriteIntent(head, bitmapOffset, bits);

  let token: string | null = null;
  let inFlight = 0;
  let whenIdle: (() => void)[] = [];
  let takes: Promise<unknown> = Promise.resolve();
  let heads: Promise<unknown> = Promise.resolve();
  let failedSyncs = 0;

  const mayHaveLost = () => meta.incarnation !== disk.incarnation;

  /** One after the other, each into the slot of the older state; a failed one is not counted. */
  function changeHead(change: Partial<ComponentMeta>): Promise<void> {
    const result = heads.then(async () => {
      const next = { ...meta, ...change };
      await written(head, ((sequence + 1) % 2) * slotBytes, encodeSlot(next, sequence + 1));
      await synced(head);
      sequence += 1;
      meta = next;
    });
    heads = result.catch(() => undefined);
    return result;
  }

  function syncData(done: (error: DiskError | null) => void): void {
    const failedBefore = failedSyncs;
    data.sync((error) => {
      if (error === null && failedSyncs === failedBefore) return done(null);
      // After a failed sync the system may have dropped what it could not write: what was
      // acknowledged before is in doubt, and another sync would succeed without it.
      if (error !== null) {
        failedSyncs += 1;
        token = null;
        meta = { ...meta, incarnation: '' };
        changeHead({ incarnation: '' }).catch(() => undefined);
      }
      done(error ?? new DiskError('failed', 'another sync failed at the same time'));
    });
  }

  /** Who flushes knows what was lost: it has replaced it by now, or does without it. */
  function settleLosses(done: (error: unknown) => void): void {
    if (!mayHaveLost()) return done(null);
    const failedBefore = failedSyncs;
    changeHead({ incarnation: disk.incarnation }).then(() => {
      if (failedSyncs === failedBefore) return done(null);
      meta = { ...meta, incarnation: '' };
      done(new DiskError('failed', 'a sync failed at the same time'));
    }, done);
  }

  function refusal(given: string, offset: number, length: number): HoldfastError | null {
    if (token === null || given !== token) {
      return new HoldfastError('fenced', `component ${component} was taken by another writer`);
    }
    if (offset < 0 || offset + length > meta.sizeBytes) {
      return new HoldfastError(
        'bad-request',
        `range ${offset}+${length} is outside of ${component}`,
      );
    }
    return null;
  }

  function began(): void {
    inFlight += 1;
  }

  function ended(): void {
    inFlight -= 1;
    if (inFlight > 0) return;
    const waiting = whenIdle;
    whenIdle = [];
    for (const resume of waiting) resume();
  }

  async function take(fence: Fence): Promise<{ answer: TakeAnswer; regions: number[] }> {
    if (compareFences(fence, meta.fence) < 0) {
      throw new HoldfastError(
        'fenced',
        `component ${component} has taken the newer fence ${meta.fence.epoch}.${meta.fence.open}`,
      );
    }
    token = null; // from here on nothing of an older writer begins
    if (inFlight > 0) await new Promise<void>((resolve) => whenIdle.push(resolve));
    await changeHead({ fence });
    token = newToken();
    return {
      answer: { token, incarnation: disk.incarnation, mayHaveLost: mayHaveLost() },
      regions: intent.regions(),
    };
  }

  return {
    get meta() {
      return meta;
    },
    take(fence) {
      const result = takes.then(() => take(fence));
      takes = result.catch(() => undefined);
      return result;
    },
    read(given, offset, length, done) {
      const refused = refusal(given, offset, length);
      if (refused !== null) return done(refused, new Uint8Array(0));
      const bytes = new Uint8Array(length);
      began();
      data.read(offset, bytes, (error) => {
        ended();
        done(error === null ? null : fromDisk(error, component), bytes);
      });
    },
    write(given, offset, bytes, fua, done) {
      const refused = refusal(given, offset, bytes.length);
      if (refused !== null) return done(refused);
      began();
      const finish = (error: DiskError | null) => {
        ended();
        done(error === null ? null : fromDisk(error, component));
      };
      const first = Math.floor(offset / limits.regionBytes);
      const last = Math.floor((offset + Math.max(1, bytes.length) - 1) / limits.regionBytes);
      intent.set(first, last, (intentError) => {
        if (intentError !== null) return finish(intentError);
        data.write(offset, [bytes], (error) => {
          if (error !== null || !fua) finish(error);
          else syncData(finish);
        });
      });
    },
    flush(given, done) {
      const refused = refusal(given, 0, 0);
      if (refused !== null) return done(refused);
      began();
      const finish = (error: unknown) => {
        ended();
        done(error === null ? null : fromDisk(error, component));
      };
      syncData((error) => (error === null ? settleLosses(finish) : finish(error)));
    },
    clearIntent(given, regions) {
      if (refusal(given, 0, 0) === null) intent.clear(regions);
    },
    async close() {
      token = null;
      if (inFlight > 0) await new Promise<void>((resolve) => whenIdle.push(resolve));
      await Promise.all([head.close(), data.close()]);
    },
  };
}

function bitmapBytes(sizeBytes: number): number {
  return Math.ceil(Math.ceil(sizeBytes / limits.regionBytes) / 8);
}

export function fromDisk(error: unknown, what: string): HoldfastError {
  if (!(error instanceof DiskError)) return asHoldfastError(error);
  const code = error.kind === 'full' ? 'disk-full' : 'disk-error';
  return new HoldfastError(code, `${what}: ${error.message}`, { cause: error });
}

function written(file: DiskFile, offset: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(offset, [bytes], (error) => (error === null ? resolve() : reject(error)));
  });
}

function synced(file: DiskFile): Promise<void> {
  return new Promise((resolve, reject) => {
    file.sync((error) => (error === null ? resolve() : reject(error)));
  });
}

function readInto(file: DiskFile, offset: number, target: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    file.read(offset, target, (error) => (error === null ? resolve() : reject(error)));
  });
}
