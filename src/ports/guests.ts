// The guests of one machine, each a process under its own guard. The guard outlives the daemon and
// pauses the guest when the deadline passes that the daemon last set; only `resume` undoes that.

import type { Epoch, VmId } from '../model/ids.ts';
import type { PathDisk } from '../model/path-disk.ts';

/** A disk object. */
export interface ServedDisk {
  readonly name: string;
  /** Of the NBD server. */
  readonly socket: string;
}

export type GuestDisk = ServedDisk | PathDisk;

export interface GuestLaunch {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly cpus: number;
  readonly memoryBytes: number;
  /** `disk`, or the name of a boot image of this host's configuration. */
  readonly boot: string;
  /** In the order in which the guest sees them. */
  readonly disks: readonly GuestDisk[];
  /** Names of disks that it is started without, and may get while it runs. */
  readonly absentDisks: readonly string[];
  /** Until when the guest may run, by the host's `Clock.now()`. */
  readonly deadlineMs: number;
}

export type GuestEvent =
  /** The process ended; `clean` if the guest switched itself off. */
  | { readonly type: 'exited'; readonly clean: boolean; readonly detail: string }
  | { readonly type: 'panicked' }
  /** The guest has reset itself. */
  | { readonly type: 'reset' }
  /** What has reported in it has ended, or been ended, in good order: that it is silent from now on says nothing. */
  | { readonly type: 'mute' }
  /** A line on the heartbeat port, or an answer of the guest agent. */
  | { readonly type: 'heartbeat'; readonly line: string }
  /** The guard paused it because the deadline passed. */
  | { readonly type: 'paused' }
  /** The guest reported an I/O error of a disk and was stopped by the virtual machine monitor. */
  | { readonly type: 'ioError'; readonly disk: string; readonly detail: string };

/** What a guest has asked of disks: whether it grows tells whether the guest asks for anything. */
export interface DiskActivity {
  readonly requests: number;
  /** Not answered yet. */
  readonly inFlight: number;
}

export interface Guest {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly state: 'running' | 'paused' | 'exited';
  /** Names of the disks that it has or may have, also for a daemon that has only found it: what was being
   * attached when the last one died counts. Null where that is not known. */
  readonly disks: readonly string[] | null;
  /** It has been heard since its start, or since it reset itself or became mute, by this daemon or an earlier one. */
  readonly wasHeard: boolean;
  /** Of its disks at paths, which nobody else sees it use; null where that can not be told now. What is under
   * way there may not be counted before it is done. */
  pathActivity(): Promise<DiskActivity | null>;
  /** Sets a later deadline; never resumes a paused guest. */
  extend(deadlineMs: number): void;
  /** Stops the guest's processors at once (SIGSTOP); resolves when they stand. */
  pause(): Promise<void>;
  /** Lets a paused guest go on until the deadline. */
  resume(deadlineMs: number): Promise<void>;
  /** Asks the guest to switch itself off (ACPI). */
  powerDown(): Promise<void>;
  /**
   * Plugs a disk in while the guest runs; nothing happens where it has the disk. Rejects with
   * `guest-failed` where that can not be, and otherwise may be tried again.
   */
  attachDisk(disk: ServedDisk): Promise<void>;
  /** Ends the guest; resolves when no process of it is left, paused or not. */
  kill(): Promise<void>;
  handle(onEvent: (event: GuestEvent) => void): void;
  /** Lets go of the guest without touching it: the daemon stops, the guard goes on. */
  detach(): void;
}

export interface GuestDriver {
  /** `kvm` or `tcg`; for people. */
  readonly accelerator: string;
  /** Why no guest can use what lies at this path on this machine now; null: nothing speaks against it. Never
   * waits long, even where the storage does not answer. */
  pathProblem(path: string): Promise<string | null>;
  /** Starts a guest; rejects with `guest-failed`, `path-unusable` or `no-capacity`, and then leaves no process. */
  start(launch: GuestLaunch): Promise<Guest>;
  /** The guests that an earlier daemon left under their guards. */
  recover(): Promise<Guest[]>;
  capacity(): { readonly cpus: number; readonly memoryBytes: number };
}
