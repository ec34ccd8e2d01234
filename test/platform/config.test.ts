import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type ConfigSettings,
  parseConfig,
  readConfig,
  writeConfig,
} from '../../src/daemon/config.ts';
import { isError } from '../../src/model/errors.ts';
import { timings } from '../../src/model/limits.ts';
import { temporaryFolder } from './fixture.ts';

const minimal = `cluster: lab
name: host-1
dataDir: data
storage:
  address: 127.0.0.1:7400
ha:
  address: 127.0.0.1:7401
tls:
  ca: ca.crt
  certificate: host.crt
  key: host.key
`;

function problemsOf(text: string): string[] {
  try {
    parseConfig(text, 'host.yaml');
    return [];
  } catch (error) {
    if (!isError(error, 'bad-request')) throw error;
    return error.message.split('\n');
  }
}

describe('a configuration', () => {
  it('needs little, and gets defaults and absolute paths', () => {
    expect(parseConfig(minimal, '/etc/holdfast/host.yaml')).toEqual({
      file: '/etc/holdfast/host.yaml',
      cluster: 'lab',
      name: 'host-1',
      kind: 'full',
      site: null,
      dataDir: '/etc/holdfast/data',
      runDir: '/etc/holdfast/data/run',
      storage: { address: '127.0.0.1:7400' },
      ha: { address: '127.0.0.1:7401' },
      tls: {
        ca: '/etc/holdfast/ca.crt',
        certificate: '/etc/holdfast/host.crt',
        key: '/etc/holdfast/host.key',
        caKey: null,
      },
      api: { socket: '/etc/holdfast/data/run/api.sock' },
      capacity: {
        cpus: null,
        memoryBytes: null,
        diskBytes: null,
        diskClass: 'large',
        nearFullAtPercent: 85,
        fullAtPercent: 95,
      },
      devices: [],
      hypervisor: { driver: 'qemu', accelerator: 'auto', images: {} },
      timings,
      log: { level: 'info', file: null },
    });
  });

  it('takes sizes, durations, images and the rest', () => {
    const config = parseConfig(
      `${minimal}kind: witness
runDir: /run/holdfast
api: {socket: /run/holdfast/control}
capacity: {cpus: 4, memory: 4GiB, disk: 1048576, nearFullAtPercent: 70}
site: b
hypervisor:
  accelerator: tcg
  images:
    counter: {kernel: ../guest/vmlinuz, initrd: ../guest/initrd, append: console=ttyS0 quiet}
    plain: {kernel: /boot/vmlinuz}
timings: {leaseDuration: 8s, heartbeatInterval: 250ms, powerOffGrace: 1m}
log: {level: debug, file: host.log}
`,
      '/etc/holdfast/host.yaml',
    );
    expect(config).toMatchObject({
      kind: 'witness',
      runDir: '/run/holdfast',
      api: { socket: '/run/holdfast/control' },
      site: 'b',
      capacity: {
        cpus: 4,
        memoryBytes: 4 * 2 ** 30,
        diskBytes: 1048576,
        nearFullAtPercent: 70,
        fullAtPercent: 95,
      },
      timings: {
        ...timings,
        leaseDurationMs: 8000,
        heartbeatIntervalMs: 250,
        powerOffGraceMs: 60_000,
      },
      log: { level: 'debug', file: '/etc/holdfast/host.log' },
    });
    expect(config.hypervisor.images).toEqual({
      counter: {
        kernel: '/etc/guest/vmlinuz',
        initrd: '/etc/guest/initrd',
        append: 'console=ttyS0 quiet',
      },
      plain: { kernel: '/boot/vmlinuz', initrd: null, append: '' },
    });
  });

  it('takes devices beside the store', () => {
    const config = parseConfig(
      `${minimal}capacity: {diskClass: fast}
devices:
  - {path: /mnt/hdd1, class: large}
  - {path: ../nvme, class: fast, capacity: 400GiB, id: d1}
`,
      '/etc/holdfast/host.yaml',
    );
    expect(config.capacity.diskClass).toBe('fast');
    expect(config.devices).toEqual([
      { path: '/mnt/hdd1', class: 'large', capacityBytes: null, id: null },
      { path: '/etc/nvme', class: 'fast', capacityBytes: 400 * 2 ** 30, id: 'd1' },
    ]);
  });

  const replaced = (key: string, line: string) =>
    minimal.replace(new RegExp(`^ *${key}:.*$`, 'm'), line);

  it.each<[string, string, string]>([
    [
      'an unknown key',
      `${minimal}colour: red\n`,
      'host.yaml:12: colour: unknown key; expected a group of keys: cluster, name,',
    ],
    [
      'an unknown key inside',
      minimal.replace('storage:\n', 'storage:\n  adress: x\n'),
      'host.yaml:5: storage.adress: unknown key; expected a group of keys: address',
    ],
    [
      'a missing key',
      minimal.replace('name: host-1\n', ''),
      'host.yaml:1: name: is missing; expected a name of 1 to 63',
    ],
    [
      'a missing key inside',
      minimal.replace('  key: host.key\n', ''),
      'host.yaml:8: tls.key: is missing; expected a path',
    ],
    [
      'a wrong type',
      replaced('address', '  address: 12'),
      'host.yaml:5: storage.address: expected "ADDRESS:PORT", found 12',
    ],
    [
      'an address without a port',
      replaced('address', '  address: localhost'),
      'host.yaml:5: storage.address: expected "ADDRESS:PORT", found "localhost"',
    ],
    [
      'port 0',
      replaced('address', '  address: 127.0.0.1:0'),
      'host.yaml:5: storage.address: expected "ADDRESS:PORT"',
    ],
    [
      'port 70000',
      replaced('address', '  address: 127.0.0.1:70000'),
      'host.yaml:5: storage.address: expected "ADDRESS:PORT"',
    ],
    [
      'the same address twice',
      minimal.replace('7401', '7400'),
      'host.yaml:7: ha.address: expected another address',
    ],
    [
      'a group that is none',
      `${minimal}timings: fast\n`,
      'host.yaml:12: timings: expected a group of keys: heartbeatInterval,',
    ],
    [
      'an impossible name',
      replaced('name', 'name: Host_1'),
      'host.yaml:2: name: expected a name of 1 to 63 lower-case letters',
    ],
    [
      'an impossible choice',
      `${minimal}kind: half\n`,
      'host.yaml:12: kind: expected one of full, witness, found "half"',
    ],
    [
      'a unit that is none',
      `${minimal}capacity:\n  cpus: 2\n  memory: 4GB\n`,
      'host.yaml:14: capacity.memory: expected a size such as 96MiB',
    ],
    [
      'a negative size',
      `${minimal}capacity:\n  memory: -1\n`,
      'host.yaml:13: capacity.memory: expected a size',
    ],
    [
      'half a processor',
      `${minimal}capacity:\n  cpus: 0.5\n`,
      'host.yaml:13: capacity.cpus: expected a number of processors, found 0.5',
    ],
    [
      'a device without a class',
      `${minimal}devices:\n  - {path: /a, class: fast}\n  - {path: /b}\n`,
      'host.yaml:14: devices.1.class: is missing; expected one of fast, large',
    ],
    [
      'a device twice',
      `${minimal}devices:\n  - {path: /a, class: fast}\n  - {path: /a, class: fast}\n`,
      'host.yaml:14: devices.1.path: /a is a device of this host already',
    ],
    [
      'devices of a witness',
      `${minimal}kind: witness\ndevices: [{path: /a, class: fast}]\n`,
      'host.yaml:13: devices: a witness holds no data',
    ],
    [
      'too many processors',
      `${minimal}capacity:\n  cpus: 1000000\n`,
      'host.yaml:13: capacity.cpus: expected at most 512 processors',
    ],
    [
      'a duration without a unit',
      `${minimal}timings:\n  leaseDuration: 4\n`,
      'host.yaml:13: timings.leaseDuration: expected a duration such as 500ms (ms, s, m or h), found 4',
    ],
    [
      'no duration',
      `${minimal}timings:\n  leaseDuration: 0s\n`,
      'host.yaml:13: timings.leaseDuration: expected a duration',
    ],
    [
      'timings that contradict',
      `${minimal}timings:\n  leaseDuration: 1s\n`,
      'host.yaml:12: timings: leaseDuration must exceed safetyMargin',
    ],
    [
      'an image without a kernel',
      `${minimal}hypervisor:\n  images:\n    counter:\n      append: quiet\n`,
      'host.yaml:14: hypervisor.images.counter.kernel: is missing; expected a path',
    ],
    [
      'an image named disk',
      `${minimal}hypervisor: {images: {disk: {kernel: x}}}\n`,
      'host.yaml:12: hypervisor.images.disk: "disk" means booting',
    ],
    [
      'a path that is too long for a socket',
      replaced('dataDir', `dataDir: /${'x'.repeat(100)}`),
      'host.yaml:3: dataDir: the path /xxx',
    ],
    ['a key given twice', `${minimal}name: host-2\n`, 'host.yaml:12: Map keys must be unique'],
    ['a broken file', 'cluster: [lab\n', 'host.yaml:2: Flow sequence'],
    ['an empty file', '', 'host.yaml:1: expected a group of keys: cluster, name'],
    [
      'aliases without bound',
      `a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [${Array(10).fill('*a').join()}]\nc: &c [${Array(10).fill('*b').join()}]\n`,
      'host.yaml:1: Excessive alias count',
    ],
  ])('with %s is refused', (_, text, start) => {
    const problems = problemsOf(text);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(start);
    expect((problems[0] as string).startsWith(start.slice(0, 12))).toBe(true);
  });

  it('is told all its mistakes at once, in the order of their lines', () => {
    const problems = problemsOf(
      minimal.replace('127.0.0.1:7400', 'nowhere').replace('host-1', 'Host-1'),
    );
    expect(problems.map((problem) => problem.slice(0, 12))).toEqual([
      'host.yaml:2:',
      'host.yaml:5:',
    ]);
  });

  it('that is not there is said to be so', async () => {
    await expect(readConfig('/nowhere/host.yaml')).rejects.toMatchObject({
      code: 'bad-request',
      message: expect.stringContaining('/nowhere/host.yaml can not be read'),
    });
  });

  it('is written as it is read', async () => {
    const file = join(await temporaryFolder(), 'config.yaml');
    const settings: ConfigSettings = {
      cluster: 'lab',
      name: 'host-1',
      dataDir: 'data',
      storage: { address: '[::1]:7400' },
      ha: { address: 'host-1.example:7401' },
      tls: { ca: 'ca.crt', certificate: 'host.crt', key: 'host.key', caKey: 'ca.key' },
      hypervisor: { images: { counter: { kernel: 'k', append: 'a: b #c' } } },
      timings: { leaseDuration: '5s' },
    };
    await writeConfig(file, settings);
    const config = await readConfig(file);
    expect(config.hypervisor.images['counter']?.append).toBe('a: b #c');
    expect(config.timings.leaseDurationMs).toBe(5000);
    await expect(writeConfig(file, { ...settings, name: 'No' })).rejects.toMatchObject({
      code: 'bad-request',
    });
    expect(readFileSync(file, 'utf8')).toContain('name: host-1');
  });
});
