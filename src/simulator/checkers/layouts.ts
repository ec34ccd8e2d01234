// What a policy says is in the end what there is: as many copies, stripes and voters, on as many hosts. Looked
// up in what was committed; what each object lacks is a sentence.

import type { DiskRecord, NamespaceRecord } from '../../model/record.ts';
import type { Ledger } from './ledger.ts';

/** Of the VMs named. All hosts must be there: what is on others is not made anew soon. */
export function layoutProblems(
  ledger: Ledger,
  vms: readonly { readonly name: string }[],
): string[] {
  const names = new Set(vms.map(({ name }) => name));
  return ledger
    .namespaces()
    .filter(({ name }) => names.has(name))
    .flatMap((vm) => {
      const disks = vm.disks.flatMap((object) => ledger.disk(object) ?? []);
      return [
        ...disks.flatMap((disk) => diskProblems(vm, disk)),
        ...voterProblems(vm.name, vm),
        ...disks
          .filter((disk) => disk.policy.failuresToTolerate > vm.policy.failuresToTolerate)
          .map((disk) => `${vm.name} tolerates less than its ${disk.name}`),
      ];
    });
}

function diskProblems(vm: NamespaceRecord, disk: DiskRecord): string[] {
  const { policy, blueprint, inSync } = disk;
  const name = `${vm.name}/${disk.name}`;
  const problems = voterProblems(name, disk);
  const stripes = blueprint.mirrors.map((mirror) => mirror.stripes.length);
  const wanted = Array.from({ length: policy.failuresToTolerate + 1 }, () => policy.stripes);
  if (disk.next !== undefined) problems.push(`${name} has a tree that is still being filled`);
  if (stripes.join() !== wanted.join()) {
    problems.push(
      `${name} has mirrors of ${stripes.join()} stripes; it shall have ${wanted.join()}`,
    );
  }
  if (policy.thick === true && blueprint.thick !== true) problems.push(`${name} is thin`);
  const all = blueprint.mirrors.flatMap((mirror) => mirror.stripes);
  const behind = all.filter((one) => !inSync.includes(one.id));
  if (behind.length > 0) {
    problems.push(`${name} is not in sync on ${behind.map((one) => one.host).join()}`);
  }
  const hosts = blueprint.mirrors.map((mirror) => new Set(mirror.stripes.map((one) => one.host)));
  if (hosts.some((its) => its.size > 1)) problems.push(`${name} has a mirror on several hosts`);
  if (new Set(hosts.flatMap((its) => [...its])).size < blueprint.mirrors.length) {
    problems.push(`${name} has two mirrors on one host`);
  }
  return problems;
}

function voterProblems(
  name: string,
  { policy, voters, nextVoters }: DiskRecord | NamespaceRecord,
): string[] {
  const count = new Set(voters.map(({ host }) => host)).size;
  const wanted = 2 * policy.failuresToTolerate + 1;
  if (nextVoters !== undefined) return [`${name} is between two groups of voters`];
  return count === wanted ? [] : [`${name} has ${count} voters; it shall have ${wanted}`];
}
