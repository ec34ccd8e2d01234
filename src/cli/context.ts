// Which hosts a command talks to. A context names the sockets of several hosts, so that a dead one
// does not silence the command.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type Static, Type } from 'typebox';
import { parse } from 'yaml';
import { compileCheck, problemsText } from '../api/problems.ts';
import { UsageError } from './failure.ts';

const ContextSchema = Type.Object(
  {
    sockets: Type.Array(Type.String({ description: 'the path of a socket' }), {
      minItems: 1,
      description: 'a list of socket paths',
    }),
    /** Written by `holdfast demo`: what `demo --stop` ends and removes. */
    demo: Type.Optional(Type.String({ description: "the demo's folder" })),
  },
  { additionalProperties: false },
);
export type Context = Static<typeof ContextSchema>;

const checkContext = compileCheck(ContextSchema);
const defaultSocket = '/run/holdfast/api.sock';

export interface ContextOptions {
  readonly context?: string | undefined;
  readonly socket?: string | undefined;
}

export async function findContext(
  options: ContextOptions,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Context> {
  if (options.socket !== undefined) return { sockets: [resolve(options.socket)] };
  const named = options.context ?? env['HOLDFAST_CONTEXT'];
  if (named !== undefined && named !== '') return readContext(named);
  const usual = join(
    env['XDG_CONFIG_HOME'] || join(env['HOME'] ?? homedir(), '.config'),
    'holdfast',
    'context',
  );
  return existsSync(usual) ? readContext(usual) : { sockets: [defaultSocket] };
}

/** Relative paths count from the file's folder. */
export async function readContext(file: string): Promise<Context> {
  let value: unknown;
  try {
    value = parse(await readFile(file, 'utf8'));
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new UsageError(`The context file ${file} can not be read: ${text}`, contextTodo);
  }
  const problems = checkContext(value);
  if (problems.length > 0) {
    throw new UsageError(`The context file ${file}: ${problemsText(problems)}.`, contextTodo);
  }
  const context = value as Context;
  const folder = dirname(resolve(file));
  return { ...context, sockets: context.sockets.map((socket) => resolve(folder, socket)) };
}

const contextTodo =
  'Name another file with --context or HOLDFAST_CONTEXT, or a socket with --socket.';
