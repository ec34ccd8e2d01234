// Mounting is root's alone, and not every kernel has loop devices.

import { existsSync } from 'node:fs';

export const canMount = process.getuid?.() === 0 && existsSync('/dev/loop-control');
