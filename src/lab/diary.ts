// What the hosts of a lab said of themselves: their logs, which survive their deaths, read as they grow. Each
// event of a host stands in its log too, so the story of a run and the moments of its failovers come from here.

import type { EventType } from '../model/events.ts';
import { toldEvents } from '../scenario/told-events.ts';
import { Tail } from './tail.ts';

export interface Entry {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly host: string;
  readonly level: string;
  readonly room: string;
  readonly message: string;
  /** Where it is an event. */
  readonly event: EventType | null;
  /** Where it is a point of HA that was reached. */
  readonly point: string | null;
  readonly vm: string | null;
}

export class Diary {
  readonly #tails: readonly { readonly host: string; readonly tail: Tail }[];

  constructor(logs: readonly { readonly name: string; readonly log: string }[]) {
    this.#tails = logs.map(({ name, log }) => ({ host: name, tail: new Tail(log) }));
  }

  /** What is new, in order of time as far as it was there. */
  news(): Entry[] {
    const entries = this.#tails.flatMap(({ host, tail }) =>
      tail.lines().flatMap((line) => entryOf(host, line) ?? []),
    );
    return entries.sort((a, b) => a.at - b.at);
  }
}

/** Null: no line of a daemon's log, such as a crash of Node's. */
function entryOf(host: string, line: string): Entry | null {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return line === ''
      ? null
      : {
          at: Date.now(),
          host,
          level: 'error',
          room: 'node',
          message: line,
          event: null,
          point: null,
          vm: null,
        };
  }
  const text = (key: string): string => (typeof fields[key] === 'string' ? fields[key] : '');
  const event = text('event');
  const room = text('room');
  return {
    at: Date.parse(text('time')),
    host,
    level: text('level'),
    room: (room.startsWith(`${host}/`) ? room.slice(host.length + 1) : room) || 'daemon',
    message: text('message'),
    event: event === '' ? null : (event as EventType),
    point: text('point') || null,
    vm: text('vm') || null,
  };
}

/** Whether it belongs into the story of a run. */
export function isTold({ room, event, level }: Entry): boolean {
  if (level === 'debug') return false;
  return room !== 'events' || toldEvents.has(event);
}
