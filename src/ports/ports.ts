// Everything that a host needs from outside, in one place.

import type { Clock } from './clock.ts';
import type { DevicePort } from './device.ts';
import type { LocalDisk } from './disk.ts';
import type { GuestDriver } from './guests.ts';
import type { Log } from './log.ts';
import type { Probe } from './probe.ts';
import type { Random } from './random.ts';
import type { Streams } from './streams.ts';
import type { Transport } from './transport.ts';

export interface HostPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly storageNetwork: Transport;
  readonly haNetwork: Transport;
  /** The main device: registers and journal are there, and components. */
  readonly disk: LocalDisk;
  /** Further devices, for components. */
  readonly devices?: readonly DevicePort[];
  readonly streams: Streams;
  readonly guests: GuestDriver;
  /** Who watches the points of the protocols: in production nobody. */
  readonly probe: Probe;
  /** Ends the host and begins it anew, as if its daemon had been restarted. Returns at once. */
  readonly restart: (reason: string) => void;
}
