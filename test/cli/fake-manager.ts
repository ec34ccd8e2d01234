// A manager that remembers what it was asked and answers as the test tells it: the API and the CLI
// are tested against it over a real socket.

import type {
  ClusterStatus,
  HostInfo,
  Manager,
  VmDetail,
  VmInfo,
  VmRequest,
} from '../../src/manager/api.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { ClusterEvent } from '../../src/model/events.ts';
import { componentId, hostId, objectId, vmId } from '../../src/model/ids.ts';
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
  readonly calls: unknown[][] = [];
  readonly past: ClusterEvent[] = [];
  readonly listeners = new Set<(event: ClusterEvent) => void>();
  readonly known = new Map<string, VmInfo>();
  /** What the next command is answered with instead. */
  failure: Error | null = null;
  /** How long a command takes. */
  delayMs = 0;

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
      vms: 1,
      cpus: 2,
      memoryBytes: 2 ** 31,
      diskTotalBytes: 2 ** 40,
      diskFreeBytes: 2 ** 39,
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
            },
          ],
          voters: [hostId('host-1'), hostId('host-2'), hostId('host-3')],
        },
      ],
    };
  }

  async createVm(request: VmRequest): Promise<VmInfo> {
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

  async removeVm(nameOrId: string): Promise<void> {
    await this.#act('removeVm', nameOrId);
    this.known.delete(this.#find(nameOrId).name);
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
