// Where a conventional HA keeps a file: in an object of the same store, because there is no other
// storage. The file is the metadata of the namespace object of a VM that is never powered on and that
// no user sees. So the store itself decides who can write it (a majority of the object's voters), and
// the directory of each host has the last copy that reached it.
//
// The simulator makes these VMs before anything else, pinned to the hosts named here.

import { type HostId, hostId, type VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { NamespaceRecord, ObjectRecord } from '../../model/record.ts';
import type { ScenarioHost, ScenarioVm, Strategies } from '../../scenario/scenario.ts';
import type { Storage } from '../../storage/api.ts';

/** The metadata service of the file's content: one key per VM, because one value is at most 16 KiB. */
export const fileService = 'ha-file';

export const fileName = 'ha-protection';
const segmentPrefix = 'ha-segment-';
const MiB = 2 ** 20;

export const segmentName = (host: HostId): string => `${segmentPrefix}${host}`;

/** Whether a VM is a file of these strategies: not to be counted, shown or checked. */
export function isHidden(name: string): boolean {
  return name === fileName || name.startsWith(segmentPrefix);
}

/** What the simulator has to make for these strategies. `fileHosts` places the single file of
 * `central-file` and `witness-file`; as in the source's example the data is on the first two hosts,
 * and the third one only votes. The first f+1 of 2f+1 must not be witnesses. */
export function hiddenVms(
  strategies: Strategies,
  hosts: readonly ScenarioHost[],
  fileHosts: readonly string[] = hosts.slice(0, 3).map((host) => host.name),
): ScenarioVm[] {
  switch (strategies.protection) {
    case 'namespace-metadata':
    case 'per-vm-file':
      return [];
    case 'central-file':
    case 'witness-file':
      return [hiddenVm(fileName, odd(fileHosts))];
    case 'segmented-file':
      return hosts
        .filter((host) => host.kind === 'full') // a witness is never master and holds no data
        .map(({ name }) => hiddenVm(segmentName(hostId(name)), [name]));
  }
}

/** An object has an odd number of voters. */
function odd(hosts: readonly string[]): readonly string[] {
  return hosts.length % 2 === 1 ? hosts : hosts.slice(0, -1);
}

function hiddenVm(name: string, on: readonly string[]): ScenarioVm {
  return {
    name,
    on: null,
    cpus: 1,
    memoryBytes: 16 * MiB,
    disksBytes: [MiB],
    policy: { failuresToTolerate: (on.length - 1) / 2, stripes: 1 },
    components: on,
    objects: {},
    required: ['namespace'],
    storage: 'object',
    protected: false,
    priority: 'lowest',
    after: [],
    separate: null,
    readyWhen: null,
    affinity: null,
    isolationResponse: null,
    whenHung: null,
    powered: false,
  };
}

/** A hidden VM as one host sees it. */
export class HiddenVm {
  readonly #storage: Storage;
  readonly #name: string;
  #vm: VmId | null = null;

  constructor(storage: Storage, name: string) {
    this.#storage = storage;
    this.#name = name;
  }

  /** Null as long as this host has not heard of it. */
  get vm(): VmId | null {
    this.#vm ??= this.#storage.vms().find((view) => view.name === this.#name)?.vm ?? null;
    return this.#vm;
  }

  /** The file itself, without which nothing can be written: its namespace object. */
  isAccessible(): boolean {
    return this.vm !== null && isNamespaceAccessible(this.#storage, this.vm);
  }

  /** The last content that reached this host, accessible or not. */
  content(): Readonly<Record<string, JsonValue>> {
    if (this.vm === null) return {};
    return recordOf(this.#storage, this.vm)?.metadata[fileService] ?? {};
  }
}

function isNamespaceAccessible(storage: Storage, vm: VmId): boolean {
  const namespace = storage.vm(vm) === null ? [] : storage.objects(vm);
  return namespace.find((object) => object.kind === 'namespace')?.accessible.accessible === true;
}

/** The VM's record in this host's directory: what hosts tell each other of a VM is just that. */
export function recordOf(storage: Storage, vm: VmId): NamespaceRecord | null {
  if (storage.vm(vm) === null) return null;
  const entries = storage.knowledge(vm) as unknown as readonly { readonly record: ObjectRecord }[];
  for (const { record } of entries) if (record.kind === 'namespace') return record;
  return null;
}
