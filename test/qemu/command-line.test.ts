// QEMU's command line, read as a whole: what matters for safety stands in it.

import { expect, test } from 'vitest';
import { epoch, vmId } from '../../src/model/ids.ts';
import type { GuestLaunch } from '../../src/ports/guests.ts';
import { commandLine, qmpChardev, uuidOf } from '../../src/qemu/command-line.ts';
import { runFiles, socketPathProblem } from '../../src/qemu/run-files.ts';

const launch: GuestLaunch = {
  vm: vmId('0123456789abcdef0123456789abcdef'),
  name: 'web-1',
  epoch: epoch(3),
  cpus: 2,
  memoryBytes: 96 * 2 ** 20 + 1,
  boot: 'counter',
  disks: [
    { name: 'disk0', socket: '/run/holdfast/nbd/a.sock' },
    { name: 'disk2', socket: '/run/holdfast/nbd/b,c.sock' },
  ],
  absentDisks: [],
  deadlineMs: 1000,
};
const files = runFiles('/run/holdfast/guests', launch.vm);

/** The values of an option, in order. */
function values(argv: readonly string[], option: string): string[] {
  return argv.filter((_, index) => argv[index - 1] === option);
}

test('a root port for each disk that may be plugged in later, and none for others', () => {
  const ports = (absentDisks: string[]) =>
    values(commandLine({ ...launch, absentDisks }, files, 'tcg', null), '-device').filter((one) =>
      one.startsWith('pcie-root-port'),
    );
  expect(ports([])).toEqual([]);
  expect(ports(['disk1', 'disk3'])).toEqual([
    'pcie-root-port,id=slot-disk1,chassis=1,slot=1',
    'pcie-root-port,id=slot-disk3,chassis=2,slot=2',
  ]);
});

test('a guest with a boot image', () => {
  const image = { kernel: '/boot/k', initrd: '/boot/i', append: 'quiet a=b' };
  const argv = commandLine(launch, files, 'tcg', image);
  expect(argv.join('\n')).toMatchInlineSnapshot(`
    "-name
    guest=web-1,process=holdfast:web-1,debug-threads=on
    -uuid
    01234567-89ab-cdef-0123-456789abcdef
    -M
    q35
    -accel
    tcg,thread=multi,tb-size=32
    -cpu
    max
    -smp
    2
    -m
    97M
    -nodefaults
    -no-user-config
    -display
    none
    -rtc
    base=utc
    -sandbox
    on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
    -msg
    timestamp=on
    -chardev
    socket,id=qmp,path=/run/holdfast/guests/0123456789abcdef0123456789abcdef/qmp.sock,server=on,wait=off
    -mon
    chardev=qmp,mode=control
    -chardev
    file,id=serial,path=/run/holdfast/guests/0123456789abcdef0123456789abcdef/serial.log,append=on
    -serial
    chardev:serial
    -device
    virtio-serial-pci
    -chardev
    socket,id=heartbeat,path=/run/holdfast/guests/0123456789abcdef0123456789abcdef/heartbeat.sock,server=on,wait=off
    -device
    virtserialport,id=port-heartbeat,chardev=heartbeat,name=org.holdfast.heartbeat
    -chardev
    socket,id=agent,path=/run/holdfast/guests/0123456789abcdef0123456789abcdef/agent.sock,server=on,wait=off
    -device
    virtserialport,id=port-agent,chardev=agent,name=org.qemu.guest_agent.0
    -device
    virtio-rng-pci
    -device
    pvpanic-pci
    -action
    panic=pause
    -blockdev
    {"driver":"nbd","node-name":"disk0","server":{"type":"unix","path":"/run/holdfast/nbd/a.sock"},"reconnect-delay":31536000,"discard":"unmap"}
    -device
    virtio-blk-pci,id=virtio-disk0,drive=disk0,serial=disk0,write-cache=on,discard=on,write-zeroes=on,rerror=stop,werror=stop
    -blockdev
    {"driver":"nbd","node-name":"disk2","server":{"type":"unix","path":"/run/holdfast/nbd/b,c.sock"},"reconnect-delay":31536000,"discard":"unmap"}
    -device
    virtio-blk-pci,id=virtio-disk2,drive=disk2,serial=disk2,write-cache=on,discard=on,write-zeroes=on,rerror=stop,werror=stop
    -kernel
    /boot/k
    -initrd
    /boot/i
    -append
    quiet a=b"
  `);
});

test('without a boot image the firmware boots from the first disk', () => {
  const argv = commandLine(launch, files, 'kvm', null);
  expect(values(argv, '-kernel')).toEqual([]);
  expect(values(argv, '-accel')).toEqual(['kvm']);
  expect(values(argv, '-cpu')).toEqual(['host']);
  const disks = values(argv, '-device').filter((device) => device.startsWith('virtio-blk-pci'));
  expect(disks.map((device) => /bootindex=(\d+)/.exec(device)?.[1])).toEqual(['0', '1']);
});

test('each disk waits for its server instead of failing', () => {
  const disks = values(commandLine(launch, files, 'tcg', null), '-blockdev');
  expect(disks.map((disk) => JSON.parse(disk))).toMatchObject([
    { driver: 'nbd', server: { path: '/run/holdfast/nbd/a.sock' }, 'reconnect-delay': 31_536_000 },
    { driver: 'nbd', server: { path: '/run/holdfast/nbd/b,c.sock' } },
  ]);
});

test('a disk on a path, whatever its name, as a file or as a device', () => {
  const odd = `/mnt/a b,c"d'\\=e.qcow2`;
  const disks = [
    { name: 'disk0', path: odd, format: 'qcow2' as const },
    { name: 'disk1', socket: '/run/holdfast/nbd/a.sock' },
    { name: 'disk2', path: '/dev/vg/web', format: 'raw' as const },
  ];
  const kinds = new Map([['/dev/vg/web', 'device' as const]]);
  const argv = commandLine({ ...launch, disks }, files, 'tcg', null, kinds);
  const past = { cache: { direct: true }, discard: 'unmap' };
  expect(values(argv, '-blockdev').map((node) => JSON.parse(node))).toEqual([
    {
      ...{ driver: 'qcow2', 'node-name': 'disk0', ...past },
      file: { driver: 'file', filename: odd, locking: 'off', aio: 'threads', ...past },
    },
    expect.objectContaining({ driver: 'nbd', 'node-name': 'disk1' }),
    {
      ...{ driver: 'raw', 'node-name': 'disk2', ...past },
      file: {
        driver: 'host_device',
        filename: '/dev/vg/web',
        locking: 'off',
        aio: 'threads',
        ...past,
      },
    },
  ]);
});

test('commas in paths stay in their value', () => {
  const odd = runFiles('/run/a,b', launch.vm);
  expect(qmpChardev(odd)).toContain('path=/run/a,,b/');
});

test('an id of 128 bits is a UUID, others are not', () => {
  expect(uuidOf('0123456789ABCDEF0123456789abcdef')).toBe('01234567-89ab-cdef-0123-456789abcdef');
  expect(uuidOf('vm-1')).toBeNull();
  expect(values(commandLine({ ...launch, vm: vmId('vm-1') }, files, 'tcg', null), '-uuid')).toEqual(
    [],
  );
});

test('a socket path may have 107 bytes', () => {
  expect(socketPathProblem(`/${'x'.repeat(106)}`)).toBeNull();
  expect(socketPathProblem(`/${'x'.repeat(107)}`)).toMatch(/108 bytes, and at most 107/);
  expect(socketPathProblem(`/${'é'.repeat(54)}`)).toMatch(/109 bytes/);
});
