// `holdfast disk serve` as a process of its own, and the NBD clients that are pointed at it.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RealCluster, until } from './real-cluster.ts';

const program = fileURLToPath(new URL('../../../bin/holdfast', import.meta.url));

export interface Service {
  readonly uri: string;
  readonly socket: string;
  readonly process: ChildProcess;
  readonly text: { out: string; err: string };
  readonly exited: Promise<number | null>;
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** The services of one disk, `VM/DISK`. */
export class DiskServices {
  readonly #cluster: RealCluster;
  readonly #disk: string;
  readonly #running = new Set<Service>();

  constructor(cluster: RealCluster, disk: string) {
    this.#cluster = cluster;
    this.#disk = disk;
  }

  begin(host: string, ...flags: string[]): Service {
    const socket = join(this.#cluster.folder, 'disk.sock');
    const api = ['--socket', this.#cluster.socket(host)];
    const args = [...api, 'disk', 'serve', this.#disk, '--socket', socket, ...flags];
    const child = spawn(process.execPath, [program, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const text = { out: '', err: '' };
    child.stdout.on('data', (bytes: Buffer) => (text.out += bytes.toString()));
    child.stderr.on('data', (bytes: Buffer) => (text.err += bytes.toString()));
    const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
    const service: Service = {
      uri: `nbd+unix:///${this.#disk.slice(this.#disk.indexOf('/') + 1)}?socket=${socket}`,
      socket,
      process: child,
      text,
      exited,
      end: (signal) => {
        this.#running.delete(service);
        child.kill(signal);
        return exited;
      },
    };
    this.#running.add(service);
    return service;
  }

  async serve(host: string, ...flags: string[]): Promise<Service> {
    const service = this.begin(host, ...flags);
    await until('the disk is served', () => {
      if (service.process.exitCode !== null) throw new Error(service.text.err);
      return service.text.out.includes('Serving');
    });
    return service;
  }

  async endAll(): Promise<void> {
    for (const one of this.#running) await one.end('SIGKILL');
  }
}

/** Runs programs in the folder of the cluster. */
export class Tools {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  run(name: string, ...args: string[]): Promise<{ status: number; out: string }> {
    return new Promise((resolve) => {
      const options = { cwd: this.#folder, maxBuffer: 2 ** 26 };
      execFile(name, args, options, (error, out, err) => {
        resolve({ status: error === null ? 0 : Number(error.code ?? 1), out: out + err });
      });
    });
  }

  /** What it said; throws where it fails. */
  async done(name: string, ...args: string[]): Promise<string> {
    const { status, out } = await this.run(name, ...args);
    if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${status}\n${out}`);
    return out;
  }
}
