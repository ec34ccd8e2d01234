// The cluster's face on one host: what a user asks for is checked here, and then done here or on the
// host that it concerns. Any host can be asked; each answers for what it can reach.

import type { Ha, HaHostView, RunningVm } from '../ha/api.ts';
import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import { type HostId, objectId, type VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Timings } from '../model/limits.ts';
import { policyText, type StoragePolicy } from '../model/policy.ts';
import type { ProtectionStatus } from '../model/protection.ts';
import { readProofOfDeath, restartKey } from '../model/restart.ts';
import { type PowerState, runnerService, type VmSpec } from '../model/vm.ts';
import type { Peer, Reply } from '../peer/peer.ts';
import type {
  Accessibility,
  ObjectView,
  Storage,
  StorageHostView,
  VmView,
} from '../storage/api.ts';
import type {
  ClusterStatus,
  HostInfo,
  Manager,
  ObjectInfo,
  Policies,
  VmDetail,
  VmInfo,
  VmRequest,
} from './api.ts';
import type { DiskService, DiskServiceRequest, DiskServices } from './disk-service.ts';
import type { EventLog } from './event-log.ts';
import type { Runner } from './runner.ts';
import { createVmMetadata } from './vm-metadata.ts';
import { assertObjectDisk, assertPathsFree, toSpec } from './vm-spec.ts';

const startTimeoutMs = 60_000;

/** Where a VM runs. */
interface Place {
  readonly host: HostId;
  readonly guest: RunningVm;
}

export function createManager(options: {
  readonly cluster: string;
  readonly accelerator: string;
  readonly storage: Storage;
  readonly ha: Ha;
  readonly runner: Runner;
  readonly events: EventLog;
  readonly removeHost: (host: HostId) => Promise<void>;
  readonly policies: Policies;
  readonly diskServices: DiskServices;
  /** On the HA network. */
  readonly peer: Peer;
  readonly timings: Timings;
}): Manager {
  const { storage, ha, runner, events, peer, diskServices } = options;
  const self = peer.self;

  peer.on('manager.start', (_from, body, _payload, reply) => {
    const { vm, knowledge } = body as { vm: VmId; knowledge: JsonValue };
    storage.learn(knowledge);
    runner.start(vm, { byHa: false }).then((epoch) => reply.ok(epoch), failing(reply));
  });
  peer.on('manager.stop', (_from, body, _payload, reply) => {
    const { vm, force } = body as { vm: VmId; force: boolean };
    const power = (): PowerState => (runner.isHere(vm) ? 'stopping' : 'off');
    runner.stopVm(vm, { force }).then(() => reply.ok(power()), failing(reply));
  });

  /** Where the VM runs, by what the hosts report. */
  function running(vm: VmId): Place | null {
    for (const { host, running } of ha.hosts()) {
      const guest = running.find((one) => one.vm === vm);
      if (guest !== undefined) return { host, guest };
    }
    return null;
  }

  /** `info` of all VMs: what the hosts report is gone through once, not for each VM. */
  function infos(): VmInfo[] {
    const places = new Map<VmId, Place>();
    for (const { host, running } of ha.hosts()) {
      for (const guest of running) {
        if (!places.has(guest.vm)) places.set(guest.vm, { host, guest });
      }
    }
    return storage.vms().map((view) => info(view, places.get(view.vm) ?? null));
  }

  function powerOf(view: VmView, at: Place | null): PowerState {
    if (at !== null) return at.guest.state;
    const { holder } = view.lock;
    if (holder === null) return 'off';
    const known = ha.hosts().find((host) => host.host === holder);
    return known !== undefined && isHeard(known) ? 'off' : 'unknown';
  }

  function info(view: VmView, at: Place | null = running(view.vm)): VmInfo {
    return {
      id: view.vm,
      name: view.name,
      power: powerOf(view, at),
      host: at?.host ?? view.lock.holder,
      ready: at?.guest.ready ?? false,
      protection: protectionOf(view, at),
      accessible: view.accessible.accessible,
      spec: view.spec,
      epoch: view.lock.epoch,
      note: noteOf(view, at),
      detached: at === null ? [] : view.detached,
    };
  }

  function protectionOf(view: VmView, at: Place | null): ProtectionStatus {
    const reason = view.spec.protected ? unrecorded(view, at) : null;
    return reason === null ? ha.protectionStatus(view.vm) : { status: 'pending', reason };
  }

  /** Its power-off, if that can not be recorded at present. */
  function unrecorded({ accessible }: VmView, at: Place | null): string | null {
    if (at?.guest.state !== 'stopping' || accessible.accessible) return null;
    return `its power-off is recorded when its objects are accessible again: ${accessible.text}`;
  }

  function noteOf(view: VmView, at: Place | null): string | null {
    if (view.lifecycle !== 'ready') return `the VM is ${view.lifecycle}`;
    const late = unrecorded(view, at);
    if (late !== null) return late;
    const served = servedBy(view);
    if (served !== null) return served;
    if (view.repairedBy !== null && at === null) {
      return `${view.repairedBy} brings its disks up to date; it can be started at any time`;
    }
    const waiting = ha.waiting().find((one) => one.vm === view.vm);
    if (waiting !== undefined) return waiting.text;
    if (at?.guest.hung === true)
      return 'its guest hangs: it is silent, and asks nothing of its disks';
    const accessible: Accessibility = view.accessible;
    if (at !== null && view.detached.length > 0 && accessible.accessible) {
      return `its guest runs without ${view.detached.join(', ')}, and gets it when it can be reached`;
    }
    return accessible.accessible ? null : accessible.text;
  }

  function find(nameOrId: string): VmView {
    const view = storage.vmNamed(nameOrId) ?? storage.vm(nameOrId as VmId);
    if (view === null) throw new HoldfastError('unknown-vm', `There is no VM ${nameOrId}`);
    return view;
  }

  function again(vm: VmId): VmInfo {
    const view = storage.vm(vm);
    if (view === null) throw new HoldfastError('unknown-vm', `VM ${vm} is gone`);
    return info(view);
  }

  function hostInfo(known: HaHostView, store: StorageHostView | undefined): HostInfo {
    const storageState =
      store?.store === 'failed'
        ? 'failed'
        : store?.reachable === true
          ? 'reachable'
          : 'unreachable';
    return {
      name: known.host,
      state: known.state,
      storage: storageState,
      problem: store?.problem ?? null,
      site: store?.site ?? null,
      vms: known.running.length,
      cpus: known.cpus,
      memoryBytes: known.memoryBytes,
      diskTotalBytes: store?.totalBytes ?? 0,
      diskFreeBytes: store?.freeBytes ?? 0,
      diskFill: store?.fill ?? 'ok',
      devices: store?.devices ?? [],
    };
  }

  function hosts(): HostInfo[] {
    const stores = new Map(storage.hosts().map((store) => [store.host, store]));
    return ha
      .hosts()
      .map((known) => hostInfo(known, stores.get(known.host)))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async function removeHost(name: string): Promise<void> {
    const known = ha.hosts().find(({ host }) => host === name);
    if (known === undefined)
      throw new HoldfastError('unknown-host', `The cluster has no host ${name}`);
    const { host } = known;
    const answers = isHeard(known) || storage.reachableHosts().includes(host);
    if (answers) {
      throw new HoldfastError(
        'conflict',
        `${host} answers: stop its VMs and its daemon first, then remove it`,
      );
    }
    await options.removeHost(host);
    events.emit('host.removed', `${host} was removed from the cluster`);
  }

  function status(): ClusterStatus {
    const vms = infos();
    return {
      cluster: options.cluster,
      answeredBy: self,
      master: ha.master(),
      accelerator: options.accelerator,
      hosts: hosts(),
      vms: {
        total: vms.length,
        running: vms.filter((vm) => vm.power === 'running').length,
        protected: vms.filter((vm) => vm.protection.status === 'protected').length,
      },
      waiting: ha.waiting(),
    };
  }

  async function startVm(nameOrId: string, { on }: { readonly on?: HostId }): Promise<VmInfo> {
    const view = find(nameOrId);
    const at = running(view.vm);
    if (at !== null) {
      throw new HoldfastError(
        'already-running',
        `VM ${view.name} is ${at.guest.state} on ${at.host}`,
      );
    }
    assertNotServed(view);
    if (!view.accessible.accessible) {
      throw new HoldfastError('inaccessible', `VM ${view.name}: ${view.accessible.text}`);
    }
    if (on !== undefined && !ha.hosts().some((host) => host.host === on)) {
      throw new HoldfastError('bad-request', `on: there is no host ${on}`);
    }
    const target = on ?? ha.place(view.vm);
    if (target === null) {
      throw new HoldfastError(
        'no-capacity',
        `VM ${view.name}: no host that reaches all its objects has ${view.spec.memoryBytes} bytes of memory free`,
      );
    }
    const order = { vm: view.vm, knowledge: storage.knowledge(view.vm) };
    await peer.ask(target, 'manager.start', order, startTimeoutMs);
    return again(view.vm);
  }

  /** Of a host that is gone only the lock is left, and that ends with its lease. */
  function servedBy(view: VmView): string | null {
    const { holder } = view.lock;
    const known = ha.hosts().find((host) => host.host === holder);
    return known !== undefined && isHeard(known) ? diskServices.servedBy(view) : null;
  }

  function assertNotServed(view: VmView): void {
    const served = servedBy(view);
    if (served === null) return;
    throw new HoldfastError('lock-held', `VM ${view.name}: ${served}; end that command first`);
  }

  async function serveDisk(nameOrId: string, request: DiskServiceRequest): Promise<DiskService> {
    const view = find(nameOrId);
    assertObjectDisk(view, request.disk);
    const at = running(view.vm);
    if (at !== null) {
      throw new HoldfastError(
        'already-running',
        `VM ${view.name} is ${at.guest.state} on ${at.host}; a disk is served only while its VM is off`,
      );
    }
    assertNotServed(view);
    if (ha.protectionStatus(view.vm).status === 'protected') {
      throw new HoldfastError(
        'conflict',
        `VM ${view.name} is protected and shall run: HA starts it as soon as it can. Stop it first`,
      );
    }
    if (!view.accessible.accessible) {
      throw new HoldfastError('inaccessible', `VM ${view.name}: ${view.accessible.text}`);
    }
    return diskServices.serve(view, request);
  }

  async function stopVm(nameOrId: string, { force }: { readonly force: boolean }): Promise<VmInfo> {
    const view = find(nameOrId);
    const at = running(view.vm);
    const host = at?.host ?? (runner.isHere(view.vm) ? self : null);
    if (host === null) throw notRunning(view);
    const timeoutMs = startTimeoutMs + options.timings.powerOffGraceMs;
    const power = await peer.ask(host, 'manager.stop', { vm: view.vm, force }, timeoutMs);
    // The host that did it knows; its next report may not have come yet.
    return { ...again(view.vm), power: power as PowerState };
  }

  function notRunning(view: VmView): HoldfastError {
    const { holder } = view.lock;
    return powerOf(view, null) === 'unknown'
      ? new HoldfastError(
          'unreachable',
          `VM ${view.name} was last run by ${holder}, which is not heard`,
        )
      : new HoldfastError('not-running', `VM ${view.name} does not run`);
  }

  function objectInfo(view: ObjectView, vmName: string): ObjectInfo {
    return { ...view, vmName, label: view.kind === 'namespace' ? 'namespace' : view.name };
  }

  function objectsOf(vm: VmId, name: string): ObjectInfo[] {
    return storage.objects(vm).map((view) => objectInfo(view, name));
  }

  function objects(which: { readonly vm?: string; readonly problems?: boolean }): ObjectInfo[] {
    const views = which.vm === undefined ? storage.vms() : [find(which.vm)];
    return views
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap((view) => objectsOf(view.vm, view.name))
      .filter((object) => which.problems !== true || object.problems.length > 0);
  }

  function object(name: string): ObjectInfo {
    const slash = name.indexOf('/');
    if (slash < 0) {
      const view = storage.object(objectId(name));
      if (view !== null) return objectInfo(view, storage.vm(view.vm)?.name ?? view.vm);
      throw new HoldfastError('unknown-object', `There is no object ${name} known on ${self}`);
    }
    const vm = find(name.slice(0, slash));
    const all = objectsOf(vm.vm, vm.name);
    const label = name.slice(slash + 1);
    const found = all.find((one) => one.label === label);
    if (found !== undefined) return found;
    throw new HoldfastError(
      'unknown-object',
      `VM ${vm.name} has no object "${label}" known on ${self}; it has ${all.map((one) => one.label).join(', ')}`,
    );
  }

  function assertPossible({ name, after = [], affinity }: VmSpec): void {
    const known = ha.hosts().map(({ host }) => host as string);
    const unknown = affinity?.hosts.find((host) => !known.includes(host));
    if (unknown !== undefined) {
      const text = `affinity.hosts: there is no host ${unknown}; there are ${known.join(', ')}`;
      throw new HoldfastError('bad-request', text);
    }
    if (after.includes(name)) {
      throw new HoldfastError('bad-request', `after: ${name} can not start after itself`);
    }
  }

  async function createVm(request: VmRequest): Promise<VmInfo> {
    const spec = await toSpec(request, options.policies);
    assertPossible(spec);
    assertPathsFree(spec, () => storage.vms());
    const vm = await storage.createVm(spec, request);
    events.emit('vm.created', `VM ${spec.name} was made`, { vm, name: spec.name });
    return again(vm);
  }

  async function setDiskPolicy(
    nameOrId: string,
    disk: string,
    wanted: string | StoragePolicy,
  ): Promise<ObjectInfo> {
    const view = find(nameOrId);
    assertObjectDisk(view, disk);
    const policy = await options.policies.resolve('policy', wanted);
    await storage.setDiskPolicy(view.vm, disk, policy);
    events.emit(
      'storage.policySet',
      `The policy of ${view.name}/${disk} is ${policyText(policy)} now`,
      { vm: view.vm, name: view.name },
    );
    return object(`${view.name}/${disk}`);
  }

  return {
    policies: options.policies,
    status,
    hosts,
    removeHost,
    vms: () => infos().sort((a, b) => (a.name < b.name ? -1 : 1)),
    vm(nameOrId): VmDetail {
      const view = find(nameOrId);
      const { values } = storage.getMetadata(runnerService, restartKey, [view.vm]);
      const restart = readProofOfDeath(values[0]?.value);
      return { ...info(view), restart, objects: storage.objects(view.vm) };
    },
    objects,
    object,
    createVm,
    startVm,
    stopVm,
    serveDisk,
    setDiskPolicy,
    ...createVmMetadata(storage, find),
    async setRequired(nameOrId, disk, required) {
      const view = find(nameOrId);
      assertObjectDisk(view, disk);
      await storage.setRequired(view.vm, disk, required);
      return again(view.vm);
    },
    async removeVm(nameOrId) {
      const view = find(nameOrId);
      const at = running(view.vm);
      if (at !== null) {
        throw new HoldfastError('lock-held', `VM ${view.name} is ${at.guest.state} on ${at.host}`);
      }
      assertNotServed(view);
      await storage.removeVm(view.vm);
      events.emit('vm.removed', `VM ${view.name} was removed`, { vm: view.vm, name: view.name });
    },
    recoveries: () => ha.recoveries(),
    events: () => events.all(),
    onEvent: (listener) => events.onEvent(listener),
  };
}

function failing(reply: Reply): (error: unknown) => void {
  return (error) => reply.fail(asHoldfastError(error, 'internal'));
}

function isHeard(host: HaHostView): boolean {
  return host.state !== 'hostDown' && host.state !== 'unknown';
}
