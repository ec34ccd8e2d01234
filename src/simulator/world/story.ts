// What the story of a run is made of: the log of the hosts, with names in the place of ids.

import type { Manager } from '../../manager/api.ts';
import type { LogFields } from '../../ports/log.ts';
import { toldEvents } from '../../scenario/told-events.ts';

export function isTold(room: string, fields: LogFields | undefined): boolean {
  return room !== 'events' || toldEvents.has(fields?.['event']);
}

/** Says `web-1` and `web-1/disk0` where a line has the id of a VM or object, as a fault's text may. */
export class Names {
  readonly #managers: () => readonly Manager[];
  readonly #names = new Map<string, string>();

  constructor(managers: () => readonly Manager[]) {
    this.#managers = managers;
  }

  inText(text: string): string {
    return text.replace(/[0-9a-f]{32}/g, (id) => {
      if (!this.#names.has(id)) this.#learn();
      return this.#names.get(id) ?? id;
    });
  }

  #learn(): void {
    for (const manager of this.#managers()) {
      for (const { id, name } of manager.vms()) {
        this.#names.set(id, name);
        for (const object of manager.vm(id).objects) {
          const part = object.kind === 'namespace' ? object.kind : object.name;
          this.#names.set(object.object, `${name}/${part}`);
        }
      }
    }
  }
}
