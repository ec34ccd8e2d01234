// Where a command writes to. A reader that goes away (`holdfast vm list | head -1`) is no fault: what
// is written after that is dropped, and `closed` tells those who would go on writing for ever.

import { styleText } from 'node:util';

type Format = Parameters<typeof styleText>[0];

export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** Aborted when nobody reads standard output any more. */
  readonly closed: AbortSignal;
  readonly errIsTerminal: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  style(format: Format, text: string): string;
}

export function processIo(): Io {
  const closed = new AbortController();
  const { stdout, stderr, env } = process;
  stdout.on('error', () => closed.abort());
  stderr.on('error', () => undefined);
  const color = stdout.isTTY && !env['NO_COLOR'] && env['TERM'] !== 'dumb';
  return {
    out: (text) => void (closed.signal.aborted || stdout.write(text)),
    err: (text) => void stderr.write(text),
    closed: closed.signal,
    errIsTerminal: stderr.isTTY === true,
    env,
    style: (format, text) => (color ? styleText(format, text) : text),
  };
}
