// Which of the ports on which a guest reports it has open. A program that ends closes its port, and so does a guest
// that reboots; one that hangs keeps it open. That is how a guest that hangs is told from one whose agent
// its user has stopped.

import { portId, reportPorts } from './command-line.ts';
import type { QmpClient, QmpObject } from './qmp.ts';

export class ReportPorts {
  readonly #open = new Set<string>();

  get isMute(): boolean {
    return this.#open.size === 0;
  }

  /** What happened while nobody listened. */
  async look(qmp: QmpClient): Promise<void> {
    const devices = (await qmp.execute('query-chardev')) as readonly QmpObject[];
    for (const port of reportPorts) {
      const device = devices.find(({ label }) => label === port);
      this.#set(portId(port), device?.['frontend-open'] === true);
    }
  }

  /** The event VSERPORT_CHANGE. */
  changed({ id, open }: QmpObject): void {
    if (reportPorts.some((port) => portId(port) === id)) this.#set(id as string, open === true);
  }

  #set(id: string, isOpen: boolean): void {
    if (isOpen) this.#open.add(id);
    else this.#open.delete(id);
  }
}
