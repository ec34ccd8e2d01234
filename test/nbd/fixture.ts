// A server on fake streams over a disk in memory, with its log kept.

import type { Log, LogFields } from '../../src/ports/log.ts';
import { type NbdServer, serveNbd } from '../../src/storage/nbd/server.ts';
import { enter } from './client-wire.ts';
import { FakeStream, FakeStreams } from './fake-streams.ts';
import { MemoryDevice } from './memory-device.ts';

export class MemoryLog implements Log {
  readonly lines: string[] = [];
  debug(message: string, fields?: LogFields): void {
    this.#add('debug', message, fields);
  }
  info(message: string, fields?: LogFields): void {
    this.#add('info', message, fields);
  }
  warn(message: string, fields?: LogFields): void {
    this.#add('warn', message, fields);
  }
  error(message: string, fields?: LogFields): void {
    this.#add('error', message, fields);
  }
  child(): Log {
    return this;
  }
  of(level: string): string[] {
    return this.lines.filter((line) => line.startsWith(`${level}: `));
  }
  #add(level: string, message: string, fields: LogFields = {}): void {
    this.lines.push(`${level}: ${message} ${JSON.stringify(fields)}`);
  }
}

export interface Fixture {
  readonly streams: FakeStreams;
  readonly device: MemoryDevice;
  readonly log: MemoryLog;
  readonly server: NbdServer;
}

export async function serve({
  sizeBytes = 64 * 1024,
  readOnly = false,
  device = new MemoryDevice(sizeBytes),
} = {}): Promise<Fixture> {
  const [streams, log] = [new FakeStreams(), new MemoryLog()];
  const options = { streams, path: 'disk.sock', exportName: 'disk0', device, readOnly, log };
  return { streams, device, log, server: await serveNbd(options) };
}

/** A client in the transmission phase; `replies()` is what has come since. */
export function enterTransmission<T extends FakeStream = FakeStream>(
  { streams }: Fixture,
  { structured = false, allocation = false, stream = new FakeStream() as T } = {},
): { stream: T; replies: () => Buffer } {
  streams.connect(stream);
  stream.feed(enter('disk0', { structured, allocation }));
  const start = stream.outputBytes;
  return { stream, replies: () => stream.output.subarray(start) };
}
