// The command line as a whole: which commands there are, the options that all of them take, and how
// an end of any kind becomes an exit status. Nothing here ends the process, so that tests can run it.

import {
  Command,
  CommanderError,
  type CommandUnknownOpts,
  Option,
} from '@commander-js/extra-typings';
import { clusterCommands } from './cluster-commands.ts';
import { sessions } from './command.ts';
import { demoCommand } from './demo-command.ts';
import { diskCommands } from './disk-commands.ts';
import { eventCommand } from './event-commands.ts';
import { exitStatus, printFailure, UsageError } from './failure.ts';
import { hostCommands } from './host-commands.ts';
import type { Io } from './io.ts';
import { labCommands } from './lab/lab-command.ts';
import { objectCommands } from './object-commands.ts';
import { policyCommands } from './policy-commands.ts';
import { simCommands } from './sim/sim-command.ts';
import { vmCommands } from './vm-commands.ts';

const version = '0.1.0';

/** Runs one command; resolves with its exit status and never rejects. */
export async function runCli(args: readonly string[], io: Io): Promise<number> {
  const program = createProgram(io);
  // It has a `--socket` of its own: the program's options stand before it.
  if (args.some((arg, index) => arg === 'disk' && args[index + 1] === 'serve')) {
    program.enablePositionalOptions();
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitStatus.done;
  } catch (error) {
    const json = wantsJson(args);
    if (!(error instanceof CommanderError)) return printFailure(io, error, json);
    // Help and version come as errors too; help that nobody asked for stands for a missing command.
    if (error.exitCode === 0) return exitStatus.done;
    if (error.code === 'commander.help') {
      if (!json) return exitStatus.wrongUsage;
      return printFailure(io, new UsageError('The command is missing.'), json);
    }
    return printFailure(io, new UsageError(sentence(error.message)), json);
  }
}

function createProgram(io: Io): Command {
  const open = sessions(io);
  const program = new Command('holdfast')
    .description('Keeps virtual machines running when hosts, networks or disks fail.')
    .version(version)
    .option('--context <file>', 'file with the sockets of the hosts to talk to [HOLDFAST_CONTEXT]')
    .option('--socket <path>', 'socket of the one host to talk to')
    .addOption(
      new Option('--output <format>', 'for people or for programs')
        .choices(['table', 'json'] as const)
        .default('table' as const),
    );
  const commands = [
    clusterCommands(open),
    hostCommands(open),
    vmCommands(open),
    diskCommands(open),
    objectCommands(open),
    policyCommands(open),
    eventCommand(open),
    demoCommand(open),
    simCommands(open),
    labCommands(open),
  ];
  for (const command of commands) program.addCommand(command);
  prepare(program, io);
  return program;
}

/** Settings that commander does not hand down to commands that were made elsewhere. */
function prepare(command: CommandUnknownOpts, io: Io): void {
  command.exitOverride().configureOutput({
    writeOut: (text) => io.out(text),
    writeErr: (text) => io.err(text),
    outputError: () => undefined,
  });
  for (const inner of command.commands) prepare(inner, io);
}

/** Also where the line could not be parsed. */
function wantsJson(args: readonly string[]): boolean {
  return args.some(
    (arg, index) => arg === '--output=json' || (arg === '--output' && args[index + 1] === 'json'),
  );
}

function sentence(message: string): string {
  const text = message.replace(/^error: /, '').trim();
  const ended = /[.)?]$/.test(text) ? text : `${text}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}
