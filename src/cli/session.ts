// What every command works with: its output (tables for people, JSON for programs), progress, and a
// client for the hosts of the context.

import { type ApiClient, createClient } from '../api/client.ts';
import { findContext } from './context.ts';
import { UsageError } from './failure.ts';
import type { Io } from './io.ts';

/** Options that every command takes. */
export interface GlobalOptions {
  readonly context?: string;
  readonly socket?: string;
  readonly output?: 'table' | 'json';
}

export interface Session {
  readonly io: Io;
  readonly json: boolean;
  readonly options: GlobalOptions;
  client(): Promise<ApiClient>;
  /** The command's result: as JSON, or as the text that `human` makes of it. */
  print<Value>(value: Value, human: (value: Value) => string): void;
  /** Says on standard error what goes on while `work` takes its time. */
  during<Value>(text: string, work: Promise<Value>): Promise<Value>;
}

export function createSession(io: Io, options: GlobalOptions): Session {
  const json = options.output === 'json';
  return {
    io,
    json,
    options,
    async client() {
      if (options.socket !== undefined && options.context !== undefined) {
        throw new UsageError('--socket and --context exclude each other.');
      }
      const { sockets } = await findContext(options, io.env);
      return createClient(sockets);
    },
    print(value, human) {
      io.out(json ? `${JSON.stringify(value, null, 2)}\n` : human(value));
    },
    async during(text, work) {
      if (json) return work;
      if (!io.errIsTerminal) {
        io.err(`${text} ...\n`);
        return work;
      }
      const begun = Date.now();
      const show = (): void => {
        const seconds = Math.floor((Date.now() - begun) / 1000);
        io.err(`\r${text} ...${seconds > 0 ? ` ${seconds} s` : ''}`);
      };
      show();
      const timer = setInterval(show, 1000);
      try {
        return await work;
      } finally {
        clearInterval(timer);
        io.err('\r\u001b[K');
      }
    },
  };
}
