// Storage that all hosts see, as the simulator has it: it takes whatever comes, and tells what came too late.

import { expect, test } from 'vitest';
import { epoch } from '../../model/ids.ts';
import { inOwnTurn, settlePromises } from '../../platform/promises.ts';
import { blockBytes } from './disk-truth.ts';
import { MachineClock, Process } from './process.ts';
import { SeededRandom } from './random.ts';
import { SharedDisk } from './shared-disk.ts';
import { VirtualTime } from './time.ts';

test('what a guest sent lands after it was stopped, and is told if a newer one has been there', () =>
  inOwnTurn(() => {
    const time = new VirtualTime(settlePromises());
    const told: string[] = [];
    const disk = new SharedDisk(time, new SeededRandom(1), (text) => told.push(text));
    const guest = () => new Process(time, new MachineClock(time, 0));
    const [oldGuest, newGuest] = [guest(), guest()];
    const [before, after] = [disk.open(epoch(1), oldGuest), disk.open(epoch(2), newGuest)];
    const answers: string[] = [];
    let seen = 0;
    const look = () => after.read(blockBytes, blockBytes, (data) => (seen = data[0] ?? 0));

    before.write(blockBytes, new Uint8Array(blockBytes).fill(1), false, () => answers.push('old'));
    oldGuest.freeze();
    time.advance(10);
    look();
    time.advance(10);
    expect({ seen, told, answers }).toEqual({ seen: 1, told: [], answers: [] });

    before.write(blockBytes, new Uint8Array(blockBytes).fill(2), false, () => answers.push('late'));
    time.advance(10);
    look();
    time.advance(10);
    expect(seen).toBe(2);
    expect(told).toEqual(['a write of epoch 1 came after the guest of epoch 2']);
    oldGuest.thaw();
    time.advance(10);
    expect(answers).toEqual(['old', 'late']);
  }));
