// A log that keeps what was said, for tests that look, and prints nothing.

import type { Log, LogFields } from '../../src/ports/log.ts';

export class SilentLog implements Log {
  readonly lines: { level: string; message: string; fields: LogFields | undefined }[];

  constructor(lines: SilentLog['lines'] = []) {
    this.lines = lines;
  }

  debug = (message: string, fields?: LogFields) => this.#add('debug', message, fields);
  info = (message: string, fields?: LogFields) => this.#add('info', message, fields);
  warn = (message: string, fields?: LogFields) => this.#add('warn', message, fields);
  error = (message: string, fields?: LogFields) => this.#add('error', message, fields);

  child(): Log {
    return new SilentLog(this.lines);
  }

  /** The first line of this level that contains the text. */
  find(level: string, text: string): { message: string; fields: LogFields | undefined } | null {
    return this.lines.find((line) => line.level === level && line.message.includes(text)) ?? null;
  }

  #add(level: string, message: string, fields: LogFields | undefined): void {
    if (this.lines.length < 10_000) this.lines.push({ level, message, fields });
  }
}
