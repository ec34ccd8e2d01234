// A manager that remembers what it was asked and answers as the test tells it: the API and the CLI
// are tested against it over a real socket.

import type {
  ClusterStatus,
  HostInfo,
  Manager,
  MetadataOutcome,
  MetadataReply,
  MetadataRequest,
  ObjectInfo,
  Policies,
  VmDetail,
  VmInfo,
  VmRequest,
} from '../../src/manager/api.ts';
import type { DiskService } from '../../src/manager/disk-service.ts';
import { createPolicies } from '../../src/manager/policies.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { ClusterEvent } from '../../src/model/events.ts';
import { componentId, epoch, hostId, objectId, storeId, term, vmId } from '../../src/model/ids.ts';
import { timings } from '../../src/model/limits.ts';
import { defaultPolicy } from '../../src/model/policy.ts';
import type { VmRecovery } from '../../src/model/recovery.ts';
import type { Log } from '../../src/ports/log.ts';

export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLog,
};

export class FakeManager implements Manager {
  /** The real ones, of a host that never meets another. */
  readonly policies: Policies = lonePolicies();
  readonly calls: unknown[][] = [];
  readonly past: ClusterEvent[] = [];
  readonly listeners = new Set<(event: ClusterEvent) => void>();
  readonly known = new Map<string, VmInfo>();
  /** What the next command is answered with instead. */
  failure: Error | null = null;
  /** How long a command takes. */
  delayMs = 0;

  async removeHost(name: string): Promise<void> {
    await this.#act('removeHost', name);
  }

  status(): ClusterStatus {
    return {
      cluster: 'test',
      answeredBy: hostId('host-1'),
      master: hostId('host-1'),
      accelerator: 'tcg',
      hosts: this.hosts(),
      vms: { total: this.known.size, running: 0, protected: 0 },
      waiting: [
        { vm: vmId('b'), name: 'vm-b', reason: 'storage', text: 'disk0 of vm-b lacks host-3.' },
      ],
    };
  }

  hosts(): HostInfo[] {
    const host: HostInfo = {
      name: hostId('host-1'),
      state: 'master',
      storage: 'reachable',
      problem: null,
      site: null,
      vms: 1,
      cpus: 2,
      memoryBytes: 2 ** 31,
      diskTotalBytes: 2 ** 40,
      diskFreeBytes: 2 ** 39,
      diskFill: 'nearFull',
      devices: [
        {
          store: storeId('s1'),
          name: 'main',
          class: 'large',
          problem: null,
          totalBytes: 2 ** 40,
          freeBytes: 2 ** 39,
          fill: 'ok',
          latencyMs: 4.25,
          components: 3,
        },
        {
          store: storeId('s2'),
          name: '/mnt/nvme1',
          class: 'fast',
          problem: 'it is not there any more',
          totalBytes: 0,
          freeBytes: 0,
          fill: 'ok',
          latencyMs: null,
          components: 1,
        },
      ],
    };
    return [
      host,
      { ...host, name: hostId('host-2'), state: 'hostDown', storage: 'failed', problem: 'no disk' },
    ];
  }

  vms(): VmInfo[] {
    return [...this.known.values()];
  }

  vm(nameOrId: string): VmDetail {
    const info = this.#find(nameOrId);
    return {
      ...info,
      restart: {
        finding: 'hostSilent',
        host: hostId('host-2'),
        epoch: epoch(3),
        evidence: ['it ran on host-2', 'host-2 has been silent on the HA network for 2.6 s'],
        master: hostId('host-1'),
        term: term(5),
        at: Date.UTC(2026, 0, 2, 3, 4, 5),
      },
      objects: [
        {
          object: objectId('o1'),
          vm: info.id,
          kind: 'disk',
          name: 'disk0',
          sizeBytes: 2 ** 28,
          policy: defaultPolicy,
          accessible: { accessible: false, object: null, hosts: [], text: 'disk0 lacks host-3' },
          components: [
            {
              component: componentId('c'),
              host: hostId('host-1'),
              mirror: 0,
              stripe: 0,
              state: 'active',
              device: null,
            },
            {
              component: componentId('d'),
              host: hostId('host-2'),
              mirror: 1,
              stripe: 0,
              state: 'degraded',
              device: '/mnt/nvme1',
            },
          ],
          next: [],
          voters: [hostId('host-1'), hostId('host-2'), hostId('host-3')],
          votes: [
            { host: hostId('host-1'), role: 'data', state: 'reachable' },
            { host: hostId('host-2'), role: 'data', state: 'degraded' },
            { host: hostId('host-3'), role: 'witness', state: 'absent' },
          ],
          inSync: [componentId('c')],
          resync: {
            bytesDone: 192 * 2 ** 20,
            bytesLeft: 64 * 2 ** 20,
            bytesPerSecond: 2 ** 20,
            secondsLeft: 64,
          },
          problems: ['It has 1 of the 2 whole copies that its policy asks for: host-2 (degraded)'],
        },
      ],
    };
  }

  objects(which: { readonly vm?: string; readonly problems?: boolean }): ObjectInfo[] {
    const names = which.vm === undefined ? [...this.known.keys()] : [which.vm];
    return names.flatMap((name) =>
      this.vm(name).objects.map((one) => ({ ...one, vmName: name, label: one.name })),
    );
  }

  object(name: string): ObjectInfo {
    const [vm = '', label] = name.split('/');
    const found = this.objects({ vm }).find((one) => one.label === label);
    if (found === undefined) throw new HoldfastError('unknown-object', `no object ${name}`);
    return found;
  }

  async createVm(request: VmRequest): Promise<VmInfo> {
    await this.policies.resolve('policy', request.policy);
    for (const [index, { policy }] of request.disks.entries()) {
      await this.policies.resolve(`disks[${index}].policy`, policy);
    }
    await this.#act('createVm', request);
    if (this.known.has(request.name)) {
      throw new HoldfastError('name-in-use', `There is a VM named ${request.name} already.`);
    }
    return this.add(request.name, request);
  }

  async startVm(nameOrId: string, options: object): Promise<VmInfo> {
    await this.#act('startVm', nameOrId, options);
    return { ...this.#find(nameOrId), power: 'running', host: hostId('host-2') };
  }

  async stopVm(nameOrId: string, options: { readonly force: boolean }): Promise<VmInfo> {
    await this.#act('stopVm', nameOrId, options);
    return this.#find(nameOrId);
  }

  metadata(service: string, key: string, vms?: readonly string[]): MetadataReply {
    this.calls.push(['metadata', service, key, vms]);
    const names = vms ?? [...this.known.keys()];
    return {
      values: names.map((name) => ({
        vm: this.#find(name).id,
        name,
        value: { n: 1 },
        revision: 7,
      })),
      without: [],
      inaccessible: ['lost'],
      objectReads: 0,
    };
  }

  async setMetadata(changes: readonly MetadataRequest[]): Promise<MetadataOutcome[]> {
    this.calls.push(['setMetadata', ...changes]);
    return changes.map(({ vm }) =>
      this.known.has(vm)
        ? { vm, done: true, code: null, message: null }
        : { vm, done: false, code: 'unknown-vm', message: `There is no VM ${vm}` },
    );
  }

  async setRequired(nameOrId: string, disk: string, required: boolean): Promise<VmInfo> {
    await this.#act('setRequired', nameOrId, disk, required);
    return this.#find(nameOrId);
  }

  async setDiskPolicy(nameOrId: string, disk: string, policy: string): Promise<ObjectInfo> {
    await this.#act('setDiskPolicy', nameOrId, disk, policy);
    return this.object(`${nameOrId}/${disk}`);
  }

  async removeVm(nameOrId: string): Promise<void> {
    await this.#act('removeVm', nameOrId);
    this.known.delete(this.#find(nameOrId).name);
  }

  serveDisk(): Promise<DiskService> {
    return Promise.reject(new HoldfastError('not-running', 'nothing is served here'));
  }

  recoveries(): VmRecovery[] {
    return [
      {
        vm: vmId('a'),
        name: 'vm-a',
        from: hostId('host-1'),
        to: null,
        recovery: {
          failedAtMs: 0,
          detectedAtMs: 2600,
          lockFreeAtMs: null,
          accessibleAtMs: null,
          placedAtMs: null,
          startedAtMs: null,
          guestReadyAtMs: null,
        },
      },
    ];
  }

  events(): readonly ClusterEvent[] {
    return this.past;
  }

  onEvent(listener: (event: ClusterEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  happen(text: string): void {
    const event: ClusterEvent = {
      at: this.past.length,
      host: hostId('host-1'),
      type: 'vm.ready',
      text,
    };
    this.past.push(event);
    for (const listener of this.listeners) listener(event);
  }

  add(name: string, request?: VmRequest): VmInfo {
    const info: VmInfo = {
      id: vmId(`id-${name}`),
      name,
      power: 'off',
      host: null,
      ready: false,
      protection: { status: 'unprotected', reason: 'it is switched off' },
      accessible: true,
      spec: {
        name,
        cpus: request?.cpus ?? 1,
        memoryBytes: request?.memoryBytes ?? 2 ** 27,
        boot: request?.boot ?? 'counter',
        disks: [{ name: 'disk0', sizeBytes: 2 ** 28, policy: defaultPolicy }],
        protected: request?.protected ?? true,
        priority: 'medium',
      },
      epoch: 0,
      note: null,
      detached: [],
    };
    this.known.set(name, info);
    return info;
  }

  #find(nameOrId: string): VmInfo {
    const found = this.vms().find((vm) => vm.name === nameOrId || vm.id === nameOrId);
    if (found === undefined) throw new HoldfastError('unknown-vm', `There is no VM ${nameOrId}.`);
    return found;
  }

  async #act(...call: unknown[]): Promise<void> {
    this.calls.push(call);
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    if (this.failure !== null) throw this.failure;
  }
}

function lonePolicies(): Policies {
  let content: string | null = null;
  return createPolicies({
    peers: [],
    file: {
      read: async () => content,
      async write(text) {
        content = text;
      },
    },
    clock: {
      now: () => 0,
      wallTime: () => 0,
      after: () => ({ cancel: () => undefined }),
      defer: () => undefined,
    },
    timings,
    log: silentLog,
  });
}
