// A disk that can be slow: QEMU's storage daemon shows an image as a file (by FUSE), and lets as many requests to
// it through as it is told (QMP). So the kernel meets what it would meet on a slow disk: each request waits
// for the one before it.

import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { HoldfastError } from '../model/errors.ts';
import { run } from './program.ts';

export class Throttle {
  /** In the image's place. */
  readonly file: string;
  readonly #control: string;

  private constructor(image: string) {
    this.file = `${image}.throttled`;
    this.#control = `${image}.qmp`;
  }

  /** `inPlace`: what goes before a command, so that it ends with the lab. */
  static async start(image: string, inPlace: readonly string[]): Promise<Throttle> {
    const throttle = new Throttle(image);
    // The file appears on one that is there.
    writeFileSync(throttle.file, '');
    await run([
      ...[...inPlace, 'qemu-storage-daemon', '--daemonize'],
      ...['--object', 'throttle-group,id=pace'],
      ...['--blockdev', `file,node-name=image,filename=${image},discard=unmap`],
      ...['--blockdev', 'throttle,node-name=paced,file=image,throttle-group=pace'],
      ...['--chardev', `socket,id=control,path=${throttle.#control},server=on,wait=off`],
      ...['--monitor', 'chardev=control'],
      ...['--export', `fuse,id=file,node-name=paced,mountpoint=${throttle.file},writable=on`],
    ]);
    return throttle;
  }

  /** Lets one request through per so many milliseconds, at least one a second; at 0 all of them. */
  async slow(byMs: number): Promise<void> {
    const limits = { 'iops-total': byMs === 0 ? 0 : Math.max(1, Math.round(1000 / byMs)) };
    const pace = { path: '/objects/pace', property: 'limits', value: limits };
    const socket = connect(this.#control);
    try {
      await once(socket, 'connect');
      for (const command of [
        { execute: 'qmp_capabilities' },
        { execute: 'qom-set', arguments: pace, id: 'pace' },
      ]) {
        socket.write(`${JSON.stringify(command)}\n`);
      }
      for await (const line of createInterface(socket)) {
        const { id, error } = JSON.parse(line) as { id?: string; error?: { desc: string } };
        if (error !== undefined) throw new HoldfastError('internal', error.desc);
        if (id === 'pace') return;
      }
      throw new HoldfastError('internal', `${this.#control} was closed before it answered`);
    } finally {
      socket.destroy();
    }
  }
}
