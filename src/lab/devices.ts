// The devices of a lab's hosts that something may befall. Each is a file system of its own (ext4 in a file, through
// a loop device), mounted where its host uses it.
//
// It is full when a large file takes all that was free: everybody who writes then meets the same ENOSPC as on a full
// disk. It fails, is taken out or loses its power when the kernel shuts the file system down in the middle of
// what it does: every call on it fails from then on, and what was not synced is lost, as it is with a real
// disk. What comes back is a copy of what was on the disk in that moment, so that nothing which the kernel still
// does with the old one can reach it; and it is on another loop device, for a daemon takes the writes that were not
// synced for lost only where machine or device are not the same as before.

import { rmdirSync, rmSync, statfsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './program.ts';
import { Throttle } from './throttle.ts';

const size = '32G';
/** Nothing is kept back for root, as whom everything here runs, and nothing is written in the background. */
const makeOptions = [
  ...['-q', '-m', '0', '-J', 'size=32'],
  ...['-E', 'nodiscard,lazy_itable_init=1,lazy_journal_init=1'],
];
/** EXT4_IOC_SHUTDOWN of the kernel, without a flush of its journal. Node has no ioctl. */
const shutDown =
  'my $how = pack "L", 2; open my $at, "<", shift or die "$!\\n"; ioctl $at, 0x8004587d, $how or die "$!\\n"';

export class LabDevice {
  /** Where it is mounted. */
  readonly place: string;
  readonly #images: string;
  readonly #throttleIn: readonly string[] | null;
  #throttle: Throttle | null = null;
  #slowByMs = 0;
  #generation = 0;
  #state: 'none' | 'works' | 'failed' | 'out' = 'none';
  /** It is out because its host lost power. */
  #hasNoPower = false;

  /** `images`: the beginning of the names of its files. `throttleIn`: it can be slow, and this goes before the
   * command of what makes it so. */
  constructor(place: string, images: string, throttleIn: readonly string[] | null = null) {
    this.place = place;
    this.#images = images;
    this.#throttleIn = throttleIn;
  }

  /** An empty one, in the place of whatever was there. */
  async install(): Promise<void> {
    await this.#unmount();
    this.#generation += 1;
    await run(['truncate', '--size', size, this.#image]);
    await run(['mkfs.ext4', ...makeOptions, this.#image]);
    await this.#mount();
    rmdirSync(join(this.place, 'lost+found'));
  }

  async fill(): Promise<void> {
    // What is free at its place otherwise is the machine's.
    if (this.#state !== 'works')
      throw new Error(`${this.place} can not be filled: it is not there`);
    const { bavail, bsize } = statfsSync(this.place);
    const all = ['fallocate', '--length', String(bavail * bsize), this.#ballast];
    await this.#throttle?.slow(0); // what the lab does takes no time of the story
    await run(all).catch((error: unknown) => {
      // What was free is less by now: then that is what is taken.
      if (statfsSync(this.place).bavail > 0) throw error;
    });
    await this.#throttle?.slow(this.#slowByMs);
  }

  free(): void {
    rmSync(this.#ballast, { force: true });
  }

  /** Takes one request per so many milliseconds; at 0 as many as it can. */
  async slow(byMs: number): Promise<void> {
    this.#slowByMs = byMs;
    await this.#throttle?.slow(byMs);
  }

  /** It is there, and nothing on it can be read or written. */
  async fail(): Promise<void> {
    if (this.#state === 'works') await this.#shutDown();
    this.#state = 'failed';
  }

  async pull(): Promise<void> {
    if (this.#state === 'works') await this.#shutDown();
    await this.#unmount();
    this.#hasNoPower = false; // it is out whether there is power or not
  }

  async plug(): Promise<void> {
    if (this.#state === 'out') await this.#comeBack();
  }

  /** Nobody uses it any more. */
  async losePower(): Promise<void> {
    if (this.#state !== 'works') return;
    await this.pull();
    this.#hasNoPower = true;
  }

  async getPower(): Promise<void> {
    if (!this.#hasNoPower) return;
    this.#hasNoPower = false;
    await this.plug();
  }

  get #image(): string {
    return `${this.#images}.${this.#generation}.img`;
  }

  get #ballast(): string {
    return join(this.place, '.ballast');
  }

  async #shutDown(): Promise<void> {
    await run(['perl', '-e', shutDown, this.place]);
  }

  async #comeBack(): Promise<void> {
    const before = this.#image;
    this.#generation += 1;
    await run(['cp', '--sparse=always', before, this.#image]);
    await this.#throttle?.slow(0); // of the old one: who has been killed waits for its answers
    await this.#mount();
  }

  async #mount(): Promise<void> {
    await mkdir(this.place, { recursive: true, mode: 0o700 });
    // The old one stays where it is until the lab is removed, so that its number is not given away.
    const loop = (await run(['losetup', '--find', '--show', await this.#behindThrottle()])).trim();
    await run(['mount', '-t', 'ext4', '-o', 'noinit_itable', loop, this.place]);
    if (this.#slowByMs > 0) await this.#throttle?.slow(this.#slowByMs);
    this.#state = 'works';
  }

  /** What stands for the image. The old throttle stays, as the old loop device does. */
  async #behindThrottle(): Promise<string> {
    if (this.#throttleIn === null) return this.#image;
    this.#throttle = await Throttle.start(this.#image, this.#throttleIn);
    return this.#throttle.file;
  }

  /** Whoever still has files open there may keep them. */
  async #unmount(): Promise<void> {
    if (this.#state === 'works' || this.#state === 'failed')
      await run(['umount', '--lazy', this.place]);
    this.#state = 'out';
  }
}

/** Of a lab whose file systems are all unmounted. */
export async function detachLoops(labFolder: string): Promise<void> {
  const list = await run(['losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE']);
  for (const line of list.split('\n')) {
    const [loop = '', file = ''] = line.trim().split(/\s+/);
    if (file.startsWith(`${labFolder}/`)) await run(['losetup', '--detach', loop]);
  }
}
