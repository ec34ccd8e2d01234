// What is answered about a VM, and what is told afterwards, agree.

import { expect, it } from 'vitest';
import { ballot, namespace, vm } from '../../test/support/records.ts';
import { hostId } from '../model/ids.ts';
import { createAccessibleVms } from './directory/accessible-vms.ts';
import { createDirectory } from './directory/directory.ts';
import type { Heartbeats } from './lease/heartbeat.ts';
import { createViews } from './views.ts';

it('who hears that a VM is not accessible is told when it is again, however short that was', () => {
  let isUp = true;
  const directory = createDirectory();
  const reachable = () => isUp;
  const accessibleVms = createAccessibleVms(directory, reachable);
  const views = createViews({
    self: hostId('h1'),
    directory,
    reachable,
    accessibleVms,
    heartbeats: {} as Heartbeats, // asked about hosts only
    members: () => [],
    usage: () => {
      throw new Error('nobody asks for it');
    },
    resyncOf: () => null,
  });
  directory.update({ record: namespace(1, { disks: [] }), ballot: ballot(1) });
  expect(accessibleVms.takeNews()).toEqual([vm]);

  isUp = false;
  expect(views.accessibility([vm]).get(vm)?.accessible).toBe(false);
  isUp = true;
  accessibleVms.look();
  expect(accessibleVms.takeNews()).toEqual([vm]);
});
