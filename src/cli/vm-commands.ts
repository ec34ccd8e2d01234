// `holdfast vm ...`: making, starting, stopping, looking at and removing VMs.

import { readFile } from 'node:fs/promises';
import { Command } from '@commander-js/extra-typings';
import type { VmReply, VmRequestBody } from '../api/schemas.ts';
import { limits } from '../model/limits.ts';
import type { RestartPriority } from '../model/vm.ts';
import {
  type DiskArgument,
  diskArguments,
  hostNames,
  memorySize,
  vmName,
  vmNames,
  wholeNumber,
  yesOrNo,
} from './arguments.ts';
import { builtInGuest } from './built-in-guest.ts';
import type { OpenSession } from './command.ts';
import { UsageError } from './failure.ts';
import { metadataCommands } from './metadata-commands.ts';
import { vmTable, vmText } from './tables.ts';
import { readVmFile } from './vm-file.ts';

/** An empty disk boots nothing, so a VM that says nothing gets the guest that comes with Holdfast. */
const defaultBoot = builtInGuest;

export function vmCommands(open: OpenSession): Command {
  const vm = new Command('vm').description('virtual machines');
  addCreate(vm, open);
  vm.addCommand(metadataCommands(open));

  vm.command('start')
    .description('start a VM; done when its guest runs')
    .argument('<name>', 'name or id of the VM')
    .option('--on <host>', 'start it on this host (default: where it fits best)')
    .action(async (name, { on }, command) => {
      const session = open(command);
      const client = await session.client();
      const work = client.startVm(name, on === undefined ? {} : { on });
      const info = await session.during(`starting ${name}`, work);
      session.print(info, () => `${info.name} is ${info.power} on ${info.host ?? 'no host'}.\n`);
    });

  vm.command('stop')
    .description('switch a VM off; asks the guest first')
    .argument('<name>', 'name or id of the VM')
    .option('--force', 'end it at once, as if its power was cut')
    .action(async (name, { force }, command) => {
      const session = open(command);
      const client = await session.client();
      const work = client.stopVm(name, force === undefined ? {} : { force });
      const info = await session.during(`stopping ${name}`, work);
      session.print(info, () => `${info.name} is ${info.power}.\n`);
    });

  vm.command('list')
    .description('all VMs that this part of the cluster knows')
    .action(async (_options, command) => {
      const session = open(command);
      const vms = await (await session.client()).vms();
      session.print(vms, () => vmTable(session.io, vms));
    });

  vm.command('show')
    .description('one VM, its objects and copies, and why it does not run if it does not')
    .argument('<name>', 'name or id of the VM')
    .action(async (name, _options, command) => {
      const session = open(command);
      const detail = await (await session.client()).vm(name);
      session.print(detail, () => vmText(session.io, detail));
    });

  vm.command('set')
    .description('change what a VM requires; counts at once')
    .argument('<name>', 'name or id of the VM')
    .requiredOption('--disk <disk>', 'which of its disks, such as disk1')
    .requiredOption(
      '--required <yes|no>',
      'no: it can be started while the disk can not be reached, and gets it when it can',
      yesOrNo,
    )
    .action(async (name, { disk, required }, command) => {
      const session = open(command);
      const info = await (await session.client()).setRequired(name, disk, required);
      const text = required ? 'requires' : 'does not require';
      session.print(info, () => `${info.name} ${text} ${disk}.\n`);
    });

  vm.command('remove')
    .description('remove a VM that is switched off, with its disk objects')
    .argument('<name>', 'name or id of the VM')
    .action(async (name, _options, command) => {
      const session = open(command);
      const client = await session.client();
      const { spec } = await client.vm(name);
      await session.during(`removing ${name}`, client.removeVm(name));
      const kept = spec.disks.flatMap((disk) => ('path' in disk ? [disk.path] : []));
      const rest = kept.length === 0 ? '' : ` ${kept.join(' and ')} stays as it is.`;
      session.print({ removed: name }, () => `${name} is removed.${rest}\n`);
    });
  return vm;
}

function addCreate(vm: Command, open: OpenSession): void {
  vm.command('create')
    .description('make a VM, with empty disks or those at a path; it stays switched off')
    .argument('[name]', 'its name: lower-case letters, digits, hyphens', vmName)
    .option('-f, --file <file>', 'take the VM from this YAML file (`-`: standard input)')
    .option('--memory <size>', 'such as 96MiB', memorySize)
    .option(
      '--disk <disk>',
      'such as 256MiB or 1GiB,policy=single,required=no; or what lies on storage that all hosts see: path=/mnt/nfs/web.qcow2, path=/dev/vg/web,format=raw; again for each further disk',
      diskArguments,
    )
    .option('--cpus <number>', 'virtual processors', wholeNumber(1, limits.maxCpus))
    .option('--policy <name>', 'storage policy of its objects')
    .option(
      '--boot <image>',
      `boot image, or \`disk\` for the first disk's (default: ${defaultBoot})`,
    )
    .option(
      '--hosts <hosts>',
      'such as h1,h2,h3: where its objects go, hosts with data first (default: where there is most space)',
      hostNames,
    )
    .option('--priority <priority>', 'highest, high, medium, low or lowest')
    .option('--after <vms>', 'such as db,dns: VMs that run before it is restarted', vmNames)
    .option('--separate <label>', 'VMs with the same label go to different hosts if they can')
    .option('--unprotected', 'do not restart it when its host fails')
    .action(async (name, options, command) => {
      const session = open(command);
      const request = await requestOf(name, options);
      const client = await session.client();
      const work = client.createVm(request);
      const info: VmReply = await session.during(`creating ${request.name}`, work);
      session.print(info, () => `${info.name} is there, id ${info.id}, switched off.\n`);
    });
}

interface CreateOptions {
  readonly file?: string | undefined;
  readonly memory?: number | undefined;
  readonly disk?: readonly DiskArgument[] | undefined;
  readonly cpus?: number | undefined;
  readonly policy?: string | undefined;
  readonly boot?: string | undefined;
  readonly hosts?: readonly string[] | undefined;
  readonly priority?: string | undefined;
  readonly after?: readonly string[] | undefined;
  readonly separate?: string | undefined;
  readonly unprotected?: true | undefined;
}

async function requestOf(name: string | undefined, options: CreateOptions): Promise<VmRequestBody> {
  const { file, memory, disk, cpus, policy, boot, hosts, unprotected } = options;
  const { priority, after, separate } = options;
  if (file !== undefined) {
    const { file: _, ...others } = options;
    const extra = Object.keys(others)[0];
    if (extra !== undefined) throw new UsageError(`--file and --${extra} exclude each other.`);
    const request = readVmFile(await readText(file), file, name);
    return { boot: defaultBoot, ...request };
  }
  if (name === undefined) throw new UsageError('The name of the VM is missing.');
  if (memory === undefined) throw new UsageError('--memory is missing.');
  if (disk === undefined) throw new UsageError('--disk is missing.');
  return {
    name,
    memoryBytes: memory,
    disks: disk,
    boot: boot ?? defaultBoot,
    ...(cpus === undefined ? {} : { cpus }),
    ...(policy === undefined ? {} : { policy }),
    ...(hosts === undefined ? {} : { hosts }),
    ...(priority === undefined ? {} : { priority: priority as RestartPriority }), // checked there
    ...(after === undefined ? {} : { after }),
    ...(separate === undefined ? {} : { separate }),
    ...(unprotected ? { protected: false } : {}),
  };
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file === '-' ? '/dev/stdin' : file, 'utf8');
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new UsageError(`The file ${file} can not be read: ${text}.`);
  }
}
