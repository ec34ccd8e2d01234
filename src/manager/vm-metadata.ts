// Metadata of VMs as users see it: VMs by their names, results one by one, and the keys of Holdfast's own
// services out of reach of a slip of the hand.

import { HoldfastError } from '../model/errors.ts';
import type { VmId } from '../model/ids.ts';
import { limits } from '../model/limits.ts';
import { haService } from '../model/protection.ts';
import { runnerService } from '../model/vm.ts';
import type { MetadataChange, SetCondition, Storage, VmView } from '../storage/api.ts';
import type { Manager, MetadataOutcome, MetadataReply, MetadataRequest } from './api.ts';
import { serveService } from './disk-service.ts';

const ownServices: readonly string[] = [haService, runnerService, serveService];

export function createVmMetadata(
  storage: Storage,
  find: (nameOrId: string) => VmView,
): Pick<Manager, 'metadata' | 'setMetadata'> {
  function metadata(service: string, key: string, names?: readonly string[]): MetadataReply {
    const named = names?.map(find);
    const { values: found, objectReads } = storage.getMetadata(
      service,
      key,
      named?.map((view) => view.vm),
    );
    const values = new Map(found.map(({ vm, value }) => [vm, value]));
    const views =
      named ?? [...values.keys()].flatMap((vm): VmView[] => [storage.vm(vm)].filter(isKnown));
    const having = views.filter((view) => values.has(view.vm));
    const others = views.filter((view) => !values.has(view.vm));
    return {
      values: having.map(({ vm, name, revision }) => ({
        vm,
        name,
        value: values.get(vm) ?? null,
        revision,
      })),
      without: namesOf(others.filter((view) => view.accessible.accessible)),
      inaccessible: namesOf(others.filter((view) => !view.accessible.accessible)),
      objectReads,
    };
  }

  async function setMetadata(changes: readonly MetadataRequest[]): Promise<MetadataOutcome[]> {
    const outcomes = changes.map(({ vm }) => done(vm));
    const possible: { readonly at: number; readonly change: MetadataChange }[] = [];
    for (const [at, request] of changes.entries()) {
      try {
        possible.push({ at, change: changeOf(find(request.vm).vm, request) });
      } catch (error) {
        if (!(error instanceof HoldfastError)) throw error;
        outcomes[at] = failed(request.vm, error);
      }
    }
    const results = await storage.setAllMetadata(possible.map(({ change }) => change));
    for (const [index, { at }] of possible.entries()) {
      const error = results[index]?.error ?? null;
      if (error !== null) outcomes[at] = failed(changes[at]?.vm ?? '', error);
    }
    return outcomes;
  }

  return { metadata, setMetadata };
}

function changeOf(vm: VmId, request: MetadataRequest): MetadataChange {
  const { service, key, value, expected, revision } = request;
  if (ownServices.includes(service)) {
    throw new HoldfastError(
      'bad-request',
      `service: ${service} is Holdfast's own, and is written by its hosts only`,
    );
  }
  const condition: SetCondition = {
    withinBytes: limits.maxMetadataBytes,
    ...(expected === undefined ? {} : { expected }),
    ...(revision === undefined ? {} : { revision }),
  };
  return { vm, service, key, value, condition };
}

const done = (vm: string): MetadataOutcome => ({ vm, done: true, code: null, message: null });

const failed = (vm: string, { code, message }: HoldfastError): MetadataOutcome => ({
  vm,
  done: false,
  code,
  message,
});

const namesOf = (views: readonly VmView[]) => views.map((view) => view.name);

const isKnown = (view: VmView | null): view is VmView => view !== null;
