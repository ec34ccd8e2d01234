// What goes over the API's socket about storage: policies, and the objects as they are.

import { type Static, Type } from 'typebox';
import { limits } from '../model/limits.ts';
import { closed, type DeepReadonly, DeviceClass, Name, objectView } from './schemas.ts';

// --- requests ------------------------------------------------------------------------------------

export const PolicyRequestSchema = closed({
  name: Name,
  failuresToTolerate: Type.Integer({
    minimum: 0,
    maximum: limits.maxFailuresToTolerate,
    description: `a whole number from 0 to ${limits.maxFailuresToTolerate}`,
  }),
  stripes: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: limits.maxStripes,
      description: `a whole number from 1 to ${limits.maxStripes}`,
    }),
  ),
  thick: Type.Optional(Type.Boolean({ description: 'true or false' })),
  deviceClass: Type.Optional(DeviceClass),
});

export const PolicyParamsSchema = closed({
  policy: Type.String({ minLength: 1, maxLength: 128, description: 'the name of a policy' }),
});
export const HostParamsSchema = closed({
  host: Type.String({ minLength: 1, maxLength: 128, description: 'the name of a host' }),
});

export const ObjectParamsSchema = closed({
  object: Type.String({ minLength: 1, maxLength: 192, description: 'an object id, or VM/DISK' }),
});

export const ObjectQuerySchema = closed({
  vm: Type.Optional(
    Type.String({ minLength: 1, maxLength: 128, description: 'the name or the id of a VM' }),
  ),
  problems: Type.Optional(Type.Enum(['true', 'false'], { description: 'true or false' })),
});

const service = Type.String({ minLength: 1, description: 'the name of a service' });
const key = Type.String({ minLength: 1, description: 'the name of a key' });
const conditions = {
  value: Type.Unknown(),
  expected: Type.Optional(Type.Unknown()),
  revision: Type.Optional(
    Type.Integer({ minimum: 0, description: 'the revision of a namespace record' }),
  ),
};

export const MetadataChangesSchema = closed({
  changes: Type.Array(
    closed({
      vm: Type.String({ minLength: 1, maxLength: 128, description: 'the name or the id of a VM' }),
      service,
      key,
      ...conditions,
    }),
    {
      minItems: 1,
      maxItems: limits.maxMetadataChanges,
      description: `a list of 1 to ${limits.maxMetadataChanges} changes`,
    },
  ),
});

export const MetadataQuerySchema = closed({
  service,
  key,
  /** Names with commas between them; without it all VMs that are accessible. */
  vms: Type.Optional(Type.String({ minLength: 1, description: 'names of VMs' })),
});

// --- replies -------------------------------------------------------------------------------------

const PolicyInfoSchema = closed({
  name: Type.String(),
  failuresToTolerate: Type.Integer(),
  stripes: Type.Integer(),
  thick: Type.Boolean(),
  deviceClass: Type.Union([DeviceClass, Type.Null()]),
  hostsNeeded: Type.Integer(),
  isBuiltIn: Type.Boolean(),
  isDefault: Type.Boolean(),
});

const ObjectInfoSchema = closed({
  ...objectView,
  vmName: Type.String(),
  label: Type.String(),
});

const MetadataReplySchema = closed({
  values: Type.Array(
    closed({
      vm: Type.String(),
      name: Type.String(),
      value: Type.Unknown(),
      revision: Type.Integer(),
    }),
  ),
  without: Type.Array(Type.String()),
  inaccessible: Type.Array(Type.String()),
  objectReads: Type.Integer(),
});

const MetadataOutcomeSchema = closed({
  vm: Type.String(),
  done: Type.Boolean(),
  code: Type.Union([Type.String(), Type.Null()]),
  message: Type.Union([Type.String(), Type.Null()]),
});

export type MetadataChangesBody = DeepReadonly<Static<typeof MetadataChangesSchema>>;
export type MetadataValuesReply = DeepReadonly<Static<typeof MetadataReplySchema>>;
export type MetadataOutcomeReply = DeepReadonly<Static<typeof MetadataOutcomeSchema>>;
export type ObjectReply = DeepReadonly<Static<typeof ObjectInfoSchema>>;
export type PolicyRequestBody = DeepReadonly<Static<typeof PolicyRequestSchema>>;
export type PolicyReply = DeepReadonly<Static<typeof PolicyInfoSchema>>;
