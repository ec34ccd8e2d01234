// What goes over the API's socket, in one place: requests are checked against these schemas before
// the manager sees them, and the CLI's types of replies come from them. A request with a key that is
// not here is refused, never silently stripped: a mistyped `protcted: false` must not become a
// protected VM. Each `description` is what an error says was expected.

import { type Static, type TObject, type TProperties, Type } from 'typebox';
import { deviceClasses } from '../model/device.ts';
import { limits } from '../model/limits.ts';
import { diskFormats } from '../model/path-disk.ts';

/** The replies as a reader may use them. */
export type DeepReadonly<T> = T extends readonly (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

export const closed = <Properties extends TProperties>(
  properties: Properties,
): TObject<Properties> => Type.Object(properties, { additionalProperties: false });

const nullable = <Schema extends Parameters<typeof Type.Union>[0][number]>(schema: Schema) =>
  Type.Union([schema, Type.Null()]);

// --- requests ------------------------------------------------------------------------------------

/** A DNS label: VM names end up in host names, file names and sockets. */
export const namePattern = '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$';

export const Name = Type.String({
  pattern: namePattern,
  description: `a name of 1 to ${limits.maxNameLength} lower-case letters, digits and inner hyphens`,
});

export const DeviceClass = Type.Enum([...deviceClasses], {
  description: deviceClasses.join(' or '),
});

export const Policy = Type.Union(
  [
    Type.String({ minLength: 1 }),
    closed({
      failuresToTolerate: Type.Integer({ minimum: 0, maximum: limits.maxFailuresToTolerate }),
      stripes: Type.Integer({ minimum: 1, maximum: limits.maxStripes }),
      thick: Type.Optional(Type.Boolean()),
      deviceClass: Type.Optional(DeviceClass),
    }),
  ],
  {
    description:
      `the name of a storage policy, or failuresToTolerate (0 to ${limits.maxFailuresToTolerate}) ` +
      `and stripes (1 to ${limits.maxStripes})`,
  },
);

export const Cpus = Type.Integer({
  minimum: 1,
  maximum: limits.maxCpus,
  description: `a whole number from 1 to ${limits.maxCpus}`,
});

const Priority = Type.Enum(['highest', 'high', 'medium', 'low', 'lowest'], {
  description: 'highest, high, medium, low or lowest',
});

const VmName = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$',
  maxLength: limits.maxNameLength,
  description: 'the name of a VM',
});

/** What HA keeps to; see `HaRules`. */
export const haRules = {
  priority: Type.Optional(Priority),
  after: Type.Optional(
    Type.Array(VmName, {
      maxItems: limits.maxDependencies,
      description: `a list of at most ${limits.maxDependencies} VMs that run before it is restarted`,
    }),
  ),
  readyWhen: Type.Optional(
    Type.Enum(['started', 'heard'], { description: 'started, or heard: its guest has reported' }),
  ),
  separate: Type.Optional(
    Type.String({
      ...{ minLength: 1, maxLength: limits.maxNameLength },
      description: 'a word: VMs with the same one go to different hosts where that can be',
    }),
  ),
  affinity: Type.Optional(
    closed({
      hosts: Type.Array(Type.String({ minLength: 1 }), {
        minItems: 1,
        description: 'a list of hosts on which it is started if it can be',
      }),
      required: Type.Optional(Type.Boolean({ description: 'true, if on no other host, or false' })),
    }),
  ),
  isolationResponse: Type.Optional(
    Type.Enum(['pause', 'kill'], {
      description: 'pause, or kill: what becomes of the guest when its lease lapses',
    }),
  ),
  whenHung: Type.Optional(
    Type.Enum(['restart', 'leave'], {
      description: 'restart, or leave: what becomes of a guest that hangs',
    }),
  ),
};

export const Boot = Type.String({
  minLength: 1,
  maxLength: limits.maxNameLength,
  description: '`disk`, or the name of a boot image of the hosts',
});

export const Protected = Type.Boolean({ description: 'true or false' });

export const HostNames = Type.Array(Type.String({ minLength: 1 }), {
  minItems: 1,
  maxItems: 2 * limits.maxFailuresToTolerate + 1,
  description: 'a list of hosts, those with the data first, then those that only vote',
});

export const ObjectHosts = Type.Record(Type.String(), HostNames, {
  description: 'a list of hosts for each object named: `namespace`, `disk0` and so on',
});

const DiskBytes = Type.Integer({
  minimum: limits.minDiskBytes,
  maximum: limits.maxDiskBytes,
  multipleOf: limits.blockBytes,
  description: `a whole number of bytes, a multiple of ${limits.blockBytes}, from ${limits.minDiskBytes} (1 MiB) to ${limits.maxDiskBytes} (62 TiB)`,
});

export const DiskPath = Type.String({
  minLength: 1,
  maxLength: limits.maxPathLength,
  description: `an absolute path of at most ${limits.maxPathLength} characters`,
});

export const Format = Type.Enum([...diskFormats], { description: diskFormats.join(' or ') });

export const VmRequestSchema = closed({
  name: Name,
  cpus: Type.Optional(Cpus),
  memoryBytes: Type.Integer({
    minimum: limits.minMemoryBytes,
    maximum: limits.maxMemoryBytes,
    description: `a whole number of bytes from ${limits.minMemoryBytes} (16 MiB) to ${limits.maxMemoryBytes} (16 TiB)`,
  }),
  disks: Type.Array(
    closed({
      sizeBytes: Type.Optional(DiskBytes),
      policy: Type.Optional(Policy),
      required: Type.Optional(Protected),
      path: Type.Optional(DiskPath),
      format: Type.Optional(Format),
    }),
    {
      minItems: 1,
      maxItems: limits.maxDisks,
      description: `a list of 1 to ${limits.maxDisks} disks`,
    },
  ),
  policy: Type.Optional(Policy),
  boot: Type.Optional(Boot),
  protected: Type.Optional(Protected),
  ...haRules,
  hosts: Type.Optional(HostNames),
  objectHosts: Type.Optional(ObjectHosts),
});

export const StartRequestSchema = closed({
  on: Type.Optional(Type.String({ minLength: 1, description: 'the name of a host' })),
});

export const StopRequestSchema = closed({ force: Type.Optional(Protected) });

export const RequiredRequestSchema = closed({
  disk: Type.String({ minLength: 1, description: 'the name of a disk, such as disk1' }),
  required: Protected,
});

export const NothingSchema = closed({});

export const VmParamsSchema = closed({
  vm: Type.String({ minLength: 1, maxLength: 128, description: 'the name or the id of a VM' }),
});

// --- replies -------------------------------------------------------------------------------------
// The server's routes declare them, so the compiler keeps them and the manager's types together.

const StoragePolicy = closed({
  failuresToTolerate: Type.Integer(),
  stripes: Type.Integer(),
  thick: Type.Optional(Type.Boolean()),
  deviceClass: Type.Optional(DeviceClass),
});

const ProtectionStatus = Type.Union([
  closed({ status: Type.Literal('pending'), reason: Type.String() }),
  closed({ status: Type.Literal('protected') }),
  closed({ status: Type.Literal('unprotected'), reason: Type.String() }),
]);

const Accessibility = Type.Union([
  closed({ accessible: Type.Literal(true) }),
  closed({
    accessible: Type.Literal(false),
    object: nullable(Type.String()),
    hosts: Type.Array(Type.String()),
    text: Type.String(),
  }),
]);

const VmSpecSchema = closed({
  name: Type.String(),
  cpus: Type.Integer(),
  memoryBytes: Type.Integer(),
  boot: Type.String(),
  disks: Type.Array(
    Type.Union([
      closed({
        name: Type.String(),
        sizeBytes: Type.Integer(),
        policy: StoragePolicy,
        required: Type.Optional(Type.Boolean()),
      }),
      closed({ name: Type.String(), path: Type.String(), format: Format }),
    ]),
  ),
  protected: Type.Boolean(),
  ...haRules,
  priority: Priority,
});

const vmInfo = {
  id: Type.String(),
  name: Type.String(),
  power: Type.Enum(['off', 'starting', 'running', 'paused', 'stopping', 'unknown']),
  host: nullable(Type.String()),
  ready: Type.Boolean(),
  protection: ProtectionStatus,
  accessible: Type.Boolean(),
  spec: VmSpecSchema,
  epoch: Type.Integer(),
  note: nullable(Type.String()),
  detached: Type.Array(Type.String()),
};

const ProofOfDeath = closed({
  finding: Type.Enum([
    ...['guestEnded', 'guestHung', 'cutOff', 'partitioned', 'daemonEnded', 'hostSilent', 'unknown'],
  ]),
  host: nullable(Type.String()),
  epoch: Type.Integer(),
  evidence: Type.Array(Type.String()),
  master: Type.String(),
  term: Type.Integer(),
  at: Type.Number(),
});

const componentView = closed({
  component: Type.String(),
  host: Type.String(),
  mirror: Type.Integer(),
  stripe: Type.Integer(),
  state: Type.Enum(['active', 'absent', 'stale', 'resyncing', 'degraded']),
  device: nullable(Type.String()),
});

export const objectView = {
  object: Type.String(),
  vm: Type.String(),
  kind: Type.Enum(['namespace', 'disk']),
  name: Type.String(),
  sizeBytes: Type.Integer(),
  policy: StoragePolicy,
  accessible: Accessibility,
  components: Type.Array(componentView),
  next: Type.Array(componentView),
  voters: Type.Array(Type.String()),
  votes: Type.Array(
    closed({
      host: Type.String(),
      role: Type.Enum(['data', 'witness']),
      state: Type.Enum(['reachable', 'absent', 'degraded']),
    }),
  ),
  inSync: Type.Array(Type.String()),
  resync: nullable(
    closed({
      bytesDone: Type.Integer(),
      bytesLeft: Type.Integer(),
      bytesPerSecond: Type.Integer(),
      secondsLeft: nullable(Type.Integer()),
    }),
  ),
  problems: Type.Array(Type.String()),
};

export const VmInfoSchema = closed(vmInfo);
export const VmDetailSchema = closed({
  ...vmInfo,
  restart: nullable(ProofOfDeath),
  objects: Type.Array(closed(objectView)),
});

const Fill = Type.Enum(['ok', 'nearFull', 'full']);

export const HostInfoSchema = closed({
  name: Type.String(),
  state: Type.Enum([
    'unknown',
    'initializationError',
    'election',
    'master',
    'connectedToMaster',
    'networkPartitionedFromMaster',
    'networkIsolated',
    'hostDown',
  ]),
  storage: Type.Enum(['reachable', 'unreachable', 'failed']),
  problem: nullable(Type.String()),
  site: nullable(Type.String()),
  vms: Type.Integer(),
  cpus: Type.Integer(),
  memoryBytes: Type.Number(),
  diskTotalBytes: Type.Number(),
  diskFreeBytes: Type.Number(),
  diskFill: Fill,
  devices: Type.Array(
    closed({
      store: nullable(Type.String()),
      name: Type.String(),
      class: DeviceClass,
      problem: nullable(Type.String()),
      totalBytes: Type.Number(),
      freeBytes: Type.Number(),
      fill: Fill,
      latencyMs: nullable(Type.Number()),
      components: Type.Integer(),
    }),
  ),
});

export const ClusterStatusSchema = closed({
  cluster: Type.String(),
  answeredBy: Type.String(),
  master: nullable(Type.String()),
  accelerator: Type.String(),
  hosts: Type.Array(HostInfoSchema),
  vms: closed({ total: Type.Integer(), running: Type.Integer(), protected: Type.Integer() }),
  waiting: Type.Array(
    closed({
      vm: Type.String(),
      name: Type.String(),
      reason: Type.Enum(['storage', 'capacity', 'lock', 'dependency', 'retry']),
      text: Type.String(),
    }),
  ),
});

const time = nullable(Type.Number());
export const VmRecoverySchema = closed({
  vm: Type.String(),
  name: Type.String(),
  from: nullable(Type.String()),
  to: nullable(Type.String()),
  recovery: closed({
    failedAtMs: Type.Number(),
    detectedAtMs: time,
    lockFreeAtMs: time,
    accessibleAtMs: time,
    placedAtMs: time,
    startedAtMs: time,
    guestReadyAtMs: time,
  }),
});

export const ClusterEventSchema = closed({
  at: Type.Number(),
  host: Type.String(),
  type: Type.String(),
  vm: Type.Optional(Type.String()),
  vmName: Type.Optional(Type.String()),
  text: Type.String(),
});

const TokenSchema = closed({ token: Type.String() });

export const ErrorSchema = closed({
  code: Type.String(),
  message: Type.String(),
  todo: Type.String(),
});

export type VmRequestBody = DeepReadonly<Static<typeof VmRequestSchema>>;
export type VmReply = DeepReadonly<Static<typeof VmInfoSchema>>;
export type VmDetailReply = DeepReadonly<Static<typeof VmDetailSchema>>;
export type HostReply = DeepReadonly<Static<typeof HostInfoSchema>>;
export type ClusterReply = DeepReadonly<Static<typeof ClusterStatusSchema>>;
export type RecoveryReply = DeepReadonly<Static<typeof VmRecoverySchema>>;
export type EventReply = DeepReadonly<Static<typeof ClusterEventSchema>>;
export type TokenReply = DeepReadonly<Static<typeof TokenSchema>>;
export type ErrorReply = DeepReadonly<Static<typeof ErrorSchema>>;
