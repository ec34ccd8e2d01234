// The scrub: all components of a host are compared with their checksums once per interval, so that what
// rots is found while another copy can still replace it. It goes slowly, in small pieces at equal
// distances, and steps aside for requests.

import type { ComponentId } from '../../model/ids.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Component } from './component.ts';

const pieceBytes = 1024 * 1024;
/** A piece that meets requests comes later by so much, and so often at most. */
const asidePauseMs = 50;
const asideMost = 20;
/** Where there is nothing yet, it is looked again after this part of an interval. */
const emptyPart = 100;

export interface Scrub {
  stop(): void;
}

export function createScrub(options: {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly list: () => Promise<readonly ComponentId[]>;
  readonly use: (
    id: ComponentId,
  ) => Promise<{ readonly component: Component; release(): Promise<void> }>;
  readonly isBusy: () => boolean;
  readonly onBad: (component: Component, offset: number) => void;
  readonly log: Log;
}): Scrub {
  const { clock, intervalMs, log } = options;
  let timer: Timer | null = null;
  let stopped = false;

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      timer = clock.after(ms, resolve);
    });
  }

  async function stepAside(): Promise<void> {
    for (let tries = 0; tries < asideMost && !stopped && options.isBusy(); tries += 1) {
      await pause(asidePauseMs);
    }
  }

  async function scrubOne(id: ComponentId, shareMs: number): Promise<void> {
    const { component, release } = await options.use(id);
    const { sizeBytes } = component.meta;
    try {
      const pieces = Math.max(1, Math.ceil(sizeBytes / pieceBytes));
      for (let piece = 0; piece < pieces && !stopped; piece += 1) {
        await pause(shareMs / pieces);
        await stepAside();
        if (stopped) return;
        const offset = piece * pieceBytes;
        const bad = await component.verify(offset, Math.min(pieceBytes, sizeBytes - offset));
        for (const one of bad) options.onBad(component, one);
      }
    } finally {
      if (!stopped) await release();
    }
  }

  async function pass(): Promise<void> {
    const ids = await options.list();
    if (ids.length === 0) return pause(intervalMs / emptyPart);
    for (const id of ids) {
      if (stopped) return;
      await scrubOne(id, intervalMs / ids.length).catch(async (error: unknown) => {
        // Removed meanwhile, or its device is in trouble: of that others tell.
        log.debug(`component ${id} could not be scrubbed: ${String(error)}`);
        await pause(intervalMs / ids.length);
      });
    }
  }

  async function run(): Promise<void> {
    await pause(intervalMs / emptyPart);
    while (!stopped) {
      await pass().catch(async (error: unknown) => {
        log.debug(`the components could not be listed: ${String(error)}`);
        await pause(intervalMs / emptyPart);
      });
    }
  }

  void run();
  return {
    stop() {
      stopped = true;
      timer?.cancel();
    },
  };
}
