// Log lines as JSON, one per line, to a file or to standard output. Written synchronously: a daemon
// that is about to be killed has said what it saw last, and there are few lines. A log that can not
// be written never stops the host.

import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { destination, type Logger, pino, stdTimeFunctions } from 'pino';
import type { Log } from '../ports/log.ts';

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

export function createLog(options: {
  readonly host: string;
  readonly level: LogLevel;
  /** Appended to, mode 0600; null is standard output. */
  readonly file: string | null;
}): Log {
  if (options.file !== null) mkdirSync(dirname(options.file), { recursive: true, mode: 0o700 });
  const target = destination({ dest: options.file ?? 1, sync: true, mode: 0o600 });
  target.on('error', () => {});
  const root = pino(
    {
      level: options.level,
      base: { host: options.host },
      timestamp: stdTimeFunctions.isoTime,
      messageKey: 'message',
      formatters: { level: (label) => ({ level: label }) },
    },
    target,
  );
  return room(root, null);
}

function room(root: Logger, name: string | null): Log {
  const logger = name === null ? root : root.child({ room: name });
  return {
    debug: (message, fields) => logger.debug(fields ?? {}, message),
    info: (message, fields) => logger.info(fields ?? {}, message),
    warn: (message, fields) => logger.warn(fields ?? {}, message),
    error: (message, fields) => logger.error(fields ?? {}, message),
    child: (inner) => room(root, name === null ? inner : `${name}/${inner}`),
  };
}
