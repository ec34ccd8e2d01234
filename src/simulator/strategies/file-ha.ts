// An HA module whose protection state is in a file: besides SET and GET, three things are different
// for it. A start can not be made on condition that the VM's own record says that it is protected; a
// power-off is not noted with the lock and has to be told to the master; and how long it takes until
// a new master knows its VMs depends on the file, and is measured here.

import type { VmRunner } from '../../ha/api.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { VmId } from '../../model/ids.ts';
import { rulesOf } from '../../model/vm.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Life } from './life.ts';
import {
  countRefused,
  newest,
  type ProtectionFile,
  type States,
  storeInFile,
} from './protection-file.ts';
import { type CreateHa, changed, type HaOptions, type RunningHa, type Shared } from './shared.ts';
import { SwitchOffs } from './switch-offs.ts';

/** How often it is looked, besides at each change, whether a new master's GET is complete. */
const lookMs = 100;

export function createHaOnFile(
  create: CreateHa,
  options: HaOptions,
  parts: {
    readonly file: ProtectionFile;
    readonly life: Life;
    readonly shared: Shared;
    /** Without master every host leads itself from its start on. */
    readonly everyoneLeads: boolean;
  },
): RunningHa {
  const { self, storage, runner, clock } = options;
  const { file, life, shared, everyoneLeads } = parts;
  const watchers: ((vms: readonly VmId[]) => void)[] = [];
  file.watch((vms) => tell(vms));

  const switchOffs = new SwitchOffs({
    self,
    peer: options.peer,
    master: () => ha.master(),
    write: (vm, state) => countRefused(shared, self, vm, state, () => file.switchedOff(vm, state)),
    onNoted: tell,
    life,
    shared,
  });
  const noted = () => switchOffs.noted();
  const watched: ProtectionFile = {
    read: () => file.read(),
    write: (vm, state, condition) => file.write(vm, state, condition),
    switchedOff: (vm, state) => file.switchedOff(vm, state),
    watch: (listener) => void watchers.push(listener),
    guardsStarts: file.guardsStarts,
    get vm() {
      return file.vm;
    },
  };
  const knowledge = new Knowledge(clock, shared, () => file.read() !== null);
  const ha: RunningHa = create({
    ...options,
    storage: storeInFile({ self, storage, file: watched, noted, shared }),
    runner: file.guardsStarts ? runner : withoutGuard(runner, () => file.read(), noted),
    emit(event) {
      if (event.type === 'master.elected') lead();
      if (event.type === 'master.abdicated') follow();
      options.emit(event);
    },
  });
  life.atEnd(follow);

  function tell(vms: readonly VmId[]): void {
    knowledge.look();
    for (const listener of watchers) listener(vms);
  }

  function lead(): void {
    file.elected?.();
    knowledge.elected();
  }

  function follow(): void {
    file.abdicated?.();
    switchOffs.abdicated();
    knowledge.abdicated();
  }

  return changed(ha, {
    poweredOn(vm, epoch) {
      switchOffs.poweredOn(vm, epoch);
      ha.poweredOn(vm, epoch);
    },
    poweredOff(vm, epoch) {
      ha.poweredOff(vm, epoch);
      const spec = storage.vm(vm)?.spec;
      if (spec === undefined || !spec.protected) return; // the file has no entry of it
      const { name, memoryBytes, cpus } = spec;
      const state = { protected: false, name, epoch, memoryBytes, cpus, ...rulesOf(spec) };
      switchOffs.switchedOff(vm, state);
    },
    start() {
      ha.start();
      if (everyoneLeads) lead();
    },
  });
}

/** A start by HA takes the lock whatever the VM's own record says: only the file knows better. */
function withoutGuard(runner: VmRunner, read: () => States | null, noted: () => States): VmRunner {
  function assertProtected(vm: VmId): void {
    const known = newest(read()?.get(vm), noted().get(vm));
    if (known === undefined || known.protected) return; // the master decided by what it could read
    throw new HoldfastError('not-protected', `VM ${vm} is not protected any more`);
  }
  return {
    async start(vm, { byHa }) {
      if (byHa) assertProtected(vm);
      return runner.start(vm, { byHa: false });
    },
    endHung: (vm, epoch) => runner.endHung(vm, epoch),
    running: () => runner.running(),
    capacity: () => runner.capacity(),
    onChange: (listener) => runner.onChange(listener),
  };
}

/** From an election until the GET is complete; without end where the file stays out of reach. */
class Knowledge {
  readonly #clock: Clock;
  readonly #shared: Shared;
  readonly #isComplete: () => boolean;
  #electedAtMs: number | null = null;

  constructor(clock: Clock, shared: Shared, isComplete: () => boolean) {
    this.#clock = clock;
    this.#shared = shared;
    this.#isComplete = isComplete;
  }

  elected(): void {
    this.#electedAtMs = this.#clock.now();
    this.#shared.counters.mastersThatDoNotKnow += 1;
    this.#lookAgain(this.#electedAtMs);
  }

  abdicated(): void {
    this.#electedAtMs = null;
  }

  look(): void {
    if (this.#electedAtMs === null || !this.#isComplete()) return;
    const { counters } = this.#shared;
    const knownAfterMs = this.#clock.now() - this.#electedAtMs;
    counters.mastersThatDoNotKnow -= 1;
    counters.masterKnowsMs = Math.max(counters.masterKnowsMs, knownAfterMs);
    this.#electedAtMs = null;
  }

  #lookAgain(election: number): void {
    this.look();
    if (this.#electedAtMs !== election) return;
    this.#clock.after(lookMs, () => this.#lookAgain(election));
  }
}
