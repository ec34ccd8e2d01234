import { expect, test } from 'vitest';
import type { QmpClient } from '../../src/qemu/qmp.ts';
import { ReportPorts } from '../../src/qemu/report-ports.ts';

const qemuWith = (open: readonly string[]) =>
  ({
    execute: async () =>
      ['qmp', 'serial', 'heartbeat', 'agent'].map((label) => ({
        label,
        'frontend-open': label === 'qmp' || open.includes(label),
      })),
  }) as unknown as QmpClient;

test('a guest is mute when it has neither port open, by what is asked and by what is told', async () => {
  const ports = new ReportPorts();
  expect(ports.isMute).toBe(true);
  await ports.look(qemuWith(['agent']));
  expect(ports.isMute).toBe(false);
  ports.changed({ id: 'port-heartbeat', open: true });
  ports.changed({ id: 'port-agent', open: false });
  expect(ports.isMute).toBe(false);
  ports.changed({ id: 'port-heartbeat', open: false });
  expect(ports.isMute).toBe(true);
  ports.changed({ id: 'somebody-elses', open: true });
  expect(ports.isMute).toBe(true);
  await ports.look(qemuWith(['heartbeat']));
  expect(ports.isMute).toBe(false);
  await ports.look(qemuWith([]));
  expect(ports.isMute).toBe(true);
});
