// How a command fails: one line says what happened, one line what to do, and the exit status says
// which kind it was, so that scripts need not read the text.

import { ApiError } from '../api/client.ts';
import type { ErrorReply } from '../api/schemas.ts';
import { errorCatalogue, HoldfastError } from '../model/errors.ts';
import type { Io } from './io.ts';

export const exitStatus = { done: 0, failed: 1, wrongUsage: 2 } as const;

/** The command line, or a file that it names, is not what it should be. */
export class UsageError extends Error {
  readonly todo: string;
  constructor(message: string, todo = 'Run the command with --help to see what it takes.') {
    super(message);
    this.name = 'UsageError';
    this.todo = todo;
  }
}

/** Somebody asked the command to stop before its work was done. */
export class Interrupted extends Error {}

/** The command ran and its work failed; everything about it has been said already. */
export class AlreadySaid extends Error {}

export function describe(error: unknown): ErrorReply {
  if (error instanceof UsageError) {
    return { code: 'wrong-usage', message: error.message, todo: error.todo };
  }
  if (error instanceof ApiError || error instanceof HoldfastError) {
    return { code: error.code, message: error.message, todo: error.todo };
  }
  if (error instanceof Interrupted) {
    return { code: 'interrupted', message: error.message, todo: 'Nothing is left to be done.' };
  }
  const system = error as NodeJS.ErrnoException;
  if (system instanceof Error && typeof system.code === 'string') {
    const todo = 'Look at the named file or folder.';
    return { code: system.code, message: system.message, todo };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'internal', message, todo: errorCatalogue.internal };
}

export function printFailure(io: Io, error: unknown, json: boolean): number {
  if (error instanceof AlreadySaid) return exitStatus.failed;
  const reply = describe(error);
  if (json) {
    io.err(`${JSON.stringify({ error: reply })}\n`);
  } else {
    io.err(`error: ${oneLine(reply.message)}\n${oneLine(reply.todo)}\n`);
  }
  return error instanceof UsageError ? exitStatus.wrongUsage : exitStatus.failed;
}

const oneLine = (text: string): string => text.trim().replace(/\s*\n\s*/g, ' ');
