// The rooms of the source and who may import whom: the table of docs/architecture.md as a check.
//
// What decides is inside and pure; what touches the machine is outside. The inside rooms may
// therefore import neither Node nor a package, which is what lets a simulator run them unchanged.
// Where a room shows the others only one file, that file is named here. Tests may import anything.

import { machineTests } from './scripts/test-groups.mjs';

const inside = ['model', 'ports', 'peer', 'storage', 'hypervisor', 'ha', 'manager', 'host'];

/** Room -> the rooms, or single files of rooms, that it may import besides itself. */
const mayImport = {
  model: [],
  ports: ['model'],
  peer: ['model', 'ports'],
  storage: ['model', 'ports', 'peer'],
  hypervisor: ['model', 'ports'],
  ha: ['model', 'ports', 'peer', 'storage/api.ts', 'hypervisor'],
  manager: ['model', 'ports', 'peer', 'storage/api.ts', 'hypervisor', 'ha'],
  host: ['model', 'ports', 'peer', 'storage', 'hypervisor', 'ha', 'manager'],
  platform: ['model', 'ports'],
  qemu: ['model', 'ports', 'hypervisor', 'platform/flock'],
  'process-guest': ['model', 'ports', 'qemu'],
  ceph: ['model', 'ports', 'storage/api.ts'],
  api: ['model', 'ports', 'peer', 'storage/api.ts', 'hypervisor', 'ha', 'manager'],
  daemon: [...inside, 'platform', 'qemu', 'process-guest', 'ceph', 'api'],
  scenario: ['model'],
  // What reads files is not for it.
  simulator: [
    ...inside,
    'scenario/befallen.ts',
    'scenario/run-counts.ts',
    'scenario/scenario.ts',
    'scenario/step-text.ts',
    'scenario/told-events.ts',
    'scenario/verdicts.ts',
  ],
  lab: ['model', 'api/client', 'api/schemas', 'scenario'],
  cli: [
    'model',
    'api/client',
    'api/schemas',
    'api/storage-schemas',
    'api/problems',
    'daemon',
    'platform/pki',
    'platform/promises',
    'scenario',
    'lab',
    'simulator',
  ],
};

/** `ha` is a whole room, `storage/api.ts` one file, `api/client` all files that begin so. */
const pattern = (target) =>
  target.includes('/') ? `^src/${target.replaceAll('.', '\\.')}` : `^src/${target}/`;

const test = '\\.test\\.ts$';
const knownRooms = `^src/(${Object.keys(mayImport).join('|')})/`;
const pureRooms = `^src/(${[...inside, 'simulator'].join('|')})/`;

const roomRules = Object.entries(mayImport).map(([room, targets]) => ({
  name: `room-${room}`,
  comment: `src/${room} may import only: ${targets.join(', ') || 'nothing'}`,
  severity: 'error',
  from: { path: `^src/${room}/`, pathNot: test },
  to: { path: '^src/', pathNot: [`^src/${room}/`, ...targets.map(pattern)] },
}));

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    ...roomRules,
    {
      name: 'unknown-room',
      comment: 'A new folder of src/ needs its row in the table of rooms, and here.',
      severity: 'error',
      from: {},
      to: { path: '^src/', pathNot: knownRooms },
    },
    {
      name: 'unknown-room-imports',
      comment: 'A new folder of src/ needs its row in the table of rooms, and here.',
      severity: 'error',
      from: { path: '^src/', pathNot: knownRooms },
      to: {},
    },
    {
      name: 'inside-is-pure',
      comment: 'The inside rooms import neither Node nor packages: use a port.',
      severity: 'error',
      from: { path: pureRooms, pathNot: test },
      to: { pathNot: '^src/' },
    },
    {
      name: 'no-circular',
      comment: 'Circular imports, those of types too, mean that two files are really one.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-test-in-product',
      comment: 'Tests and what they share are not part of the product.',
      severity: 'error',
      from: { path: '^src/', pathNot: test },
      to: { path: ['^test/', test] },
    },
    {
      name: 'no-development-package-in-product',
      comment: 'A package that the product imports belongs into `dependencies`.',
      severity: 'error',
      from: { path: '^src/', pathNot: test },
      to: {
        dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'],
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'virtual-time-is-virtual',
      comment: 'A unit test that meets the real machine lies in a room of scripts/test-groups.mjs.',
      severity: 'error',
      from: { path: test, pathNot: [...machineTests, 'test/e2e/'].map((room) => `^${room}`) },
      to: {
        path: [
          '^(node:)?(net|tls|dgram|https?|child_process|worker_threads|perf_hooks|timers)(/|$)',
          '^src/(qemu|api|daemon)/',
          '^src/platform/(?!promises)',
        ],
      },
    },
    {
      name: 'resolvable',
      comment: 'An import of something that does not exist.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['node', 'import'] },
  },
};
