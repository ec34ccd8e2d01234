// Where a command writes to. A reader that goes away (`holdfast vm list | head -1`) is no fault: what
// is written after that is dropped, and `closed` tells those who would go on writing for ever.

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
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

/** Who has nothing to write does not hear of a pipe's end; but opening it once more fails without a
 * reader (fifo(7)). */
function hasReader(): boolean {
  try {
    closeSync(openSync('/proc/self/fd/1', constants.O_WRONLY | constants.O_NONBLOCK));
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENXIO';
  }
}

export function processIo(): Io {
  const closed = new AbortController();
  const { stdout, stderr, env } = process;
  stdout.on('error', () => closed.abort());
  stderr.on('error', () => undefined);
  if (fstatSync(1).isFIFO()) {
    const watch = setInterval(() => {
      if (!hasReader()) closed.abort();
      if (closed.signal.aborted) clearInterval(watch);
    }, 1000);
    watch.unref();
  }
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
