// Deliberate mistakes in the protocols, each as an exchange of a few characters of one source file. They
// are made in a copy of the compiled program, which `sim explore` must then find something wrong with: a
// simulator that catches nothing proves nothing. The product's own source knows nothing of them.

export interface PlantedBug {
  readonly name: string;
  /** What it breaks, as whoever made the mistake might be told. */
  readonly why: string;
  /** Under src/. */
  readonly file: string;
  /** Occurs exactly once. */
  readonly find: string;
  readonly replace: string;
  /** A seed that finds it soon, tried first; any other may find it too. */
  readonly seed: number;
}

export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'lease without the voters refusal',
    why: 'a voter lets others end a lock whose holder it has promised to protect',
    file: 'storage/lease/voter.ts',
    find: 'if (holder === null) return 0;\n    const now = clock.now();',
    replace: 'if (holder !== undefined) return 0;\n    const now = clock.now();',
    seed: 5,
  },
  {
    name: 'voter forgets its promises when it restarts',
    why: 'after a restart it ends locks at once, though it may have promised not to',
    file: 'storage/lease/voter.ts',
    find: 'const cautious = Math.max(startedAtMs, majoritySince(record)) + options.longestLeaseMs();',
    replace: 'const cautious = 0;',
    seed: 18,
  },
  {
    name: 'paused guest resumed without a majority',
    why: 'a lapsed lease is taken for one that has just begun',
    file: 'manager/runner.ts',
    find: `async function resume(entry: Entry): Promise<void> {
    const deadlineMs = storage.leaseDeadline(entry.vm);`,
    replace: `async function resume(entry: Entry): Promise<void> {
    const deadlineMs = storage.leaseDeadline(entry.vm) ?? clock.now() + 4000;`,
    seed: 5,
  },
  {
    name: 'guard gets a later deadline than the lease has',
    why: 'where the daemon stands still, nobody stops the guest in time',
    file: 'manager/runner.ts',
    find: 'entry.guest?.extend(deadlineMs);\n      if (entry.reopening)',
    replace: 'entry.guest?.extend(deadlineMs + 4000);\n      if (entry.reopening)',
    seed: 1,
  },
  {
    name: 'voters changed in one jump',
    why: 'the old voters may decide on without the new ones',
    file: 'storage/register/change.ts',
    find: 'const voting = record.nextVoters === undefined ? this.#voting : votingOf(record);',
    replace: `if (record.nextVoters !== undefined) {
      const { nextVoters, ...rest } = record;
      record = { ...rest, voters: nextVoters };
    }
    const voting = this.#voting;`,
    seed: 130,
  },
  {
    name: 'joint record decided by the old voters alone',
    why: 'the new voters have heard nothing, and decide alone after the second step',
    file: 'model/record.ts',
    find: 'return groupsOf(voting).every((group)',
    replace: 'return groupsOf(voting).slice(0, 1).every((group)',
    seed: 470,
  },
  {
    name: 'no safety margin',
    why: 'clocks that run at different rates end the lease at different times',
    file: 'storage/lease/holder.ts',
    find: '+ options.leaseDurationMs - options.safetyMarginMs;',
    replace: '+ options.leaseDurationMs;',
    seed: 40,
  },
  {
    name: 'directory as authority',
    why: 'a lock is taken in what the directory has of the record, which lags',
    file: 'storage/locks.ts',
    find: '...current,\n          lock: { holder: self, epoch: asEpoch(current.lock.epoch + 1), ...use },',
    replace:
      '...known(vm),\n          lock: { holder: self, epoch: asEpoch(known(vm).lock.epoch + 1), ...use },',
    seed: 110,
  },
  {
    name: 'HA starts what is not protected any more',
    // In that step alone it is out of reach of random faults: the voters tell whoever asks about the lock before.
    why: 'neither the voters that are asked about the lock nor the step that takes it look at the record',
    file: 'storage/locks.ts',
    find: 'return readProtection(record.metadata[haService]?.[protectionKey])?.protected === true;',
    replace: 'return record !== null;',
    seed: 182,
  },
  {
    name: 'protection reported without commit',
    why: 'the master says protected before the record does',
    file: 'ha/protector.ts',
    find: 'await this.#sight.protect(vm, value);',
    replace: 'void this.#sight.protect(vm, value);',
    seed: 1,
  },
  {
    name: 'acceptor answers before it is durable',
    why: 'a loss of power takes back what others count on',
    file: 'storage/journal/journal.ts',
    find: 'this.#queue.push({ what: entry, done });',
    replace: `this.#queue.push({ what: entry, done: (error) => (error === null ? null : done(error)) });
    this.#clock.defer(() => done(null));`,
    seed: 21,
  },
  {
    name: 'acceptor does not keep its promise',
    why: 'it accepts what is older than what it has promised, and an update is lost',
    file: 'storage/register/acceptor.ts',
    find: 'this.#change(object, register, { ...register.state, promised: ballot });',
    replace: 'this.#change(object, register, { ...register.state });',
    seed: 20,
  },
  {
    name: 'acceptor forgets its promise when it restarts',
    why: 'two proposers may both believe that they have a majority',
    file: 'storage/register/acceptor.ts',
    find: 'register.written = register.state.accepted?.ballot ?? null;',
    replace: `register.written = register.state.accepted?.ballot ?? null;
      register.state = { ...register.state, promised: register.written };`,
    seed: 333,
  },
  {
    name: 'in-sync change after the acknowledgement',
    why: 'a write is acknowledged before the record says that a silent copy does not count',
    file: 'storage/disk/in-sync-set.ts',
    find: 'if (state.isClosed || changes.isBusy || failing.length === 0) return;',
    replace: `if (state.isClosed || changes.isBusy || failing.length === 0) return;
      for (const copy of failing) copy.drop();`,
    seed: 1,
  },
  {
    name: 'take-over that skips the disks epoch',
    why: 'a component lets an older epoch in again',
    file: 'storage/disk/component.ts',
    find: 'if (compareFences(fence, meta.fence) < 0) {',
    replace: 'if (fence.epoch < 0) {',
    seed: 12,
  },
  {
    name: 'resync joins before it is complete',
    why: 'the record counts a copy that does not hold everything yet',
    file: 'storage/disk/catch-up.ts',
    find: 'mirror.resync(missed, copy, { isWanted: isCurrent, pace, meter }, () => {',
    replace: `mirror.resync(missed, copy, { isWanted: isCurrent, pace, meter }, () => {});
      Promise.resolve().then(() => {`,
    seed: 3,
  },
  {
    name: 'returning copy counts without resync',
    why: 'what it missed is not copied to it',
    file: 'storage/disk/catch-up.ts',
    find: 'const missed = mirror.dirtyRegions();',
    replace: 'const missed: number[] = [];',
    seed: 3,
  },
  {
    name: 'FLUSH of one copy only',
    why: 'the others may lose what was flushed',
    file: 'storage/disk/mirror.ts',
    find: 'this.toAll(this.targets(), (copy, landed) => copy.flush(landed), done);',
    replace: 'this.toAll(this.targets().slice(0, 1), (copy, landed) => copy.flush(landed), done);',
    seed: 7,
  },
  {
    name: 'loss of un-synced writes not noticed',
    why: 'a copy whose machine lost power goes on as if nothing was lost',
    file: 'storage/disk/copy.ts',
    find: 'if (mayHaveLost && !this.isClean && !this.surviveLoss()) return;',
    replace: '',
    seed: 112,
  },
  {
    name: 'a read does not verify its checksum',
    why: 'what a device makes of the data is passed on as what was written',
    file: 'storage/disk/component.ts',
    find: 'done(mismatch(first, blocks, adopt), bytes);',
    replace: 'done(null, bytes);',
    seed: 20,
  },
  {
    name: 'no range locks',
    why: 'a resync overwrites what a guest writes meanwhile',
    file: 'storage/disk/range-locks.ts',
    find: 'return (a.exclusive || b.exclusive) && a.from < b.to && b.from < a.to;',
    replace: 'return a.from > b.to && b.from > a.to;',
    seed: 399,
  },
  {
    name: 'write-intent cleared too early',
    why: 'bits are cleared when a write is acknowledged, whoever else still lacks it',
    file: 'storage/disk/mirror.ts',
    find: `          finished();
          release();`,
    replace: `          finished();
            for (const copy of this.copies) copy.clearIntent([...this.dirty.keys()]);
            this.dirty.clear();
            release();`,
    seed: 13,
  },
  {
    name: 'not the newest of what a majority has accepted',
    why: 'a proposer goes on from the first answer, and a chosen record is lost',
    file: 'storage/register/quorum.ts',
    find: 'const all = withKnowledge(promises[0] as Found, promises);',
    replace: 'const all = withKnowledge(promises.at(-1) as Found, promises);',
    seed: 1,
  },
];
