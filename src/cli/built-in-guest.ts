// The guest that comes with Holdfast (`guest/`, built by `make build` into `build/guest`): it counts
// on its disk, so that a VM without an operating system has something to run and something to lose.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { OptionalSettings } from '../daemon/cluster-init.ts';

export const builtInGuest = 'counter';

const folder = fileURLToPath(new URL('../../build/guest/', import.meta.url));

const kernelLine =
  'console=ttyS0 quiet panic=-1 nokaslr no_timer_check mitigations=off nopti ' +
  'random.trust_cpu=on audit=0';

/** Settings of a new host that make the guest known to it; none where it has not been built. */
export function builtInGuestSettings(): OptionalSettings {
  const kernel = join(folder, 'vmlinuz');
  const initrd = join(folder, 'initrd');
  if (!existsSync(kernel) || !existsSync(initrd)) return {};
  return { hypervisor: { images: { [builtInGuest]: { kernel, initrd, append: kernelLine } } } };
}
