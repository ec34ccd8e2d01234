// Commands as every file of them makes them: an action gets its session from the options that stand
// anywhere on the line, and its result is the promise that the program waits for.

import type { Io } from './io.ts';
import { createSession, type Session } from './session.ts';

/** The part of commander's command that is needed to find the global options. */
interface WithGlobals {
  optsWithGlobals(): object;
}

export type OpenSession = (command: WithGlobals) => Session;

export function sessions(io: Io): OpenSession {
  return (command) => createSession(io, command.optsWithGlobals());
}
