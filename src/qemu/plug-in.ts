// Plugs a disk into a running guest: an NBD node, and a device on it in the root port that the guest was
// started with for this disk. What is there already is left as it is, so that whoever does not know how an
// earlier attempt ended can simply try again.

import type { ServedDisk } from '../ports/guests.ts';
import { blockNode, deviceId, diskDevice, slotId } from './command-line.ts';
import { type QmpClient, type QmpObject, textOf } from './qmp.ts';

/** Rejects with `guest-failed` where QEMU refuses it, and then has taken nothing of it. */
export async function plugIn(qmp: QmpClient, disk: ServedDisk): Promise<void> {
  const { name } = disk;
  const nodes = await namesOf(qmp, 'query-named-block-nodes', { flat: true }, 'node-name');
  const isNew = !nodes.includes(name);
  if (isNew) await qmp.execute('blockdev-add', blockNode(disk));
  const devices = await namesOf(qmp, 'qom-list', { path: '/machine/peripheral' }, 'name');
  if (devices.includes(deviceId(name))) return;
  try {
    await qmp.execute('device_add', { ...diskDevice(name), bus: slotId(name) });
  } catch (error) {
    await qmp.execute('blockdev-del', { 'node-name': name }).catch(() => undefined);
    throw error;
  }
}

/** What stands under this key in each element of a list that QEMU answers with. */
async function namesOf(
  qmp: QmpClient,
  command: string,
  args: QmpObject,
  key: string,
): Promise<string[]> {
  const list = (await qmp.execute(command, args)) as readonly QmpObject[];
  return list.map((one) => textOf(one[key], ''));
}
